"""What reaches which layer, found by a pass in which layers put out numbers for their channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.networks.shuffles.moving import Moving

Forward = Callable[[nn.Module], Any]
"""A pass through a network."""

Label = tuple[str, int]
"""A layer and one of its output channels."""

CODE_BITS = 40


@dataclass(frozen=True)
class Flow:
    """What reaches which layer in one pass.

    ``inputs`` has the labels at each layer's inputs, ``mixed`` the layers whose channels are moved about or split together,
    and ``takers`` for each output channel of a layer the layers that take it.
    """

    inputs: Mapping[str, list[Label | None]]
    mixed: list[set[str]]
    takers: Mapping[str, list[frozenset[str]]]


def width_of(module: nn.Module) -> int:
    """Channels that a layer makes."""
    return int(module.weight.shape[0])  # type: ignore[index]


def is_depthwise(module: Any) -> bool:
    """Whether a layer filters each channel by itself, and makes none."""
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def flow_of(model: nn.Module, forward: Forward, gone: Mapping[str, int]) -> Flow:
    """What reaches which layer, were the outputs of some layers so many less.

    Instead of what it computes, each layer that makes channels puts out their codes, numbers below 1 of which no two add up
    to a third but by accident; what scales or bends them (normalisation, activations) passes them on.
    """
    run = _Run({name: module for name, module in model.named_modules() if _notable(module)}, gone)
    with run.patched(), Moving(run.mix), torch.no_grad():
        forward(model)
    return Flow(run.inputs, run.mixed, run.takers())


def _notable(module: nn.Module) -> bool:
    """Whether a layer makes channels, or has parameters for each."""
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear) or (
        not list(module.children()) and (bool(list(module.parameters())) or type(module).__module__ == ACTIVATIONS)
    )


ACTIVATIONS = "torch.nn.modules.activation"


class _Run:
    """One pass with codes."""

    def __init__(self, modules: Mapping[str, nn.Module], gone: Mapping[str, int]) -> None:
        self._modules, self._random = modules, torch.Generator().manual_seed(0)
        self._codes = {name: self._draw(width_of(m) - gone.get(name, 0)) for name, m in modules.items() if _makes(m)}
        self._labels = {int(code): (name, i) for name, codes in self._codes.items() for i, code in enumerate(codes)}
        self.inputs: dict[str, list[Label | None]] = {}
        self.mixed: list[set[str]] = []

    def _draw(self, count: int) -> Tensor:
        return torch.randint(1, 2**CODE_BITS, (count,), generator=self._random).double()

    def mix(self, moved: Tensor) -> None:
        """Note what is moved about."""
        self.mixed.append({label[0] for label in self._read(moved.flatten(2).amax((0, 2))) if label is not None})

    def _read(self, values: Tensor) -> list[Label | None]:
        return [self._labels.get(code) for code in (values.double() * 2.0**CODE_BITS).round().long().tolist()]

    def takers(self) -> dict[str, list[frozenset[str]]]:
        """For each channel the layers that take it."""
        found: dict[Label, set[str]] = {}
        for name, labels in self.inputs.items():
            for label in labels:
                if label is not None:
                    found.setdefault(label, set()).add(name)
        return {
            name: [frozenset(found.get((name, i), ())) for i in range(len(codes))] for name, codes in self._codes.items()
        }

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Let the layers put out codes."""
        for name, module in self._modules.items():
            module.forward = partial(self._pass, name)
        try:
            yield
        finally:
            for module in self._modules.values():
                del module.forward

    def _pass(self, name: str, *inputs: Any, **named: Any) -> Tensor:
        module = self._modules[name]
        x: Tensor = next(iter((*inputs, *named.values())))
        linear = isinstance(module, nn.Linear)
        values = x.flatten(0, -2).amax(0) if linear or x.dim() < 3 else x.flatten(2).amax((0, 2))
        if list(module.parameters()):
            self.inputs[name] = self._read(values)
        if name in self._codes:
            values = self._codes[name] / 2.0**CODE_BITS
        elif not isinstance(module, nn.modules.conv._ConvNd):
            return x
        if linear:
            return values.expand(*x.shape[:-1], -1).clone()
        return values.view(1, -1, *[1] * (x.dim() - 2)).expand(len(x), -1, *_size(module, x)).clone()


def _makes(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and not is_depthwise(module)


def _size(module: Any, x: Tensor) -> torch.Size:
    """Height and width of what a convolution makes."""
    convolve = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
    one = torch.ones(1, 1, *module.kernel_size, dtype=x.dtype)
    return convolve(x[:1, :1], one, None, module.stride, module.padding, module.dilation).shape[2:]
