"""What is left of an attention's layers, for a module that counts all of them.

Such a module is given zeros for inputs that were removed, its layers put out zeros for outputs that were, and it drops them
from what it puts out itself. Layers are linear ones, with channels along the last axis, or convolutions of one pixel, with
channels along the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv1d | nn.Conv2d
INPUTS, OUTPUTS = "inputs_left", "outputs_left"
"""The buffers of a module that has lost some of its own."""


def is_layer(module: Any) -> bool:
    """Whether each output is of all inputs at one place."""
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == 1 and set(module.kernel_size) == {1}


def outputs_of(layer: nn.Module) -> int:
    """Outputs that are left."""
    return len(layer.weight)  # type: ignore[arg-type]


def inputs_of(layer: nn.Module) -> int:
    """Inputs that are left."""
    return int(layer.weight.shape[1])  # type: ignore[index]


class Part(nn.Module):
    """A layer of which some was removed.

    With ``taken`` it looks at these of its inputs alone; with ``made`` it puts out zeros but for these outputs.
    """

    axis: int
    full_inputs: int
    full_outputs: int
    taken: Tensor | None
    made: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """From the full inputs to the full outputs, where something is taken and made."""
        y: Tensor = super().forward(x if self.taken is None else x.index_select(self.axis, self.taken))
        return y if self.made is None else placed(y, self.axis, self.made, self.full_outputs)


class LinearPart(Part, nn.Linear):
    """Of [..., channels]."""

    axis = -1


class Conv1dPart(Part, nn.Conv1d):
    """Of [N, channels, L]."""

    axis = 1


class Conv2dPart(Part, nn.Conv2d):
    """Of [N, channels, H, W]."""

    axis = 1


KINDS = {nn.Linear: LinearPart, nn.Conv1d: Conv1dPart, nn.Conv2d: Conv2dPart}


def part_of(layer: Any) -> Any:
    """The layer, whose class changes."""
    if not isinstance(layer, Part):
        layer.full_inputs, layer.full_outputs = inputs_of(layer), outputs_of(layer)
        layer.__class__ = next(part for kind, part in KINDS.items() if isinstance(layer, kind))
        layer.taken = layer.made = None
    return layer


def spread(layer: nn.Module, left: list[int]) -> None:
    """Put out zeros but for these of the outputs that there were."""
    part = part_of(layer)
    _keep(part, "made", part.full_outputs, left)


def gather(layer: nn.Module, left: list[int]) -> None:
    """Look at these of the inputs that there were alone."""
    part = part_of(layer)
    _keep(part, "taken", part.full_inputs, left)


def widen(module: nn.Module, axis: int, count: int, left: list[int]) -> None:
    """Give a module zeros for all of its ``count`` inputs but these."""
    if not hasattr(module, INPUTS):
        module.register_forward_pre_hook(partial(_with_zeros, axis, count), with_kwargs=True)
    _keep(module, INPUTS, count, left)


def choose(module: nn.Module, axis: int, count: int, left: list[int]) -> None:
    """Take these of a module's ``count`` outputs."""
    if not hasattr(module, OUTPUTS):
        module.register_forward_hook(partial(_without_zeros, axis))
    _keep(module, OUTPUTS, count, left)


def _with_zeros(
    axis: int, full: int, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook: what a module is called with, its first tensor with as many inputs as it once had."""
    first = next(one for one in (*args, *named.values()) if isinstance(one, Tensor))
    whole = placed(first, axis, getattr(module, INPUTS), full)  # query, key and value may be one tensor
    return tuple(whole if one is first else one for one in args), {
        name: whole if one is first else one for name, one in named.items()
    }


def _without_zeros(axis: int, module: nn.Module, _args: Any, output: Any) -> Any:
    """A hook: the outputs that a module has left, of its first tensor."""
    first, *others = output if isinstance(output, tuple) else (output,)
    left = first.index_select(axis, getattr(module, OUTPUTS))
    return (left, *others) if isinstance(output, tuple) else left


def placed(x: Tensor, axis: int, places: Tensor, full: int) -> Tensor:
    """Zeros, ``full`` of them along ``axis``, but for ``x`` at its places."""
    shape = list(x.shape)
    shape[axis] = full
    return x.new_zeros(shape).index_copy(axis, places, x)


def _keep(module: nn.Module, name: str, count: int, left: list[int]) -> None:
    """Of a buffer of numbers, at first of all up to ``count``, keep those at these places; no state dict has it."""
    before: Tensor | None = getattr(module, name, None)
    if before is None:
        module.__dict__.pop(name, None)
        before = torch.arange(count, device=next(module.parameters()).device)
    module.register_buffer(name, before[left], persistent=False)


def narrow(layer: Any, dim: int, left: list[int]) -> None:
    """Keep these outputs (dim 0) or inputs (dim 1) of a layer."""
    layer.weight = narrowed(layer.weight, dim, left)
    name = ("out", "in")[dim] + ("_features" if isinstance(layer, nn.Linear) else "_channels")
    setattr(layer, name, len(left))
    if dim == 0 and layer.bias is not None:
        layer.bias = narrowed(layer.bias, 0, left)


def narrowed(parameter: Tensor, dim: int, left: list[int]) -> nn.Parameter:
    """A parameter of what is ``left`` along ``dim``."""
    chosen = parameter.detach().index_select(dim, torch.tensor(left, device=parameter.device))
    return nn.Parameter(chosen, requires_grad=parameter.requires_grad)


def others(count: int, gone: Iterable[int]) -> list[int]:
    """The numbers below ``count`` that aren't ``gone``."""
    without = set(gone)
    return [i for i in range(count) if i not in without]
