"""CIFAR-10 as torchvision keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.data.cache import Decoded, Reader
from trainables.data.sets.base import DataSet, Root, Seen
from trainables.records.names import InputError
from trainables.settings import one_line

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


class Cifar10(Root, DataSet):
    """32x32 photographs of 10 classes, downloaded by torchvision."""

    name, source = "cifar10", "Krizhevsky 2009"

    def seen(self, reader: Reader) -> Seen:
        """The 50,000 training images."""
        cifar = self._read(reader.writable, train=True)
        return Seen(_part(cifar, reader), tuple(cifar.classes))

    def held_out(self, reader: Reader) -> Decoded:
        """The 10,000 test images."""
        return _part(self._read(reader.writable, train=False), reader)

    def _read(self, writable: bool, *, train: bool) -> CIFAR10:
        """As torchvision verifies and keeps it, and, where ``writable``, downloads it."""
        from torchvision.datasets import CIFAR10  # noqa: PLC0415 - a second and a half that nothing else needs

        try:
            return CIFAR10(Path(self.root).expanduser(), train=train, download=writable)
        except Exception as error:  # a download fails in many ways, and the remedy is the same
            raise not_there("CIFAR-10", self.root, error, writable=writable) from error


def _part(cifar: CIFAR10, reader: Reader) -> Decoded:
    images = np.ascontiguousarray(cifar.data.transpose(0, 3, 1, 2))
    return Decoded(reader.array(images), np.array(cifar.targets, np.int64), np.arange(len(images)))


def not_there(what: str, root: str, error: Exception, *, writable: bool) -> InputError:
    """That a data set of torchvision can't be had."""
    told, remedy = (
        ("cannot be downloaded to", "use data.dataset=folder with a copy as <root>/train/<class>/*")
        if writable
        else ("is not in", "name the folder that it is in, or may be downloaded to, with --set data.root=...")
    )
    return InputError(f"data.root: {what} {told} {root!r} ({one_line(error)}); {remedy}")
