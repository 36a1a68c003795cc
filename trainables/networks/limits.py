"""What of a network is to be spared: what the user names, and what is frozen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from trainables.networks.anatomy import weights, widths
from trainables.records.names import InputError


@dataclass(frozen=True)
class Wishes:
    """What the user wants to be spared: layers to keep, shares that may go at most, and channels that a layer keeps."""

    keep: tuple[str, ...] = ()
    max_sparsity: Mapping[str, float] = field(default_factory=dict)
    least_channels: int = 1

    def told(self) -> list[str]:
        """What of it limits more than nothing, a line each."""
        shares = ", ".join(f"{share:.0%} of {pattern}" for pattern, share in self.max_sparsity.items() if share < 1)
        found = {
            "model.keep": ", ".join(self.keep), "model.max_sparsity": f"at most {shares} may go" if shares else "",
            "model.least_channels": f"{self.least_channels}" if self.least_channels > 1 else "",
        }  # fmt: skip
        return [f"{name}: {text}" for name, text in found.items() if text]


def matching(model: nn.Module, pattern: str, where: str) -> set[str]:
    """The modules that a pattern names, with all that is in them, by their first names; InputError if there are none."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found = [module for name, module in modules.items() if name and fnmatchcase(name, pattern)]
    if not found:
        names = [name for name in modules if name]
        close = get_close_matches(pattern, names, n=3) or innermost(names)[:3]
        raise InputError(
            f"model.{where}: {pattern!r} names nothing in the network; nearest: {', '.join(close)}; * stands for any name"
        )
    inside = {inner for module in found for inner in module.modules()}
    return {name for name, module in model.named_modules() if module in inside}


def innermost(names: list[str]) -> list[str]:
    """The innermost of these modules."""
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


def kept(model: nn.Module, wishes: Wishes) -> set[str]:
    """The modules that the user keeps whole."""
    return {name for pattern in wishes.keep for name in matching(model, pattern, "keep")}


def frozen(model: nn.Module) -> set[str]:
    """The modules that have a parameter of their own which is not trained."""
    return {
        name for name, module in model.named_modules() if any(not p.requires_grad for p in module.parameters(recurse=False))
    }


def shares(model: nn.Module, wishes: Wishes) -> dict[str, float]:
    """The largest share that may go, of the modules that have one; the smallest, if several patterns name one."""
    found: dict[str, float] = {}
    for pattern, share in wishes.max_sparsity.items():
        for name in matching(model, pattern, "max_sparsity"):
            found[name] = min(share, found.get(name, 1.0))
    return found


def floors(model: nn.Module, wishes: Wishes) -> dict[str, int]:
    """The channels that a layer keeps at least, of those that keep more than one."""
    limited = shares(model, wishes)
    found = {}
    for name, width in widths(model).items():
        least = max(min(width, wishes.least_channels), math.ceil(width * (1 - limited.get(name, 1.0)) - 1e-9))
        if least > 1:
            found[name] = least
    return found


def spared_weights(model: nn.Module, wishes: Wishes) -> dict[str, float]:
    """The largest share that may go of each prunable weight that is limited; 0 where it is kept or frozen."""
    whole, limited = kept(model, wishes) | frozen_weights(model), shares(model, wishes)
    found = {}
    for name in weights(model):
        module = name.removesuffix(".weight")
        if module in whole:
            found[name] = 0.0
        elif limited.get(module, 1.0) < 1:
            found[name] = limited[module]
    return found


def frozen_weights(model: nn.Module) -> set[str]:
    """The layers whose prunable weights are not trained."""
    return {name.removesuffix(".weight") for name, weight in weights(model).items() if not weight.requires_grad}


def frozen_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The BatchNorm layers none of whose parameters is trained, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and (own := list(module.parameters(recurse=False)))
        and not any(parameter.requires_grad for parameter in own)
    }


def estimated_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers whose statistics training estimates."""
    frozen = set(frozen_norms(model).values())
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return [norm for norm in norms if norm.running_mean is not None and norm not in frozen]


@torch.no_grad()
def copy_frozen(model: nn.Module, source: nn.Module) -> None:
    """Give the frozen parameters of ``model``, and the statistics of its frozen BatchNorm layers, ``source``'s values."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            parameter.copy_(source.get_parameter(name))
    for name, module in frozen_norms(model).items():
        for inner, buffer in module.named_buffers():
            buffer.copy_(source.get_buffer(f"{name}.{inner}"))


def spare(scores: Tensor, share: float) -> Tensor:
    """``scores`` with those at infinity that must stay, so that at most ``share`` of them can go."""
    staying = math.ceil(scores.numel() * (1 - share) - 1e-9)
    flat = scores.flatten().clone()
    flat[torch.topk(flat, staying).indices] = math.inf
    return flat.view_as(scores)
