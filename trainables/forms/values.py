"""How the kept values of one tensor are written: a class each. Bytes that are alike in kind are kept together in planes.

``row`` is the output channel of each value, its index along the tensor's first dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]
Planes = Mapping[str, Bytes]
LEVELS = 127
"""int8 is symmetric: from -127 to 127."""


class Values(ABC):
    """A way to write values; ``code`` stands for it in a file."""

    code: int

    @abstractmethod
    def lengths(self, count: int, rows: int, width: int) -> Mapping[str, int]:
        """The bytes that so many values, of so many different rows and each of ``width`` bytes, take in each plane."""

    @abstractmethod
    def write(self, values: Tensor, row: Tensor) -> Planes:
        """The bytes of some values in each plane."""

    @abstractmethod
    def read(self, planes: Planes, row: Tensor, kind: torch.dtype) -> Tensor:
        """The values, of type ``kind``."""

    def holds(self, values: Tensor, row: Tensor) -> bool:  # noqa: ARG002 - for those that can't hold all
        """Whether the values can be written so."""
        return True


class Raw(Values):
    """As they are in memory, whatever their type."""

    code = 0

    def lengths(self, count: int, rows: int, width: int) -> Mapping[str, int]:  # noqa: ARG002
        """All of them."""
        return {"raw": count * width}

    def write(self, values: Tensor, row: Tensor) -> Planes:  # noqa: ARG002
        """In one plane."""
        return {"raw": values.contiguous().view(torch.uint8).numpy()}

    def read(self, planes: Planes, row: Tensor, kind: torch.dtype) -> Tensor:  # noqa: ARG002
        """To the last bit."""
        content = torch.from_numpy(planes["raw"])
        return content.ne(0) if kind == torch.bool else content.view(kind)


class Float32(Values):
    """fp32, its exponents together."""

    code = 1

    def lengths(self, count: int, rows: int, width: int) -> Mapping[str, int]:  # noqa: ARG002
        """Four bytes a value."""
        return {f"fp32.{i}": count for i in range(4)}

    def write(self, values: Tensor, row: Tensor) -> Planes:  # noqa: ARG002
        """Exponents are a byte of their own once the sign has gone to the other end."""
        bits = values.numpy().view(np.uint32)
        turned = (bits << 1 | bits >> 31).astype("<u4").view(np.uint8).reshape(-1, 4)
        return {f"fp32.{i}": turned[:, i] for i in range(4)}

    def read(self, planes: Planes, row: Tensor, kind: torch.dtype) -> Tensor:  # noqa: ARG002
        """To the last bit."""
        turned = np.stack([planes[f"fp32.{i}"] for i in range(4)], axis=1).copy().view("<u4").reshape(-1).astype(np.uint32)
        return torch.from_numpy((turned >> 1 | turned << 31).view(np.float32))

    def holds(self, values: Tensor, row: Tensor) -> bool:  # noqa: ARG002
        """Only what is fp32."""
        return values.dtype == torch.float32


class Float16(Values):
    """fp16, rounded to the nearest."""

    code = 2

    def lengths(self, count: int, rows: int, width: int) -> Mapping[str, int]:  # noqa: ARG002
        """Two bytes a value."""
        return {"fp16.low": count, "fp16.high": count}

    def write(self, values: Tensor, row: Tensor) -> Planes:  # noqa: ARG002
        """Sign and exponent are in the higher byte."""
        return _halves(values.half().numpy())

    def read(self, planes: Planes, row: Tensor, kind: torch.dtype) -> Tensor:  # noqa: ARG002
        """Within half a unit in the last place of fp16."""
        return torch.from_numpy(_of_halves(planes)).to(kind)

    def holds(self, values: Tensor, row: Tensor) -> bool:  # noqa: ARG002
        """Only fp32 that fp16's exponents reach."""
        return values.dtype == torch.float32 and bool(values.half().isfinite().all())


class Int8(Values):
    """int8, symmetric, with an fp16 scale for each row that has a value: w = q * scale, q from -127 to 127."""

    code = 3

    def lengths(self, count: int, rows: int, width: int) -> Mapping[str, int]:  # noqa: ARG002
        """One byte a value, and two a row."""
        return {"int8": count, "fp16.low": rows, "fp16.high": rows}

    def write(self, values: Tensor, row: Tensor) -> Planes:
        """The scale is rounded up, so that the largest value of a row stays within its levels."""
        scales, place = _scales(values, row)
        scale = torch.from_numpy(scales).float()[place]
        whole = torch.where(scale > 0, values / scale, 0.0).round().to(torch.int8)
        return {"int8": whole.numpy().view(np.uint8), **_halves(scales)}

    def read(self, planes: Planes, row: Tensor, kind: torch.dtype) -> Tensor:
        """Within half a scale."""
        _, place = numbered(row)
        scale = torch.from_numpy(_of_halves(planes)).float()[place]
        return (torch.from_numpy(planes["int8"].view(np.int8)).float() * scale).to(kind)

    def holds(self, values: Tensor, row: Tensor) -> bool:
        """Only fp32 whose scales fp16 reaches."""
        return values.dtype == torch.float32 and bool(np.isfinite(_scales(values, row)[0]).all())


def _scales(values: Tensor, row: Tensor) -> tuple[npt.NDArray[np.float16], Tensor]:
    """The scale of each row that has a value, and for each value which of them is its."""
    count, place = numbered(row)
    largest = torch.zeros(count).scatter_reduce(0, place, values.abs().float(), "amax")
    exact = largest.numpy() / LEVELS
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float16)
        return np.where(rounded < exact, np.nextafter(rounded, np.float16(np.inf)), rounded), place


def numbered(row: Tensor) -> tuple[int, Tensor]:
    """How many different rows there are, and of each value which of them it is of."""
    there = row.bincount() > 0
    return int(there.sum()), (there.cumsum(0) - 1)[row]


def _halves(values: npt.NDArray[np.float16]) -> Planes:
    pairs = values.astype("<f2").view(np.uint8).reshape(-1, 2)
    return {"fp16.low": pairs[:, 0], "fp16.high": pairs[:, 1]}


def _of_halves(planes: Planes) -> npt.NDArray[np.float16]:
    pairs = np.stack([planes["fp16.low"], planes["fp16.high"]], axis=1)
    return pairs.copy().view("<f2").reshape(-1).astype(np.float16)


RAW, FLOAT32, FLOAT16, INT8 = Raw(), Float32(), Float16(), Int8()
VALUES: Mapping[int, Values] = {one.code: one for one in (RAW, FLOAT32, FLOAT16, INT8)}
PLANES = tuple(dict.fromkeys(plane for one in VALUES.values() for plane in one.lengths(0, 0, 0)))
"""All planes, in the order in which a file has them."""


def joined(parts: list[Planes]) -> dict[str, bytes]:
    """Each plane of all these tensors, one after the other."""
    found = defaultdict[str, list[Bytes]](list)
    for planes in parts:
        for name, content in planes.items():
            found[name].append(content)
    return {name: np.concatenate(contents).tobytes() for name, contents in found.items()}
