"""Parameters that aren't plain: computed from others in every pass, or standing in a network under several names.

Pruning removes elements of a weight: those of a computed one (``weight_norm``, ``spectral_norm``) there would be none to
remove from, so it is computed once and becomes plain. A tensor of several names is stored, counted and trained once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

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


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = model.named_parameters(remove_duplicate=False)
    return [*parameters, *model.named_buffers(remove_duplicate=False)]
