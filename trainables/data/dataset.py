"""Data sets: what training and validation see, as plain arrays. Test images are never returned by this module.

``load`` is the algorithm: read a labelled set, split it once, describe it. The arrays are C-contiguous numpy, because
that is what Ray's object store shares between processes without a copy; of very many images, what stands for them is where
they are (``mapped``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from trainables import own
from trainables.data.cache import MIXED_SIZE, Decoded, Reader
from trainables.data.images import RANDOM_RESIZED_CROP, Size
from trainables.data.mapped import Mapped, picked
from trainables.data.preparation import middle, transformed
from trainables.data.sets.base import Seen
from trainables.data.settings import SMALLEST_STD, DataSettings, data_set
from trainables.data.split import Integers, drawn, limited, seen_twice, split
from trainables.records.names import InputError
from trainables.tasks.base import Targets, Task
from trainables.tasks.labels import Classification
from trainables.tasks.registry import of_spec, spec

Images = npt.NDArray[Any]
Moments = tuple[tuple[float, ...], tuple[float, ...]]

__all__ = ["Data", "DataSettings", "load"]

AT_ONCE = 256
"""Images that transforms of the user's own are given at once."""
TRIED = 8
"""Images on which those for training are tried before the start."""
FEW = 6


@dataclass(frozen=True, eq=False)
class Data:
    """Training and validation images, and all that training has to know of them."""

    train_images: Images | Mapped
    """uint8 or float32 [N, C, H, W], before what is done to them in training"""
    train_labels: Targets | Mapped
    """[N, ...], as the task keeps them: of a classification int64 [N], indices of ``classes``; many masks where they are"""
    validation_images: Images | Mapped
    """as the network sees them, but for their normalisation"""
    validation_labels: Targets | Mapped
    classes: tuple[str, ...]
    """what the network's outputs are called: classes, labels, or columns of numbers"""
    mean: tuple[float, ...]
    """What each channel of an image, scaled to 0..1, is normalised by: the training images' own, unless it was given.
    Of images that are floats, which aren't scaled, 0 and 1, unless it was given."""
    std: tuple[float, ...]
    crop: int
    """Pixels of zero padding around a random crop."""
    flip: bool
    """Whether a mirrored image still shows its class."""
    fingerprint: str
    """SHA-256 of everything that training and validation see: pixels, labels, class names, split, what is done to them."""
    cutout: int = 0
    """Side in pixels of the square blanked at random in a training image."""
    color: float = 0.0
    """Share by which colours change at random."""
    resized: Size | None = None
    """What a part of a training image, drawn at random, is resized to; None where no part is."""
    transforms: str | None = None
    """Transforms of the user's own, in place of all these."""
    resize: str | None = None
    """How images came to this size; None where it is their own."""
    mixed: bool = False
    """Whether images of several sizes were resized to one."""
    told: tuple[str, ...] = ()
    """What to know of the images, in words."""
    task_text: str = spec(Classification())
    """The task, in the form in which it comes to every process."""

    @property
    def task(self) -> Task:
        """What a network is trained for on these images."""
        return of_spec(self.task_text)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image that the network sees."""
        _, channels, height, width = self.validation_images.shape
        return channels, height, width

    @property
    def preparation(self) -> dict[str, Any]:
        """What is done to images, as JSON."""
        names = ("resize", "crop", "flip", "cutout", "color", "transforms")
        return {"size": list(self.shape[1:]), **{name: value for name in names if (value := getattr(self, name))}}


def reader_of(settings: DataSettings, task: Task, *, writable: bool) -> Reader:
    """How the images of a study are read."""
    return Reader(settings.size, settings.resize, settings.skip_unreadable, writable, masks=task.masks)


def load(
    settings: DataSettings, *, writable: bool = True, moments: Moments | None = None, task: Task | None = None
) -> Data:
    """The training and validation images that the settings ask for; nothing is written at a root that isn't ``writable``.

    The ``task``, a classification unless it is given, says what their targets must be. ``moments`` are (mean, std) for
    images of as many channels, in place of their own where the settings give none.

    Raises InputError when images are missing, unreadable, or too few to split.
    """
    chosen, task = data_set(settings), task or Classification()
    _check_alike(task, settings)
    seen = chosen.seen(reader_of(settings, task, writable=writable))
    seen = seen._replace(classes=task.names(seen.train.targets, seen.classes))
    for part, found in (("train", seen.train), ("validation", seen.validation)):
        if found is not None:
            task.check(found.targets, seen.classes, _Item(part, found.kept))
    train, validation = _parts(seen, settings, task)
    held_out = _validation_images(seen, validation)
    raw, resized = picked(seen.train.images, train), _resized(seen.train, settings)
    shown = evaluated(held_out[0], settings, resized)
    labels = picked(seen.train.targets, train)
    task = task.fitted(cast("Targets", labels), seen.classes)
    arrays = (raw, stored(task, labels), shown, stored(task, held_out[1]))
    _check_preparation(raw, shown.shape[1:], settings)
    if moments is not None and len(moments[0]) == shown.shape[1] and shown.dtype == np.uint8:
        update = {"mean": settings.mean or moments[0], "std": settings.std or moments[1]}
        settings = settings.model_copy(update=update)
    mean, std = _normalisation(raw if settings.transforms is None else shown, settings)
    crop, flip, cutout, color = _augmentation(settings, shown, chosen.mirrored)
    asked = {
        "cutout": cutout or None, "mean": settings.mean, "std": settings.std, "color": color or None, "resized": resized,
        "transforms": settings.transforms and own.source_hash(settings.transforms),
    }  # fmt: skip
    done = {"crop": crop, "flip": flip, **{name: value for name, value in asked.items() if value is not None}}
    return Data(
        *arrays, seen.classes, mean, std, crop, flip, _fingerprint(arrays, {"classes": seen.classes, **done}),
        cutout, color, resized, settings.transforms, _resize(seen.train, settings), seen.train.mixed,
        _told(seen, raw, *held_out, settings, task), spec(task),
    )  # fmt: skip


@dataclass(frozen=True)
class _Item:
    """What messages call the items of one part."""

    part: str
    kept: Integers

    def __call__(self, place: int) -> str:
        return f"data.dataset: item {int(self.kept[place])} of {self.part}"


def _check_alike(task: Task, settings: DataSettings) -> None:
    """InputError if something is asked for that can't be done to masks as it is done to their images."""
    if task.masks and settings.transforms is not None:
        raise InputError(
            "data.transforms: masks can't be changed with their images; use data.crop, data.flip and data.color"
        )
    if task.masks and settings.resize == RANDOM_RESIZED_CROP:
        raise InputError(f"data.resize: {settings.resize!r} can't be done to masks; use shorter_side or squash")


def _parts(seen: Seen, settings: DataSettings, task: Task) -> tuple[Integers, Integers]:
    """Indices of the training images, and of the validation images in the part that they come from."""
    labels = seen.train.targets
    if not task.of_classes:
        return _parts_of_others(seen, settings, task)
    if seen.validation is not None:
        train, validation = np.arange(len(labels)), np.arange(len(seen.validation.targets))
        if missing := np.flatnonzero(np.bincount(labels, minlength=len(seen.classes)) == 0).tolist():
            raise InputError(f"data.dataset: no training image is of class {seen.classes[missing[0]]!r}; add some")
    else:
        train, validation = split(labels, seen.classes, settings.validation_fraction, settings.split_seed)
    return limited(train, labels, len(seen.classes), settings.limit, settings.split_seed), validation


def _parts_of_others(seen: Seen, settings: DataSettings, task: Task) -> tuple[Integers, Integers]:
    count, seed = len(seen.train.targets), settings.split_seed
    if seen.validation is not None:
        train, validation = np.arange(count), np.arange(len(seen.validation.targets))
    else:
        train, validation = drawn(count, task.strata(seen.train.targets), settings.validation_fraction, seed)
    if settings.limit is not None and settings.limit < len(train):  # a larger limit only adds
        train = np.sort(np.random.default_rng(seed).permutation(train)[: settings.limit])
    return train, validation


def _validation_images(seen: Seen, validation: Integers) -> tuple[Images | Mapped, Targets | Mapped]:
    """The validation images with their labels."""
    source = seen.train if seen.validation is None else seen.validation
    return picked(source.images, validation), picked(source.targets, validation)


def stored(task: Task, targets: Targets | Mapped) -> Targets | Mapped:
    """Targets as the task keeps them; many masks where they are, if it keeps them as they are."""
    if not isinstance(targets, Mapped):
        return task.stored(targets)
    return targets if task.stored(targets[:1]).dtype == targets.dtype else task.stored(targets[:])


def _resized(train: Decoded, settings: DataSettings) -> Size | None:
    """The size that random parts of images are resized to, or None."""
    if settings.resize != RANDOM_RESIZED_CROP:
        return None
    height, width = train.images.shape[2:]
    return settings.size or (MIXED_SIZE if train.mixed else (height, width))


def _resize(train: Decoded, settings: DataSettings) -> str | None:
    changed = settings.size is not None or train.mixed or settings.resize == RANDOM_RESIZED_CROP
    return settings.resize if changed else None


def evaluated(images: Images | Mapped, settings: DataSettings, resized: Size | None) -> Images | Mapped:
    """Images [N, C, H, W] as evaluation sees them; user's transforms are the same for the same images."""
    if isinstance(images, Mapped):
        images = images if resized is None else images.middle(*resized)
    elif resized is not None:
        batch = middle(torch.from_numpy(images).permute(0, 2, 3, 1), resized)
        images = np.ascontiguousarray(batch.permute(0, 3, 1, 2).numpy())
    if settings.transforms is None:
        return images
    return _transformed(images[:], settings.transforms, training=False)


def _transformed(images: Images, name: str, *, training: bool) -> Images:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batches = torch.from_numpy(images).permute(0, 2, 3, 1).split(AT_ONCE)
        made = [transformed(batch, name, training=training).permute(0, 3, 1, 2).numpy() for batch in batches]
    if shapes := {one.shape[1:] for one in made} - {made[0].shape[1:]}:
        raise InputError(f"data.transforms: {name!r} makes {[made[0].shape[1:], *shapes][:2]} of images; make all alike")
    found = np.concatenate(made)
    return np.ascontiguousarray(found if found.dtype == np.uint8 else found.astype(np.float32))


def _check_preparation(raw: Images | Mapped, shape: tuple[int, ...], settings: DataSettings) -> None:
    """InputError if what is to be done to the images can't be."""
    if settings.transforms is not None:
        made = _transformed(raw[:TRIED], settings.transforms, training=True).shape[1:]
        if made != shape:
            raise InputError(
                f"data.transforms: {settings.transforms!r} makes {list(made)} with train=True and {list(shape)} with "
                "train=False (channels, height, width); make them alike"
            )
        return
    if settings.cutout > min(shape[1:]):
        raise InputError(
            f"data.cutout: a square of {settings.cutout} pixels is larger than the images of "
            f"{' x '.join(map(str, shape[1:]))}; use at most {min(shape[1:])}, and about a third of that to begin with"
        )
    if settings.color and (raw.dtype != np.uint8 or shape[0] not in (1, 3)):
        raise InputError(f"data.color: images of {shape[0]} channels of {raw.dtype} have no such colours; set it to 0")


def _augmentation(settings: DataSettings, shown: Images | Mapped, mirrored: bool) -> tuple[int, bool, int, float]:
    """Crop, flip, cutout and color: those asked for, and else what images of this kind are used to."""
    if settings.transforms is not None:
        return 0, False, 0, 0.0
    plain = shown.dtype == np.uint8 and settings.resize != RANDOM_RESIZED_CROP
    crop = max(1, min(shown.shape[2:]) // 8) if plain else 0
    return (
        crop if settings.crop is None else settings.crop,
        mirrored if settings.flip is None else settings.flip,
        settings.cutout,
        settings.color,
    )


def _told(
    seen: Seen,
    train: Images | Mapped,
    validation: Images | Mapped,
    labels: Targets | Mapped,
    settings: DataSettings,
    task: Task,
) -> tuple[str, ...]:
    """What a user will want to know of the images, and may not."""
    found = []
    if seen.train.mixed:
        height, width = MIXED_SIZE
        found.append(f"images of several sizes are resized to {width}x{height} pixels ({settings.resize}; see data.size)")
    left_out = [*seen.train.left_out, *(seen.validation.left_out if seen.validation else ())]
    if left_out:
        found.append(f"{len(left_out)} left out that can't be read: {', '.join(left_out)}")
    if twice := seen_twice(train, validation):
        classes = sorted({seen.classes[labels[i]] for i in twice}) if task.of_classes else []
        of = f" (of {', '.join(classes[:FEW])}{' and others' if len(classes) > FEW else ''})" if classes else ""
        found.append(
            f"{len(twice)} of {len(labels)} validation images are training images too, pixel by pixel, and flatter the "
            f"{task.quality.name}{of}"
        )
    return tuple(found)


def _normalisation(images: Images | Mapped, settings: DataSettings) -> Moments:
    """Mean and standard deviation of each channel: those asked for, and else those of the images; of floats 0 and 1."""
    channels = images.shape[1]
    for name, given in (("mean", settings.mean), ("std", settings.std)):
        if given is not None and len(given) != channels:
            raise InputError(f"data.{name}: {len(given)} values for images of {channels} channels; give one for each")
    if settings.mean is not None and settings.std is not None:
        return settings.mean, settings.std
    mean, std = _moments(images) if images.dtype == np.uint8 else ((0.0,) * channels, (1.0,) * channels)
    return settings.mean or mean, settings.std or std


def _moments(images: Images | Mapped) -> Moments:
    """Mean and standard deviation of each channel, scaled to 0..1: from exact counts, so the same on every machine."""
    levels = np.arange(256) / 255
    share = _histograms(images) / (math.prod(images.shape) / images.shape[1])
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.maximum(std, SMALLEST_STD).tolist())


def _histograms(images: Images | Mapped, values: int = 2**22) -> Integers:
    """How often each grey level occurs in each channel; of so many values at a time, because bincount widens them."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    for some in _chunks(images, values):
        counts += np.stack([np.bincount(some[:, channel].ravel(), minlength=256) for channel in range(some.shape[1])])
    return counts


def _chunks(array: Images | Mapped, values: int) -> Iterator[npt.NDArray[Any]]:
    """The array, about so many values at a time."""
    each = max(1, values // max(1, math.prod(array.shape[1:])))
    return (array[start : start + each] for start in range(0, len(array), each))


def _fingerprint(arrays: Sequence[npt.NDArray[Any] | Mapped], rest: Mapping[str, Any]) -> str:
    shapes = [(array.dtype.str, array.shape) for array in arrays]
    digest = hashlib.sha256(json.dumps([shapes, rest], sort_keys=True).encode())
    for array in arrays:
        for some in _chunks(array, 2**26):
            digest.update(np.ascontiguousarray(some).data)
    return digest.hexdigest()
