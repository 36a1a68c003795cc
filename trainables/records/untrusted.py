"""Reading what may come from anyone: files, JSON and YAML, as plain data and nothing else.

Folders of results are passed around, so nothing in one is believed: not its size, not its depth, not where its links
lead. ``analysis`` imports this module too, so it needs the standard library and PyYAML alone.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainables.records.names import InputError

DEEPEST = 64
"""Levels of nesting; what this project writes has six."""
MOST_YAML = 1 << 20
"""Characters of a study file, and the values that it may hold once its aliases are followed."""
LONGEST_NUMBER = 40
ADDRESS = re.compile(r"[A-Za-z0-9_-]{1,64}")


def machine_memory() -> int:
    """Bytes of memory that this machine has: what asks for more was never meant."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_address(value: Any) -> bool:
    """Whether this can be an address of a step or of a shape, which become names of files: no path, no dots."""
    return isinstance(value, str) and ADDRESS.fullmatch(value) is not None


def read(path: Path) -> bytes:
    """The content of a regular file; to anything else it is blind, because a pipe or a device may never end."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
    return path.read_bytes()


def check_links(folder: Path) -> None:
    """InputError if a link in the folder leads out of it: reading would show, and writing change, files elsewhere."""
    root = folder.resolve()
    for link in _links(folder):
        try:
            inside = link.resolve().is_relative_to(root)
        except RuntimeError:  # it leads to itself
            inside = False
        if not inside:
            raise InputError(f"{link}: is a link that leads out of {folder}; put the file itself there, or remove the link")


def _links(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir():
                yield from _links(Path(entry.path))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError for what isn't JSON, NaN and infinity included, or is nested too deeply."""
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_short)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:LONGEST_NUMBER]} is too large for a number")
    return value


def _short(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _check_depth(value: Any, level: int = 0) -> None:
    if level > DEEPEST:
        raise ValueError("it is nested too deeply")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict | list):
            _check_depth(inner, level + 1)


BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class _Loader(yaml.SafeLoader):
    """Reads 2:4 as text, as YAML 1.2 does, and not as a number of base 60."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0] and BASE_60.fullmatch(value):
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text; ValueError, in one line, for what isn't YAML or can't be taken as plain data.

    Tags that would build objects are refused by the safe loader; here also keys given twice, of which the last would win
    silently, and aliases or numbers that grow out of all proportion.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"it is longer than {MOST_YAML:,} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, 0)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        raise ValueError(f"{_line(place)}{getattr(error, 'problem', None) or 'it has forbidden characters'}") from None
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value doesn't fit its tag ({error})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _line(place: yaml.Mark | None) -> str:
    return f"line {place.line + 1}: " if place else ""


def _size(node: yaml.Node, known: dict[int, int], level: int) -> int:
    """How many values the node stands for, each alias counted as what it repeats."""
    if id(node) in known:
        return known[id(node)]
    if level > DEEPEST:  # so does an alias of what it lies in
        raise ValueError(f"{_line(node.start_mark)}it is nested too deeply")
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif node.tag == "tag:yaml.org,2002:int" and len(node.value) > LONGEST_NUMBER:
        raise ValueError(f"{_line(node.start_mark)}a number has {len(node.value)} digits")
    size = 1 + sum(_size(part, known, level + 1) for part in parts)
    if size > MOST_YAML:
        raise ValueError(f"{_line(node.start_mark)}its aliases stand for more than {MOST_YAML:,} values")
    known[id(node)] = size
    return size


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise ValueError(f"{_line(key.start_mark)}the key {key.value!r} is given twice")
            seen.add((key.tag, key.value))
