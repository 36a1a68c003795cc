"""How a network that anyone wrote is run: its modes, copies and memory; and which of its outputs is the logits, where it
gives several, in evaluation or only while it trains.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainables.networks.reproducible import reproducible

LOGITS = "logits"
ROW_MAJOR = "row_major"
"""The attribute of a network that fails on images that are channels-last in memory."""
TORCH_S_OWN = vars(nn.Module()).keys() - {"_buffers"}
"""Attributes of a module in which torch keeps hooks, layers and parameters: nothing that a forward pass gave."""

M = TypeVar("M", bound=nn.Module)


def evaluating(model: M) -> M:
    """``model`` in evaluation mode, also where its own ``train()``, which ``eval()`` calls, forgets to return it."""
    model.eval()
    return model


def copied(model: M) -> M:
    """A deep copy; of outputs that the network keeps as attributes (features, for plots) it has the values alone."""
    held = [value for module in model.modules() for name, value in vars(module).items() if name not in TORCH_S_OWN]
    kept = [one for one in _tensors(held) if one.grad_fn is not None]
    return copy.deepcopy(model, {id(one): one.detach().clone() for one in kept})


def as_written(model: nn.Module) -> nn.Module:
    """``model`` without what ``torch.compile`` made of it: that is of the shapes that it has before any cut."""
    model = getattr(model, "_orig_mod", model)
    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules())
    return copied(model) if compiled else model  # copies are not compiled


def lives_elsewhere(model: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether copies of ``model`` run layers of ``model`` itself, fail, or give other outputs for images [C, H, W].

    So it is with hooks and functions that hold on to the network that they were made for.
    """
    twin, ran, training = copied(model), [], model.training
    inputs = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    hooks = [module.register_forward_pre_hook(lambda *_: ran.append(True)) for module in model.modules()]
    outputs: list[Tensor] | None = None
    with torch.no_grad(), suppress(Exception), reproducible(0):  # networks raise anything
        outputs = list(_tensors(evaluating(twin)(inputs)))
    for hook in hooks:
        hook.remove()
    with torch.no_grad(), reproducible(0):
        own = list(_tensors(evaluating(model)(inputs)))
    model.train(training)
    same = outputs is not None and all(map(partial(torch.allclose, rtol=1e-3, atol=1e-4, equal_nan=True), own, outputs))
    return bool(ran) or not same


def channels_last(model: nn.Module) -> nn.Module:
    """``model``, its weights channels-last in memory; as it is where they can't be, or where it takes no such images."""
    if getattr(model, ROW_MAJOR, False) or any(parameter.dim() == 5 for parameter in model.parameters()):
        return model
    return model.to(memory_format=torch.channels_last)


def takes_channels_last(model: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether a pass with gradients works on images, [C, H, W], and weights that are channels-last in memory.

    It fails where what a convolution puts out is viewed in another shape (``x.view(len(x), -1)``). A network that fails on
    any images takes them as well as others.
    """
    return _runs(channels_last(copied(model)), torch.channels_last, shape) or not _runs(
        copied(model), torch.contiguous_format, shape
    )


def _runs(model: nn.Module, memory: torch.memory_format, shape: tuple[int, int, int]) -> bool:
    model.train()
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        try:
            outputs = list(_tensors(model(torch.zeros(2, *shape).to(memory_format=memory))))
            torch.stack([one.float().sum() for one in outputs if one.requires_grad]).sum().backward()
        except Exception:  # networks raise anything
            return False
    return True


def make_row_major(model: nn.Module) -> None:
    """Let ``model`` have its images, and keep its weights, one row after another in memory."""
    setattr(model, ROW_MAJOR, True)
    model.register_forward_pre_hook(_row_major)


def _row_major(_model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # contiguous() leaves images of one channel as they are, which convolutions take to be channels-last.
    return tuple(one.clone(memory_format=torch.contiguous_format) if isinstance(one, Tensor) else one for one in inputs)


def _tensors(held: Any) -> Iterator[Tensor]:
    if isinstance(held, Tensor):
        yield held
    for part in _parts(held):
        yield from _tensors(part)


@dataclass
class _OnlyLogits:
    """The hook that picks the logits among a network's outputs, unless all are asked for."""

    name: str | None
    all: bool = False

    def __call__(self, _model: nn.Module, _inputs: Any, output: Any) -> Any:
        return output if self.all or isinstance(output, Tensor) else logits(output, self.name)


def only_logits(model: nn.Module, name: str | None) -> None:
    """Let ``model`` give its logits alone; its other outputs are had of :func:`with_auxiliary`."""
    model.register_forward_hook(_OnlyLogits(name))


def with_auxiliary(model: nn.Module, inputs: Tensor) -> tuple[Any, list[Tensor]]:
    """The logits, and the outputs beside them that are logits too: those of auxiliary heads."""
    hook = next((one for one in model._forward_hooks.values() if isinstance(one, _OnlyLogits)), None)
    if hook is None:
        return model(inputs), []
    hook.all = True
    try:
        output = model(inputs)
    finally:
        hook.all = False
    found = output if isinstance(output, Tensor) else logits(output, hook.name)
    others = [one for one in _parts(output) if isinstance(one, Tensor) and one is not found]
    return found, [one for one in others if one.shape == found.shape and one.is_floating_point()]


def count_auxiliary(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """How many outputs like the logits ``model`` gives beside them while it trains; it stays as it is.

    ``shape`` is of an image, [C, H, W].
    """
    if not any(isinstance(one, _OnlyLogits) for one in model._forward_hooks.values()):
        return 0
    twin = copied(model)
    twin.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return len(with_auxiliary(twin, torch.zeros(2, *shape))[1])


def logits(output: Any, name: str | None) -> Any:
    """The output of this name, or the one that is called logits, or the first tensor; ``output`` itself without any.

    ValueError if there is none of this name.
    """
    named = _named(output)
    if name is not None:
        if name not in named:
            raise ValueError(
                f"model.output: no output is called {name!r}; there are {', '.join(map(str, named)) or 'no names'}"
            )
        return named[name]
    if isinstance(named.get(LOGITS), Tensor):
        return named[LOGITS]
    return next((part for part in _parts(output) if isinstance(part, Tensor)), output)


def _parts(output: Any) -> list[Any]:
    return list(_named(output).values()) or (list(output) if isinstance(output, list | tuple) else [])


def _named(output: Any) -> dict[str, Any]:
    """The parts of a mapping or a named tuple."""
    if isinstance(output, Mapping):
        return dict(output)
    return output._asdict() if hasattr(output, "_asdict") else {}
