"""The test split. Only ``search.confirm`` imports this module, and a test asserts that nothing else does."""

from __future__ import annotations

import numpy as np

from trainables.data.cache import Decoded
from trainables.data.dataset import Data, Images, evaluated, reader_of, stored
from trainables.data.mapped import Mapped, picked
from trainables.data.settings import DataSettings, data_set
from trainables.records.names import InputError
from trainables.tasks.base import Targets


def load(settings: DataSettings, data: Data, *, writable: bool = True) -> tuple[Images | Mapped, Targets | Mapped]:
    """Test images [N, C, H, W] of the shape of ``data``, and their targets.

    Nothing is written at a root that isn't ``writable``.
    Raises InputError when there are none, or when they differ in shape from the training images.
    """
    kept = Decoded(data.train_images[:1], data.train_labels[:1], np.arange(1), mixed=data.mixed)
    found = data_set(settings).held_out(reader_of(settings, data.task, writable=writable).like(kept))
    data.task.check(found.targets, data.classes, lambda place: f"data.dataset: item {int(found.kept[place])} of test")
    images = evaluated(picked(found.images, np.arange(len(found.kept))), settings, data.resized)
    if images.shape[1:] != data.shape:
        raise InputError(
            f"data.root: the test images of {settings.root!r} are {list(images.shape[1:])} and the training images "
            f"{list(data.shape)} (channels, height, width); make them alike"
        )
    return images, stored(data.task, picked(found.targets, np.arange(len(found.kept))))
