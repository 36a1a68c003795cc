"""A network that a program has in memory, and that is in no file: its name is a hash of its code and of its weights.

Its code is what its classes, its attributes and its hooks lead to: of modules of the user's own all that their files hold,
as of a factory; of what was written in a notebook or a script, the functions and classes that it uses, alone.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables import own
from trainables.networks.running import copied
from trainables.records.names import InputError
from trainables.settings import one_line

IN_MEMORY = "in-memory:"
DIGITS = 16
"""Of each of the two hashes in a name, which a dash parts."""

PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device)
HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
OF_EVERY_MODULE = set(vars(nn.Module())) - HOOKS
"""Attributes that are looked at as tensors and layers, or say nothing of what a network computes."""


def is_in_memory(name: str) -> bool:
    """Whether this names a network that is in memory alone."""
    return name.startswith(IN_MEMORY)


def name_of(model: nn.Module) -> str:
    """``in-memory:`` and the hashes of its code and its weights; InputError if there is no telling what it computes."""
    return f"{IN_MEMORY}{_code_hash(model)}-{_weights_hash(model)}"


def code_in(name: str) -> str:
    """The part of a name that tells the code."""
    return name.removeprefix(IN_MEMORY).partition("-")[0]


def snapshot(model: nn.Module) -> nn.Module:
    """A copy on the CPU, which stays as it is whatever becomes of the network; InputError if it can't be copied."""
    try:
        return copied(model).cpu()
    except Exception as error:  # whatever an attribute of the user's own raises
        raise InputError(f"model: can't be copied ({one_line(error)}); remove what isn't part of the network") from error


def _weights_hash(model: nn.Module) -> str:
    """SHA-256 of every parameter and buffer; one that is not finite is refused."""
    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not bool(tensor.isfinite().all()):
            raise InputError(f"model: has infinite or NaN values in {name!r}; train it again")
        digest.update(f"{name}\0{_told_of(tensor)}".encode())
    return digest.hexdigest()[:DIGITS]


def _told_of(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    content = plain.flatten().view(torch.uint8) if plain.numel() else plain
    return f"{plain.dtype} {list(plain.shape)} {hashlib.sha256(content.numpy().tobytes()).hexdigest()}"


def _code_hash(model: nn.Module) -> str:
    code, first = _Code(), dict[int, str]()
    layers = [
        [name, first.setdefault(id(layer), name), code.told(type(layer)), code.told(_attributes(layer))]
        for name, layer in model.named_modules(remove_duplicate=False)
    ]
    tied = [[name, first.setdefault(id(one), name)] for name, one in model.named_parameters(remove_duplicate=False)]
    text = json.dumps([layers, tied, sorted(code.pieces)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _attributes(layer: nn.Module) -> dict[str, Any]:
    """What a layer computes with beside its tensors and the layers in it."""
    found = {name: value for name, value in vars(layer).items() if name not in OF_EVERY_MODULE}
    return found | {name: list(found[name].values()) for name in HOOKS}  # their keys count on in a process


class _Code:
    """What values are in words that are the same in every process, and the ``pieces`` of code that they lead to."""

    def __init__(self) -> None:
        self.pieces = set[str]()
        self._named_before = dict[int, Any]()
        self._inside_of = set[int]()

    def told(self, value: Any) -> Any:
        """The value as JSON; what can't be told apart from others of its class counts as its class."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, Tensor):
            return _told_of(value)
        if isinstance(value, type | FunctionType | BuiltinFunctionType):
            return self._named(value)
        if isinstance(value, MethodType):
            return [self._named(value.__func__), self.told(value.__self__)]
        if id(value) in self._inside_of:
            return "itself"
        self._inside_of.add(id(value))
        told = [self._named(type(value)), self._parts(value)]
        self._inside_of.remove(id(value))
        return told

    def _parts(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [str(value.dtype), list(value.shape), value.tobytes().hex()]
        if isinstance(value, Mapping):
            return [[self.told(key), self.told(inner)] for key, inner in value.items()]
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.told(inner)) for inner in value)
        if isinstance(value, list | tuple | functools.partial):
            inside = (value.func, value.args, value.keywords) if isinstance(value, functools.partial) else value
            return [self.told(inner) for inner in inside]
        if isinstance(value, nn.Module):
            return self.told(_attributes(value))
        return self.told(getattr(value, "__dict__", None))

    def _named(self, thing: Any) -> str:
        """The name of a class or function, whose code is looked at if it is the user's own."""
        name = f"{thing.__module__}.{thing.__qualname__}"
        if id(thing) not in self._named_before:
            self._named_before[id(thing)] = thing  # kept, or another could have its id
            if own.is_written_here(thing):
                self.pieces.update(json.dumps([name, inner]) for inner in self._inside(thing))
            elif thing.__module__:
                self._file(thing.__module__)
            if isinstance(thing, type):
                for base in thing.__bases__:
                    self._named(base)
        return name

    def _file(self, module: str) -> None:
        if own.is_users(module):
            self.pieces.add(json.dumps([module, own.hash_of_sources(module)]))

    def _inside(self, thing: Any) -> Iterator[Any]:
        """What is written of a class or function, and whatever it uses."""
        if not isinstance(thing, type):
            yield from self._of_function(thing)
            return
        for name, value in vars(thing).items():
            functions = [getattr(value, part, None) for part in ("__func__", "fget", "fset")]
            for function in (value, *functions):
                if isinstance(function, FunctionType):
                    yield [name, self._named(inspect.unwrap(function))]
            if isinstance(value, PLAIN) and not name.startswith("__"):
                yield [name, repr(value)]

    def _of_function(self, function: FunctionType) -> Iterator[Any]:
        try:
            yield inspect.getsource(function)
        except (OSError, TypeError):
            raise InputError(
                f"model: the source of {function.__qualname__} can't be found; define it in a file, or in a notebook's cell"
            ) from None
        yield self.told([function.__defaults__, function.__kwdefaults__])
        yield [self.told(cell.cell_contents) for cell in function.__closure__ or () if _is_filled(cell)]
        for name in sorted(_names(function.__code__) & function.__globals__.keys()):
            value = function.__globals__[name]
            if isinstance(value, ModuleType):
                self._file(value.__name__)
            else:
                yield [name, self.told(value)]


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _names(code: CodeType) -> set[str]:
    """Every name that a function, and those inside it, may look up."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
