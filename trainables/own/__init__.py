"""Code of the user's own, named ``package.module:attribute``: imported only if trusted, and part of what it makes."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainables.records.names import InputError
from trainables.settings import nearest, one_line

PATTERN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
THIS_PROGRAM = ("search", "trainables", "analysis")
INSTALLED = {"site-packages", "dist-packages"}


def is_own(name: str) -> bool:
    """Whether a name is written as the user's own, ``package.module:attribute``."""
    return PATTERN.fullmatch(name) is not None


def load(name: str, field: str, kind: str, *, trusted: bool) -> Any:
    """The function or class that ``name`` stands for; ``field``, the setting, and ``kind``, its noun, are for messages.

    InputError if it isn't ``trusted`` (--allow-code), or the module can't be imported, or has none of that name.
    """
    if not trusted:
        raise InputError(f"{field}: {name!r} would run code of yours; add --allow-code if you trust it")
    module_name, _, attribute = name.partition(":")
    _find_here()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the module, and a script may even exit
        why = one_line(error)
        raise InputError(f"{field}: {name!r} cannot be imported ({why}); check the name and the module") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{field}: {module_name!r} has no {kind} {attribute!r}; {nearest(attribute, known)}")
    return found


def source_hash(name: str) -> str:
    """SHA-256 of the source that ``package.module:attribute`` leads to, 64 hexadecimal digits; read once a process."""
    _find_here()
    return cached_hash(name.partition(":")[0])


def hash_of_sources(module: str) -> str:
    """SHA-256 of the source that a module leads to, as it is now.

    That is the module, every module below its package, and the modules beside it that these import, directly or not;
    nothing that is installed, and nothing of this program. The modules are found without being run.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_sources(module).items()):
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


cached_hash = lru_cache(hash_of_sources)
"""The hash of a module's sources as they were when it was first asked for."""


def modules_of(module: str) -> list[str]:
    """The modules of the user's own that a module leads to, itself among them if it is one."""
    return sorted(_sources(module))


def is_users(module: str) -> bool:
    """Whether a module is a file of the user's own."""
    return _file(module) is not None


def is_written_here(thing: Any) -> bool:
    """Whether a class or function was written in a notebook or in the script that runs: others can't import it."""
    return bool(thing.__module__ == "__main__")


def _find_here() -> None:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def _sources(module: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = [module, *_below(module.partition(".")[0])]
    while waiting:
        name = waiting.pop()
        file = None if name in found else _file(name)
        if file is not None:
            found[name] = file
            waiting += _imports(name, file)
    return found


def _file(module: str) -> Path | None:
    """The source of a module that is the user's own; None for any other. No package is imported to find it."""
    top, *below = module.split(".")
    if not top or top in THIS_PROGRAM or top in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # its parts are broken, or it is being imported
        return None
    file = Path(spec.origin) if spec is not None and spec.origin else None
    if file is None or file.suffix != ".py" or not INSTALLED.isdisjoint(file.parts):
        return None
    if not below:
        return file
    inner = file.parent.joinpath(*below)
    return next((one for one in (inner.with_suffix(".py"), inner / "__init__.py") if one.is_file()), None)


def _below(package: str) -> Iterator[str]:
    """The modules of a package; none of a module."""
    file = _file(package)
    if file is None or file.name != "__init__.py":
        return
    for inner in file.parent.rglob("*.py"):
        parts = inner.relative_to(file.parent).with_suffix("").parts
        yield ".".join((package, *(part for part in parts if part != "__init__")))


def _imports(module: str, file: Path) -> Iterator[str]:
    """Names that a module imports, which may be modules."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _statements(block: ast.AST) -> Iterator[ast.AST]:
    """The statements inside, those of inner blocks too; expressions, of which there are many, hold none."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(block, part, ()):
            yield inner
            yield from _statements(inner)
