"""One update of a network's weights: as it is written, or on a GPU recorded as a CUDA graph and replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from trainables.networks.reproducible import generator_states
from trainables.networks.running import with_auxiliary
from trainables.tasks.base import Task
from trainables.training.kernels import trainable

Precision = Literal["fp32", "bf16"]
Hook = Callable[[nn.Module], None]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From outputs, targets and the images that gave them, [B, C, H, W], to the mean loss of a batch."""
Update = Callable[[Tensor, Tensor], Tensor]
"""From images [B, C, H, W] and their targets, always of one shape, to the mean loss that they had before the update."""

WARM_UP = 3
"""Ordinary steps before one is recorded: in these libraries choose kernels, and the optimizer makes what it remembers."""


@dataclass(frozen=True)
class Step:
    """An update of a network's weights as :func:`trainables.training.loop.fit` is told to do it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    precision: Precision
    device: str
    auxiliary: float = 0.0
    clip_norm: float | None = None
    loss: Loss | None = None
    before_update: Hook | None = None
    after_update: Hook | None = None

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Forward, backward, and what the optimizer makes of it."""
        with autocast(self.precision, self.device), self._trainable:
            loss = self._loss(images, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.before_update is not None:
            self.before_update(self.model)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        if self.after_update is not None:
            self.after_update(self.model)
        return loss.detach().float()

    @cached_property
    def _trainable(self) -> contextlib.AbstractContextManager[Any]:
        return trainable(self.model)

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        outputs, others = with_auxiliary(self.model, images) if self.auxiliary else (self.model(images), [])
        loss = self.task.loss(outputs, targets) if self.loss is None else self.loss(outputs, targets, images)
        for other in others:
            loss = loss + self.auxiliary * self.task.loss(other, targets)
        return loss


class Graph(Protocol):
    """What records the kernels of an update, and runs them again."""

    def warm(self, update: Callable[[], Tensor]) -> Tensor:
        """Do an update where others will be recorded."""

    def record(self, update: Callable[[], Tensor]) -> Tensor:
        """Record an update, without doing it; the tensor that its result will be in. RuntimeError if it can't be."""

    def replay(self) -> None:
        """Do what was recorded."""


class CudaGraph:
    """CUDA's, in a stream of its own."""

    def __init__(self) -> None:
        self._stream, self._graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()

    def warm(self, update: Callable[[], Tensor]) -> Tensor:
        """Do an update in that stream."""
        others = torch.cuda.current_stream()
        self._stream.wait_stream(others)
        with torch.cuda.stream(self._stream):
            found = update()
        others.wait_stream(self._stream)
        return found

    def record(self, update: Callable[[], Tensor]) -> Tensor:
        """Record an update."""
        with torch.cuda.graph(self._graph, stream=self._stream):
            return update()

    def replay(self) -> None:
        """Launch all of its kernels at once."""
        self._graph.replay()


class Recorded:
    """A step that is recorded once and then replayed, so that its Python is paid for by the first few batches alone.

    One that can't be recorded stays as it is: it waits for the device, or draws from the host's generators, which a replay
    would not do again.
    """

    def __init__(self, step: Update, graph: Graph) -> None:
        self._step, self._graph, self._warm = step, graph, 0
        self._held: tuple[Tensor, Tensor] | None = None
        self._loss: Tensor | None = None
        self.refused = False

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """The step on this batch."""
        if not self.refused and self._warm < WARM_UP:
            self._warm += 1
            return self._watched(images, targets)
        if not self.refused and self._loss is None:
            self._record(images, targets)
        if self._loss is None or self._held is None:
            return self._step(images, targets)
        for held, new in zip(self._held, (images, targets), strict=True):
            held.copy_(new)
        self._graph.replay()
        return self._loss

    def _watched(self, images: Tensor, targets: Tensor) -> Tensor:
        before = generator_states()
        loss = self._graph.warm(lambda: self._step(images, targets))
        after = generator_states()
        self.refused = any(not torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)
        return loss

    def _record(self, images: Tensor, targets: Tensor) -> None:
        held = (torch.empty_like(images), torch.empty_like(targets))
        try:
            self._loss, self._held = self._graph.record(lambda: self._step(*held)), held
        except RuntimeError:  # of what CUDA can't record: a value that Python looks at, memory that isn't there
            self.refused = True


def autocast(precision: Precision, device: str) -> contextlib.AbstractContextManager[None]:
    """bf16 autocast, or nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
