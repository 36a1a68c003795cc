"""Trained weights of the user's own, read into a network; no code of the file is run."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.records.names import InputError
from trainables.settings import one_line

WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the state dict beside other things."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def load_checkpoint(model: nn.Module, path: str) -> None:
    """Read trained weights into ``model``, every tensor of it and nothing else; no code of the file is run.

    Raises InputError naming the first tensor, in the model's order, that is missing, of another shape or not finite.
    """
    expected = model.state_dict()
    found = _without_prefix(_state(path), expected)
    if difference := _difference(expected, found):
        raise InputError(
            f"model.checkpoint: {path!r} doesn't fit the network: {difference}; "
            "check model.name, model.arguments and the data's classes"
        )
    for name in expected:
        if not bool(found[name].isfinite().all()):
            raise InputError(f"model.checkpoint: {path!r} has infinite or NaN values in {name!r}; train it again")
    model.load_state_dict(found)


def checkpoint_hash(path: str) -> str:
    """SHA-256 of the file, in hexadecimal."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _state(path: str) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, taken out of what training scripts wrap around them."""
    content = _content(Path(path).expanduser(), path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"model.checkpoint: {path!r} holds no named tensors; save model.state_dict()")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"model.checkpoint: {path!r} holds {name!r} of type {type(value).__name__}; save model.state_dict()"
            )
    return {str(name): value for name, value in content.items()}


def _content(file: Path, path: str) -> Any:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickles; what can't be read is told below
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"model.checkpoint: {path!r} is no checkpoint, or would run code when read; save model.state_dict() instead"
        ) from error
    except Exception as error:  # a damaged archive raises almost anything
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"model.checkpoint: there is no file {path!r}; check the path")
    return InputError(f"model.checkpoint: {path!r} cannot be read ({one_line(error)}); save it again")


def _without_prefix(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in found) and not any(name.startswith(prefix) for name in expected):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    for name, tensor in expected.items():
        if name not in found:
            return f"{name!r} {list(tensor.shape)} is missing in the file"
        if found[name].shape != tensor.shape:
            return f"{name!r} is {list(found[name].shape)} in the file and {list(tensor.shape)} in the network"
    unexpected = next((name for name in found if name not in expected), None)
    return unexpected and f"{unexpected!r} {list(found[unexpected].shape)} is in the file and not in the network"
