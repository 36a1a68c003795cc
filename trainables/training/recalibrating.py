"""BatchNorm statistics estimated anew, without training: of the network as it is, on the images that training sees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainables.data.dataset import Data
from trainables.data.preparation import augmented, draw
from trainables.networks.limits import estimated_norms
from trainables.networks.reproducible import reproducible
from trainables.networks.running import channels_last
from trainables.records.names import InputError
from trainables.training.feeding import seen, training_tensors
from trainables.training.loop import evaluate

BATCH = 256
LOOK_IMAGES = 512
"""Training images that a look estimates statistics on: more change what it says of a cut by less than its noise."""


def drawn(data: Data, count: int, seed: int, device: str) -> list[Tensor]:
    """Batches of about one size of ``count`` training images, [B, C, H, W], changed as in training; all by ``seed``."""
    images, _ = training_tensors(data, device)
    random = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(images), generator=random)[:count]
    found = []
    for some in chosen.chunk(-(-len(chosen) // BATCH)):
        draws = draw(data, len(some), random).each(lambda one: one.to(device))
        found.append(seen(augmented(images[some.to(device)], data, draws), data, draws))
    return found


@torch.no_grad()
def recalibrate(model: nn.Module, data: Data, count: int, seed: int, device: str = "cpu") -> None:
    """Give each BatchNorm layer of ``model`` the statistics of ``count`` training images, in place and in fp32.

    All else computes as in evaluation. Layers that are frozen keep what they have. Without augmentation the statistics
    would be those of other images than the weights were trained on.
    """
    norms = estimated_norms(model)
    momenta = [norm.momentum for norm in norms]
    channels_last(model.to(device)).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over the batches
        norm.train()
    with reproducible(seed, device):
        for inputs in drawn(data, count, seed, device):
            model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def look(model: nn.Module, data: Data, before: float, seed: int, device: str = "cpu") -> float | None:
    """The measure of a network with recalibrated BatchNorm, which it has lost again afterwards; ``before`` without any.

    None where the measure has no value then: recalibrated outputs can be of any size, and a look fails no step.
    """
    if not estimated_norms(model):
        return before
    with _kept_statistics(model):
        recalibrate(model, data, LOOK_IMAGES, seed, device)
        try:
            return evaluate(model, data, device)
        except InputError:
            return None


@contextlib.contextmanager
def _kept_statistics(model: nn.Module) -> Iterator[None]:
    """Afterwards BatchNorm's buffers hold what they held. No copy of the model: not every network can be copied."""
    buffers = [buffer for norm in estimated_norms(model) for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
