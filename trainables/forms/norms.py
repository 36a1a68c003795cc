"""BatchNorm as it is in eval mode, a scale and a shift for each channel, in place of four numbers and a count.

A BatchNorm whose running mean is 0 and whose running variance is 1 less its epsilon computes just that, so nothing but the
layer itself is looked at, and what it gives in eval mode stays the same within the rounding of a float. Into the layers
around it the scale isn't folded: that would take a graph of the network, which not every network has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
SCALE, SHIFT = "weight", "bias"
IMPLIED = ("running_mean", "running_var", "num_batches_tracked")
"""What need not be stored of a layer that was reduced."""


def reducible(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The BatchNorm layers with statistics, scale and shift of their own; those of other classes may compute otherwise."""
    owners = Counter(id(tensor) for module in model.modules() for tensor in _own(module).values())
    for name, module in model.named_modules():
        own = _own(module)
        if (
            type(module) in KINDS
            and own.keys() == {SCALE, SHIFT, *IMPLIED}
            and all(owners[id(one)] == 1 for one in own.values())
        ):
            yield f"{name}." if name else "", module


def _own(module: nn.Module) -> Mapping[str, Tensor]:
    tensors = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def reduced(model: nn.Module, but: Iterable[str]) -> dict[str, Tensor | None]:
    """The tensors of a state dict that change where layers are reduced, None for those that are implied.

    Layers with a tensor among ``but``, and those that don't come out as numbers, stay as they are.
    """
    found, left = dict[str, Tensor | None](), set(but)
    for start, module in reducible(model):
        own = {name: tensor.detach().cpu().double() for name, tensor in _own(module).items()}
        scale = own[SCALE] / torch.sqrt(own["running_var"] + module.eps)  # type: ignore[operator]
        shift = own[SHIFT] - own["running_mean"] * scale
        pair = {start + SCALE: scale.float(), start + SHIFT: shift.float()}
        if left.isdisjoint(start + name for name in own) and all(bool(one.isfinite().all()) for one in pair.values()):
            found |= {**pair, **dict.fromkeys(start + name for name in IMPLIED)}
    return found


def implied(model: nn.Module) -> dict[str, Tensor]:
    """What a state dict holds that isn't stored, of every layer that can have been reduced."""
    found = dict[str, Tensor]()
    for start, module in reducible(model):
        own = _own(module)
        values = (0.0, 1.0 - float(module.eps), 0)  # type: ignore[arg-type]
        found |= {start + name: torch.full_like(own[name], value) for name, value in zip(IMPLIED, values, strict=True)}
    return found
