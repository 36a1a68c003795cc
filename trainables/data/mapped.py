"""Images (and masks) that stay where they are: in a cache file, which each process maps into memory, or in their own files.

Of them only what is looked at is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

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


class Source(Protocol):
    """Where images [N, C, H, W], or masks [N, H, W], are; it is pickled for other processes, without them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a value."""

    def read(self, rows: Any) -> npt.NDArray[Any]:
        """These images, in memory: [C, H, W] of a number, [n, C, H, W] of numbers."""


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """An array file of numpy's."""

    file: str

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a value."""
        return self._array.dtype

    def read(self, rows: Any) -> npt.NDArray[Any]:
        """These images, copied."""
        found: npt.NDArray[Any] = self._array[rows]
        return found

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


@dataclass(frozen=True, eq=False)
class Mapped:
    """The ``rows`` of a source, in this order; all that goes to another process is where they are."""

    source: Source
    rows: Integers
    window: Window | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W), or (N, H, W)."""
        rest = self.source.shape[1:]
        return len(self.rows), *(rest if self.window is None else (*rest[:-2], *self.window[2:]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a value."""
        return self.source.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> npt.NDArray[Any]:
        """These images, in memory: [C, H, W] of a number, [n, C, H, W] of a slice or of numbers."""
        found = self.source.read(self.rows[which])
        if self.window is not None:
            top, left, height, width = self.window
            found = found[..., top : top + height, left : left + width]
        return np.ascontiguousarray(found)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All of them, in memory."""
        return np.asarray(self[:], dtype)

    def middle(self, height: int, width: int) -> Mapped:
        """The middle of each image, of this size."""
        have = self.shape[2:]
        return replace(self, window=Window((have[0] - height) // 2, (have[1] - width) // 2, height, width))


class MappedTensor:
    """Mapped images as a tensor [N, H, W, C] on a device, or masks as one [N, H, W], as far as they are needed as one.

    A batch that is told ``ahead`` is read by a thread of its own while the one before is computed with.
    """

    def __init__(self, images: Mapped, device: str) -> None:
        self._images, self._device = images, device
        self._reading = ThreadPoolExecutor(1, "reading")
        self._ahead: tuple[npt.NDArray[Any], Future[npt.NDArray[Any]]] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, which: Tensor) -> Tensor:
        """Those of these numbers."""
        numbers, ahead = which.cpu().numpy(), self._ahead
        if ahead is not None and np.array_equal(ahead[0], numbers):
            return self._tensor(ahead[1].result())
        return self._tensor(self._images[numbers])

    def ahead(self, which: Tensor) -> None:
        """Begin to read those of these numbers, which will be asked for next."""
        numbers = which.cpu().numpy()
        self._ahead = numbers, self._reading.submit(self._images.__getitem__, numbers)

    def split(self, size: int) -> Iterator[Tensor]:
        """All of them, in order, so many at a time."""
        whole = torch.arange(len(self)).split(size)
        for i, which in enumerate(whole):
            batch = self[which]
            if i + 1 < len(whole):
                self.ahead(whole[i + 1])
            yield batch

    def cpu(self) -> Tensor:
        """All of them, in memory."""
        return self._tensor(self._images[:]).cpu()

    def _tensor(self, images: npt.NDArray[Any]) -> Tensor:
        found = torch.from_numpy(images).to(self._device)
        return found.permute(0, 2, 3, 1) if found.dim() == 4 else found


Pixels = Tensor | MappedTensor
"""Images [N, H, W, C], or their targets, on a device."""


def picked(images: npt.NDArray[Any] | Source, rows: Integers) -> npt.NDArray[Any] | Mapped:
    """The images (or masks) of these numbers: a copy in memory, or, of many in a file, where they are."""
    if not isinstance(images, np.ndarray):
        return Mapped(images, np.asarray(rows))
    file = getattr(images, "filename", None)
    if file is None or len(rows) * images[:1].nbytes < MAPPED_FROM:
        return images[rows]
    source = ArrayFile(str(file))
    return Mapped(source, np.asarray(rows)) if source.shape == images.shape else images[rows]  # a part of a file is no file
