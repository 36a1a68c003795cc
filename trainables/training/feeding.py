"""What training and evaluation are fed with: images on the device that computes, changed and normalised there.

What an epoch draws is drawn before it begins, batch by batch, and copied to the device at once; so nothing within an epoch
waits for a copy. (Images that stay where they are, in files, are read batch by batch, each while the one before is computed
with.)
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import overload

import numpy as np
import torch
from torch import Tensor

from trainables.data.dataset import Data
from trainables.data.mapped import Mapped, MappedTensor, Pixels
from trainables.data.preparation import Draws, changed, cutout, draw


class Feed:
    """The training images in whole batches, in an order and with changes that are drawn anew for each epoch."""

    def __init__(self, data: Data, batch_size: int, device: str) -> None:
        self._data, self._device = data, device
        self._images, self._labels = training_tensors(data, device)
        self._size = min(batch_size, len(self._labels))
        self.batches = len(self._labels) // self._size
        """Of an epoch."""

    def draw(self, random: torch.Generator) -> None:
        """Begin an epoch: its order, and the crops, mirrors and squares of each batch."""
        order = torch.randperm(len(self._labels), generator=random)
        drawn = [draw(self._data, self._size, random) for _ in range(self.batches)]
        together = Draws(*(None if some[0] is None else torch.stack(some) for some in zip(*drawn, strict=True)))
        self._numbers, self._chosen = order.split(self._size), order.to(self._device).split(self._size)
        self._draws = together.each(lambda one: one.to(self._device))

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] as the network sees them, and their targets."""
        draws = self._draws.each(lambda one: one[number])
        raw, targets = self._of(self._images, number), self._of(self._labels, number)
        images, targets = changed(raw, targets, self._data, draws)
        return seen(images, self._data, draws), targets

    def _of(self, whole: Pixels, number: int) -> Tensor:
        """The batch of this number."""
        if isinstance(whole, Tensor):
            return whole[self._chosen[number]]
        found = whole[self._numbers[number]]
        if number + 1 < self.batches:
            whole.ahead(self._numbers[number + 1])
        return found


def seen(images: Tensor, data: Data, draws: Draws) -> Tensor:
    """Changed images [B, H, W, C] as the network sees them in training, [B, C, H, W]."""
    inputs = normalise(images, data)
    return inputs if draws.centres is None else cutout(inputs, data.cutout, draws.centres)


def normalise(images: Tensor, data: Data) -> Tensor:
    """Images [B, H, W, C] to float32 [B, C, H, W] (channels-last in memory), of zero mean and unit variance if uint8."""
    mean, std = _moments(data.mean, data.std, 1 if images.is_floating_point() else 255, images.device)
    return ((images - mean) / std).permute(0, 3, 1, 2)


@lru_cache(maxsize=16)
def _moments(mean: tuple[float, ...], std: tuple[float, ...], scale: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of values up to ``scale``; they stay on the device."""
    return torch.tensor(mean, device=device) * scale, torch.tensor(std, device=device) * scale


def training_tensors(data: Data, device: str) -> tuple[Pixels, Pixels]:
    """The training images [N, H, W, C], and labels, without a copy on the CPU."""
    return tensors(data.train_images, data.train_labels, device)


@overload
def tensors(images: np.ndarray, labels: np.ndarray, device: str) -> tuple[Tensor, Tensor]: ...


@overload
def tensors(images: np.ndarray | Mapped, labels: np.ndarray | Mapped, device: str) -> tuple[Pixels, Pixels]: ...


def tensors(images: np.ndarray | Mapped, labels: np.ndarray | Mapped, device: str) -> tuple[Pixels, Pixels]:
    """Images [N, C, H, W] as [N, H, W, C], and labels, on the device; on the CPU without a copy."""
    return _on(images, device, of_images=True), _on(labels, device, of_images=False)


def _on(values: np.ndarray | Mapped, device: str, *, of_images: bool) -> Pixels:
    if isinstance(values, Mapped):
        return MappedTensor(values, device)
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only, and nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        found = torch.from_numpy(values)
    return (found.permute(0, 2, 3, 1) if of_images else found).to(device)
