"""The test split. Only ``search.confirm`` imports this module, and a test asserts that nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainables.data.dataset import Data, DataSettings, Integers, cifar10, digits, digits_development, digits_images
from trainables.data.folder import Pixels, cache_key, image_files, read_images
from trainables.records.names import InputError


def load(settings: DataSettings, data: Data, *, writable: bool = True) -> tuple[Pixels, Integers]:
    """Test images, uint8 [N, C, H, W] of the shape of ``data``, and their labels, indices of ``data.classes``.

    Nothing is written at a root that isn't ``writable``.
    Raises InputError when there are none, or when they differ in shape from the training images.
    """
    images, labels = {"digits": _digits, "cifar10": _cifar10, "folder": _folder}[settings.dataset](settings, data, writable)
    if images.shape[1] == 1 and data.shape[0] == 3:
        images = np.repeat(images, 3, axis=1)  # a folder whose test images all happen to be grey
    if images.shape[1:] != data.shape:
        raise InputError(
            f"data.root: the test images of {settings.root!r} are {list(images.shape[1:])} and the training images "
            f"{list(data.shape)} (channels, height, width); make them alike"
        )
    return images, labels


def _digits(settings: DataSettings, _data: Data, _writable: bool) -> tuple[Pixels, Integers]:
    labels = digits().target
    held_out = np.setdiff1d(np.arange(len(labels)), digits_development(settings.split_seed))
    return digits_images(held_out), labels[held_out].astype(np.int64)


def _cifar10(settings: DataSettings, _data: Data, writable: bool) -> tuple[Pixels, Integers]:
    cifar = cifar10(settings.root, train=False, writable=writable)
    return np.ascontiguousarray(cifar.data.transpose(0, 3, 1, 2)), np.array(cifar.targets, np.int64)


def _folder(settings: DataSettings, data: Data, writable: bool) -> tuple[Pixels, Integers]:
    root = Path(settings.root).expanduser()
    if not (root / "test").is_dir():
        raise InputError(
            f"data.root: {settings.root!r} has no folder 'test'; put held-out images at {root / 'test'}/<class>/*"
        )
    files = [image_files(root / "test" / name) for name in data.classes]
    labels = np.repeat(np.arange(len(files)), [len(some) for some in files])
    flat = [file for some in files for file in some]
    return read_images(root, cache_key(root, flat), flat, writable=writable), labels
