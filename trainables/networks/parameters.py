"""Parameters that aren't plain: computed from others in every pass, standing in a network under several names, or buffers.

Pruning removes elements of a weight: those of a computed one (``weight_norm``, ``spectral_norm``) there would be none to
remove from, so it is computed once and becomes plain. A tensor of several names is stored, counted and trained once. Of
what normalises and torch-pruning doesn't know (``FrozenBatchNorm2d``, ``RMSNorm``, tracked ``InstanceNorm2d``) it is told,
and of what has a fixed filter for each channel (BlurPool).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainables.networks.torch_pruning_alone import tp
from trainables.records.names import InputError

FOLDED = "folded_layers"
"""The attribute of a network that names its layers whose weights were computed."""


def fold(model: nn.Module) -> list[str]:
    """Make every computed weight of ``model`` plain, in place; the layers that had one, which it then names itself.

    InputError if one stays computed before each pass, by a hook that is not known here.
    """
    folded = []
    for name, module in list(model.named_modules()):
        if parametrize.is_parametrized(module):
            for attribute in list(module.parametrizations):
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
            folded.append(name)
        if _remove_hooks(module):
            folded.append(name)
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and not isinstance(weight, nn.Parameter) and weight.requires_grad:
            raise InputError(
                f"model.name: the weight of {name!r} is computed in every pass; fold it into a plain one first"
            )
    names = list(dict.fromkeys(folded))
    if names:
        setattr(model, FOLDED, names)
    return names


def _remove_hooks(module: nn.Module) -> bool:
    """Take away what the older functions of ``torch.nn.utils`` hooked on a layer."""
    removers = {"WeightNorm": nn.utils.remove_weight_norm, "SpectralNorm": nn.utils.remove_spectral_norm}
    found = [hook for hook in module._forward_pre_hooks.values() if type(hook).__name__ in removers]
    for hook in found:
        removers[type(hook).__name__](module, hook.name)  # type: ignore[attr-defined]
    if found:  # torch looks for a hook of its own under the hook that it wraps it in, and leaves it
        loading = module._load_state_dict_pre_hooks
        for key in [key for key, hook in loading.items() if "SpectralNorm" in repr(getattr(hook, "hook", hook))]:
            del loading[key]
    return bool(found)


def folded_state(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict with every computed weight that ``expected`` has as a plain one computed."""
    made = dict(found)
    for name, like in expected.items():
        owner, _, attribute = name.rpartition(".")
        if owner.endswith(".in_proj") and (old := f"{owner}_{attribute}") in made:  # of nn.MultiheadAttention
            made[name] = made.pop(old)
        start = f"{owner}." if owner else ""
        inner = f"{start}parametrizations.{attribute}."
        for parts, compute in (
            ((f"{inner}original0", f"{inner}original1"), _normed),
            ((f"{name}_g", f"{name}_v"), _normed),
            ((f"{inner}original", f"{inner}0._u", f"{inner}0._v"), _spectral),
            ((f"{name}_orig", f"{name}_u", f"{name}_v"), _spectral),
        ):
            if name not in made and all(part in made for part in parts):
                made[name] = compute(like, *(made.pop(part) for part in parts))
                made.pop(f"{name}_v", None)
    return made


def _normed(_like: Tensor, size: Tensor, direction: Tensor) -> Tensor:
    """weight_norm: ``direction`` with norms ``size`` along the one dimension that these have, or of the whole."""
    others = [dim for dim in range(direction.dim()) if size.dim() != direction.dim() or size.shape[dim] == 1]
    norms: Tensor = direction.norm(2, dim=others, keepdim=True)
    return direction * (size / norms)


def _spectral(like: Tensor, weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """spectral_norm: ``weight`` over its largest singular value, as the vectors estimate it."""
    dim = 0 if weight.shape[0] == len(left) and weight.numel() == len(left) * len(right) else 1
    flat = weight.movedim(dim, 0).flatten(1)
    return (weight / torch.dot(left, flat @ right)).view_as(like)


Ties = list[list[str]]
"""The names of each tensor that has several, in the order in which the network has them."""


def ties(model: nn.Module) -> Ties:
    """The parameters and buffers of ``model`` that several names lead to."""
    names: dict[int, list[str]] = {}
    for name, tensor in _tensors(model):
        names.setdefault(id(tensor), []).append(name)
    return [some for some in names.values() if len(some) > 1]


def retie(model: nn.Module, shared: Ties) -> None:
    """Let names that led to one tensor lead to one again, where a cut left them equal shapes."""
    tensors = dict(_tensors(model))
    for first, *others in shared:
        for name in others:
            if tensors[name].shape == tensors[first].shape and tensors[name] is not tensors[first]:
                owner, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(owner), attribute, tensors[first])


def aliases(model: nn.Module) -> dict[str, str]:
    """From each further name of a tensor to its first."""
    return {name: first for first, *others in ties(model) for name in others}


class Statistics(tp.pruner.BasePruningFunc):  # type: ignore[misc]
    """torch-pruning's way to cut a layer that has statistics, and maybe scales and shifts, of each channel."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """The same as inputs."""
        count = self.get_out_channels(layer)
        left = [i for i in range(count) if i not in set(idxs)]
        for name, parameter in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, self._prune_parameter_and_grad(parameter, left, 0))
        for name, buffer in list(layer.named_buffers(recurse=False)):
            if buffer.shape == (count,):
                setattr(layer, name, buffer[left])
        if hasattr(layer, "num_features"):
            layer.num_features = len(left)  # type: ignore[assignment]
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        """Channels that are left."""
        return len(layer.running_mean)  # type: ignore[arg-type]

    get_in_channels = get_out_channels


class RootMeanSquares(tp.pruner.BasePruningFunc):  # type: ignore[misc]
    """torch-pruning's way to cut ``nn.RMSNorm`` and its like, which scale the last axis."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """The same as inputs."""
        left = [i for i in range(self.get_out_channels(layer)) if i not in set(idxs)]
        for name, tensor in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, self._prune_parameter_and_grad(tensor, left, 0))
        layer.normalized_shape = (len(left),)  # type: ignore[assignment]
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        """Channels that are left."""
        return int(layer.normalized_shape[0])  # type: ignore[index]

    get_in_channels = get_out_channels


class Filters(tp.pruner.BasePruningFunc):  # type: ignore[misc]
    """torch-pruning's way to cut what passes each channel through a filter that isn't trained (Zhang 2019, BlurPool)."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """The same as inputs."""
        count = self.get_out_channels(layer)
        left = [i for i in range(count) if i not in set(idxs)]
        for name in _filters(layer):
            setattr(layer, name, getattr(layer, name)[left])
        for name in COUNTING:
            if getattr(layer, name, None) == count:
                setattr(layer, name, len(left))
        setattr(layer, CUT, True)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        """Channels that are left."""
        return len(getattr(layer, _filters(layer)[0]))

    get_in_channels = get_out_channels


COUNTING = ("channels", "num_channels", "in_channels", "out_channels", "groups", "dim")
"""How such modules call the number of their channels."""


CUT = "has_lost_filters"
"""The attribute that tells the one filter left of many from one for all channels."""


def _filters(module: nn.Module) -> list[str]:
    """The names of a module's buffers [channels, 1, ...]."""
    fewest = 1 if hasattr(module, CUT) else 2
    buffers = module.named_buffers(recurse=False)
    return [name for name, one in buffers if one.dim() > 2 and one.shape[1] == 1 and len(one) >= fewest]


def by_channel(model: nn.Module) -> dict[type[nn.Module], tp.pruner.BasePruningFunc]:
    """The classes of the layers of ``model`` that do something of each channel, and that torch-pruning doesn't know."""
    found: dict[type[nn.Module], set[Any]] = {}
    for module in model.modules():
        if not isinstance(module, KNOWN):
            found.setdefault(type(module), set()).add(_way_of(module))
    return {kind: way() for kind, (way, *others) in found.items() if way is not None and not others}


KNOWN = nn.modules.batchnorm._BatchNorm, nn.LayerNorm
"""Those that torch-pruning cuts."""


def _way_of(module: nn.Module) -> type[Statistics | RootMeanSquares | Filters] | None:
    mean, shape = getattr(module, "running_mean", None), getattr(module, "normalized_shape", None)
    sizes = {tuple(parameter.shape) for parameter in module.parameters()}
    if isinstance(mean, Tensor) and mean.dim() == 1 and sizes <= {tuple(mean.shape)} and not list(module.children()):
        return Statistics
    if isinstance(shape, tuple) and len(shape) == 1 and sizes <= {shape} and not list(module.children()):
        return RootMeanSquares
    filters = {len(getattr(module, name)) for name in _filters(module)}
    return Filters if len(filters) == 1 and not sizes and not type(module).__module__.startswith("torch.") else None


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = model.named_parameters(remove_duplicate=False)
    return [*parameters, *model.named_buffers(remove_duplicate=False)]
