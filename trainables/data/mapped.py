"""Images that stay in their cache file: each process maps it into memory, and reads of it what it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.data.split import Integers
from trainables.records.names import InputError

MAPPED_FROM = 10**9
"""Bytes of images; fewer are copied into memory, and shared by the workers of a machine there."""


class Window(NamedTuple):
    """The part of each image that is looked at, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Mapped:
    """The ``rows`` of an array file [N, C, H, W], in this order; all that goes to another process is where they are."""

    file: str
    rows: Integers
    window: Window | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "rows": self.rows, "window": self.window}

    @cached_property
    def _array(self) -> npt.NDArray[Any]:
        try:
            found: npt.NDArray[Any] = np.load(self.file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"data.root: {self.file!r} can't be read here ({error}); so many images are read from this file while they "
                "are used: have data.root, with its folder .cache, on a file system that all nodes share"
            ) from None
        return found

    @property
    def whole(self) -> tuple[int, ...]:
        """The shape of what is in the file."""
        return self._array.shape

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        size = self._array.shape[2:] if self.window is None else self.window[2:]
        return len(self.rows), self._array.shape[1], *size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a value."""
        return self._array.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> npt.NDArray[Any]:
        """These images, in memory: [C, H, W] of a number, [n, C, H, W] of a slice or of numbers."""
        found: npt.NDArray[Any] = self._array[self.rows[which]]
        if self.window is not None:
            top, left, height, width = self.window
            found = found[..., top : top + height, left : left + width]
        return np.ascontiguousarray(found)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def middle(self, height: int, width: int) -> Mapped:
        """The middle of each image, of this size."""
        have = self.shape[2:]
        return replace(self, window=Window((have[0] - height) // 2, (have[1] - width) // 2, height, width))


class MappedTensor:
    """Mapped images as a tensor [N, H, W, C] on a device, as far as training and evaluation need one."""

    def __init__(self, images: Mapped, device: str) -> None:
        self._images, self._device = images, device

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, which: Tensor) -> Tensor:
        """Those of these numbers."""
        return self._tensor(self._images[which.cpu().numpy()])

    def split(self, size: int) -> Iterator[Tensor]:
        """All of them, in order, so many at a time."""
        return (self._tensor(self._images[start : start + size]) for start in range(0, len(self), size))

    def _tensor(self, images: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(images).to(self._device).permute(0, 2, 3, 1)


Pixels = Tensor | MappedTensor
"""Images [N, H, W, C] on a device."""


def picked(images: npt.NDArray[Any], rows: Integers) -> npt.NDArray[Any] | Mapped:
    """The images of these numbers: a copy in memory, or, of many in a file, where they are."""
    file = getattr(images, "filename", None)
    if file is None or len(rows) * images[:1].nbytes < MAPPED_FROM:
        return images[rows]
    found = Mapped(str(file), np.asarray(rows))
    return found if found.whole == images.shape else images[rows]  # a part of a file is no file
