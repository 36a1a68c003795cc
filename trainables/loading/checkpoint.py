"""Trained weights of the user's own, as training scripts leave them, read into a network; no code of the file is run."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.networks.anatomy import weights
from trainables.networks.parameters import folded_state
from trainables.records.names import InputError
from trainables.settings import one_line

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
"""Keys of weights that are a mean over the training, which is what such scripts measure."""
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model", "net", "module")
"""Keys under which training scripts keep the state dict beside other things."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, torch.compile and Lightning put before every name."""
COUNTERS = ("total_ops", "total_params")
"""What profilers leave in every layer."""
REMEDIES = {
    "quantised, complex or integer": "save the float weights", "sparse or no": "save dense tensors",
    "infinite or NaN": "train it again",
}  # fmt: skip
COMPILED = "._orig_mod."
MOST_WRAPPERS = 4


@dataclass
class Loaded:
    """What a checkpoint brought beside the weights: masks, and what was chosen or left out, in words."""

    masks: dict[str, Tensor] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


class _Inert:
    """Stands for an object of any class beside the weights: nothing of it is run, and nothing is kept."""

    name: ClassVar[str]

    def __init__(self, *_: Any, **__: Any) -> None:
        """Whatever the object was made of."""

    def __setstate__(self, _state: Any) -> None:
        """Whatever it held."""


def _emptied(*_: Any) -> dict[Any, Any]:
    """Stands for a dictionary of a kind that ``torch.load`` doesn't know."""
    return {}


def load_checkpoint(model: nn.Module, path: str) -> Loaded:
    """Read trained weights into ``model``, every tensor of it and nothing else; no code of the file is run.

    Raises InputError naming the first tensor, in the model's order, that is missing, of another shape or not finite.
    """
    loaded, expected = Loaded(), model.state_dict()
    found = _usual_names(_state(path, loaded), expected, loaded)
    for name, tensor in expected.items():
        if name.endswith("num_batches_tracked"):
            found.setdefault(name, tensor)
    if wrong := difference(expected, found):
        raise InputError(
            f"model.checkpoint: {path!r} doesn't fit the network: {wrong}; "
            "check model.name, model.arguments and the data's classes"
        )
    for name in expected:
        if wrong := _unusable(found[name], expected[name]):
            raise InputError(f"model.checkpoint: {path!r} has {wrong} values in {name!r}; {REMEDIES[wrong]}")
        expected[name] = found[name]  # layers tell by this dictionary's metadata which version of them it is of
    model.load_state_dict(expected)
    _hold(loaded, weights(model))
    return loaded


def _unusable(found: Tensor, expected: Tensor) -> str | None:
    """What of a tensor's values is not as the network needs them."""
    if found.is_quantized or found.is_complex() or (expected.is_floating_point() and not found.is_floating_point()):
        return "quantised, complex or integer"
    if found.layout != torch.strided or found.is_meta:
        return "sparse or no"
    return None if bool(found.isfinite().all()) else "infinite or NaN"


def _hold(loaded: Loaded, prunable: Mapping[str, Tensor]) -> None:
    """Keep the masks of prunable weights, and tell what becomes of all of them."""
    others = [name for name in loaded.masks if name not in prunable]
    loaded.masks = {name: mask for name, mask in loaded.masks.items() if name in prunable}
    if loaded.masks:
        loaded.told.append(f"masks taken over, what they removed stays removed: {_few(list(loaded.masks))}")
    if others:
        loaded.told.append(f"masks applied and not held, of what isn't pruned here: {_few(others)}")


def checkpoint_hash(path: str) -> str:
    """SHA-256 of the file, in hexadecimal."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _state(path: str, loaded: Loaded) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, taken out of what training scripts wrap around them."""
    content = _content(Path(path).expanduser(), path)
    for _ in range(MOST_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key]), None)
        if key is None:
            break
        if key in AVERAGED:
            loaded.told.append(f"{key} is taken, the mean of the weights over their training")
        content = content[key]
    if (whole := _whole(content)) is not None:
        raise InputError(
            f"model.checkpoint: {path!r} holds a whole pickled {whole.name}, which can't be read without running its code; "
            "save model.state_dict() instead"
        )
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"model.checkpoint: {path!r} holds no named tensors; save model.state_dict()")
    if not any(isinstance(value, Tensor) for value in content.values()):
        name, value = next(iter(content.items()))
        raise InputError(
            f"model.checkpoint: {path!r} holds {name!r} of type {type(value).__name__}; save model.state_dict()"
        )
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    _leave_out(others, "no tensor", loaded)
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _whole(content: Any) -> _Inert | None:
    """The object that a file holds in place of named tensors, if it holds one."""
    if isinstance(content, _Inert):
        return content
    if not isinstance(content, Mapping) or any(isinstance(value, Tensor) for value in content.values()):
        return None
    return next((content[key] for key in WRAPPERS if isinstance(content.get(key), _Inert)), None)


def _content(file: Path, path: str) -> Any:
    strange = list[str]()
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        if reason := _program(file):
            raise InputError(f"model.checkpoint: {path!r} {reason}; save model.state_dict() instead")
        strange = _strange(file)
        with warnings.catch_warnings(), torch.serialization.safe_globals([_stand_in(name) for name in strange]):
            warnings.simplefilter("ignore")  # of old pickles; what can't be read is told below
            return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        what = f" ({', '.join(strange[:3])})" if strange else ""
        raise InputError(
            f"model.checkpoint: {path!r} is no checkpoint, or would run code when read{what}; "
            "save model.state_dict() instead"
        ) from error
    except Exception as error:  # a damaged archive raises almost anything
        raise _unreadable(path, error) from error


def _program(file: Path) -> str | None:
    """Why a file is a program and no weights, or None."""
    if not zipfile.is_zipfile(file):
        return None
    with zipfile.ZipFile(file) as archive:
        inside = {name.rpartition("/")[2] for name in archive.namelist()}
        below = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in inside:
        return "is a TorchScript program, of which layers can't be pruned"
    if "serialized_exported_program.json" in inside or any(name.startswith("models/") for name in below):
        return "is an exported program (torch.export), of which layers can't be pruned"
    return None


def _strange(file: Path) -> list[str]:
    """The classes and functions that the file names and that aren't known to be harmless."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # an old format, or no checkpoint: it is read, or refused, without
        return []


def _stand_in(name: str) -> tuple[Any, str]:
    """What is read in place of something strange."""
    made = _emptied if name == "collections.defaultdict" else type("_Inert", (_Inert,), {"name": name})
    return made, name


def _unreadable(path: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"model.checkpoint: there is no file {path!r}; check the path")
    return InputError(f"model.checkpoint: {path!r} cannot be read ({one_line(error)}); save it again")


def _usual_names(found: dict[str, Tensor], expected: Mapping[str, Tensor], loaded: Loaded) -> dict[str, Tensor]:
    """The tensors by the names that the network has for them."""
    counters = [name for name in found if name.rpartition(".")[2] in COUNTERS and name not in expected]
    if "n_averaged" not in expected and "n_averaged" in found:
        counters.append("n_averaged")
    _leave_out(counters, "counters", loaded)
    found = {name: tensor for name, tensor in found.items() if name not in counters}
    found = _without_prefixes(found, expected, loaded)
    if not any(COMPILED in name for name in expected):
        found = {name.replace(COMPILED, "."): tensor for name, tensor in found.items()}
    found, loaded.masks = _masked(found, expected)
    return folded_state(found, expected)


def _without_prefixes(found: dict[str, Tensor], expected: Mapping[str, Tensor], loaded: Loaded) -> dict[str, Tensor]:
    while prefix := next((prefix for prefix in PREFIXES if _wraps(prefix, found, expected)), None):
        others = [name for name in found if not name.startswith(prefix)]
        _leave_out(others, f"beside {prefix}*", loaded)
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name not in others}
    return found


def _wraps(prefix: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether what the network needs stands below ``prefix``: all that was found, or that and what it has no use for."""
    if any(name.startswith(prefix) for name in expected):
        return False
    below = [name for name in found if name.startswith(prefix)]
    return bool(below) and (len(below) == len(found) or not any(name in expected for name in found))


def _masked(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """``torch.nn.utils.prune`` keeps NAME_orig and NAME_mask for each NAME: their product, and the masks."""
    masks = {
        name: found[f"{name}_mask"].bool()
        for name in (given.removesuffix("_mask") for given in found if given.endswith("_mask"))
        if name not in found and f"{name}_mask" not in expected and _same_shape(found, f"{name}_orig", f"{name}_mask")
    }
    halves = {f"{name}{half}" for name in masks for half in ("_orig", "_mask")}
    plain = {name: tensor for name, tensor in found.items() if name not in halves}
    return plain | {name: found[f"{name}_orig"] * found[f"{name}_mask"] for name in masks}, masks


def _same_shape(found: Mapping[str, Tensor], one: str, other: str) -> bool:
    return one in found and found[one].shape == found[other].shape


def _leave_out(names: list[str], what: str, loaded: Loaded) -> None:
    if names:
        loaded.told.append(f"left out, {what}: {_few(names)}")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first tensor that ``found`` lacks, has in another shape, or has beside ``expected``, in words; or None."""
    for name, tensor in expected.items():
        if name not in found:
            return f"{name!r} {list(tensor.shape)} is missing in the file"
        if found[name].shape != tensor.shape:
            return f"{name!r} is {list(found[name].shape)} in the file and {list(tensor.shape)} in the network"
    unexpected = next((name for name in found if name not in expected), None)
    return unexpected and f"{unexpected!r} {list(found[unexpected].shape)} is in the file and not in the network"
