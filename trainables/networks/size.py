"""What a network asks of the machine; before it is built, on torch's meta device, where tensors have no memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from trainables.networks.anatomy import prunable
from trainables.networks.factory import ModelSettings, build, is_own
from trainables.own.in_memory import is_in_memory
from trainables.records.names import InputError
from trainables.settings import one_line


class _Weightless(TorchFunctionMode):
    """Makes what weights are made of without memory; not what architectures count with (RegNet reads its ``arange``)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        return func(*args, **(given | {"device": "meta"} if func in (torch.empty, torch.zeros, torch.ones) else given))


def check_size(
    settings: ModelSettings, classes: int, shape: tuple[int, int, int], most_bytes: int, remedy: str,
    most_macs: float = math.inf,
) -> None:  # fmt: skip
    """InputError if the network's tensors, or what its layers put out for one image, take more than ``most_bytes``.

    A factory of the user's own is not looked at: it is code that was trusted, and needn't know the meta device. Nor is a
    network that is in memory already.
    """
    if is_own(settings.name) or is_in_memory(settings.name):
        return
    asked = f"model: {settings.name} with {settings.arguments} on images {list(shape)}"
    if math.prod(shape) * 4 > most_bytes:
        raise InputError(f"{asked} asks for more than {most_bytes / 1e9:.1f} GB; {remedy}")
    with _Weightless():
        model = build(settings, classes, shape, trusted=False, check=False).eval().to("meta").requires_grad_(False)
    tensors = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    outputs, macs = _forward(model, shape, asked)
    if max(tensors, outputs) > most_bytes:
        raise InputError(
            f"{asked} asks for {max(tensors, outputs) / 1e9:.1f} GB, more than {most_bytes / 1e9:.1f}; {remedy}"
        )
    if macs > most_macs:
        raise InputError(f"{asked} asks for {macs:.1e} multiply-accumulates an image; {remedy}")


def _forward(model: nn.Module, shape: tuple[int, int, int], asked: str) -> tuple[int, int]:
    """(bytes of all outputs, multiply-accumulates) of one forward pass."""
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        sizes.append(output.numel() * output.element_size() if isinstance(output, Tensor) else 0)

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *shape, device="meta"))
    except Exception as error:  # what an architecture raises on images that don't fit it can be anything
        raise InputError(f"{asked} fails ({one_line(error)}); images of another size fit it") from None
    return sum(sizes), counter.get_total_flops() // 2


@contextlib.contextmanager
def _untrained(model: nn.Module) -> Iterator[None]:
    """Without parameters that need gradients: torch's counter fails where one is a layer's input."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def module_macs(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Multiply-accumulates of each prunable layer for one input, by torch's own counter (two FLOPs are one MAC)."""
    model.eval()
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _untrained(model), counter:
        model(torch.zeros(1, *shape, device=device))
    root = type(model).__name__
    counts = counter.get_flop_counts()
    return {name: sum(counts.get(f"{root}.{name}", {}).values()) // 2 for name in prunable(model)}
