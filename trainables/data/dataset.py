"""Data sets: what training and validation see, as plain uint8 arrays. Test images are never returned by this module.

``load`` is the algorithm: read a labelled set, split it once, describe it. The arrays are C-contiguous numpy, because
that is what Ray's object store shares between processes without a copy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from trainables.data.folder import Pixels, cache_key, class_names, image_files, read_images
from trainables.records.names import InputError
from trainables.settings import Settings, one_line, one_of

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

Integers = npt.NDArray[np.int64]
Moments = tuple[tuple[float, ...], tuple[float, ...]]

DIGITS_TEST_FRACTION = 0.2

# A standard deviation below one grey level is no scale to divide by: a constant channel would become infinite.
SMALLEST_STD = 1 / 255


class DataSettings(Settings):
    """Which images train and validate a network, and how they are split."""

    dataset: Annotated[str, AfterValidator(one_of(lambda: DATASETS))] = Field(
        "digits", description="digits (8x8, comes with scikit-learn) | cifar10 (downloaded) | folder (train/<class>/*)"
    )
    root: str = Field("data", description="folder of the images; cifar10 is downloaded into it")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the training images kept for validation")
    limit: int | None = Field(None, ge=1, description="train on at most so many images, drawn alike from every class")
    cutout: int = Field(
        0, ge=0, description="pixels: side of the square that is blanked in every training image; 0 blanks none"
    )
    split_seed: int = Field(0, ge=0, lt=2**32, description="seed of the split and of the images that limit keeps")
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(
        None,
        description="of each channel, of images scaled to 0..1, as the given weights were trained with; null: those of "
        "model.weights, or else the images' own",
    )
    std: tuple[Annotated[float, Field(ge=SMALLEST_STD, le=1)], ...] | None = Field(
        None, description="standard deviation of each channel, in the same way"
    )


@dataclass(frozen=True, eq=False)
class Data:
    """Training and validation images, and all that training has to know of them."""

    train_images: Pixels
    """uint8 [N, C, H, W]"""
    train_labels: Integers
    """int64 [N], indices of ``classes``"""
    validation_images: Pixels
    validation_labels: Integers
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """What each channel of an image, scaled to 0..1, is normalised by: the training images' own, unless it was given."""
    std: tuple[float, ...]
    crop: int
    """Pixels of zero padding around a random crop."""
    flip: bool
    """Whether a mirrored image still shows its class."""
    fingerprint: str
    """SHA-256 of everything that training and validation see: pixels, labels, class names, split, what is done to them."""
    cutout: int = 0
    """Side in pixels of the square blanked at random in a training image."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width


class Labelled(NamedTuple):
    """A labelled set before the validation split: uint8 [N, C, H, W], int64 [N], and the names of the labels."""

    images: Pixels
    labels: Integers
    classes: tuple[str, ...]
    flip: bool


def load(settings: DataSettings, *, writable: bool = True, moments: Moments | None = None) -> Data:
    """The training and validation images that the settings ask for; nothing is written at a root that isn't ``writable``.

    ``moments`` are (mean, std) for images of as many channels, in place of their own where the settings give none.

    Raises InputError when images are missing, unreadable, of several sizes, or too few to split.
    """
    found = DATASETS[settings.dataset](settings, writable)
    if moments is not None and len(moments[0]) == found.images.shape[1]:
        update = {"mean": settings.mean or moments[0], "std": settings.std or moments[1]}
        settings = settings.model_copy(update=update)
    _check_cutout(settings.cutout, found.images.shape[2:])
    train, validation = _split(found, settings)
    train = _limit(train, found, settings)
    arrays = (found.images[train], found.labels[train], found.images[validation], found.labels[validation])
    mean, std = _normalisation(arrays[0], settings)
    crop = max(1, min(found.images.shape[2:]) // 8)
    asked = {"cutout": settings.cutout or None, "mean": settings.mean, "std": settings.std}
    seen = {"crop": crop, "flip": found.flip, **{name: value for name, value in asked.items() if value is not None}}
    fingerprint = _fingerprint(arrays, {"classes": found.classes, **seen})
    return Data(*arrays, found.classes, mean, std, crop, found.flip, fingerprint, settings.cutout)


def digits() -> Any:
    """scikit-learn's digits: ``images`` [1797, 8, 8] of grey levels 0 to 16, ``target`` and ``target_names``."""
    # Workers get arrays, and scikit-learn would be more than a quarter of what they import.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    return load_digits()


def digits_development(split_seed: int) -> Integers:
    """Indices of the digits that may be seen before the end; their complement is the held-out test part."""
    labels = digits().target
    return _stratified(labels, DIGITS_TEST_FRACTION, split_seed)[0]


def digits_images(indices: Integers) -> Pixels:
    """These of scikit-learn's digits as uint8 [N, 1, 8, 8]; their grey levels go from 0 to 16."""
    grey: Pixels = np.rint(digits().images[indices, None] * (255 / 16)).astype(np.uint8)
    return grey


def _digits(settings: DataSettings, _writable: bool) -> Labelled:
    """The 8x8 digits of scikit-learn without their test part. A mirrored digit is no digit."""
    found = digits()
    kept = digits_development(settings.split_seed)
    return Labelled(
        digits_images(kept), found.target[kept].astype(np.int64), tuple(map(str, found.target_names)), flip=False
    )


def _cifar10(settings: DataSettings, writable: bool) -> Labelled:
    """The 50,000 training images of CIFAR-10."""
    cifar = cifar10(settings.root, train=True, writable=writable)
    images = np.ascontiguousarray(cifar.data.transpose(0, 3, 1, 2))
    return Labelled(images, np.array(cifar.targets, np.int64), tuple(cifar.classes), flip=True)


def cifar10(root: str, *, train: bool, writable: bool) -> CIFAR10:
    """CIFAR-10 as torchvision verifies and keeps it, and, where ``writable``, downloads it."""
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 - a second and a half that nothing else needs

    try:
        return CIFAR10(Path(root).expanduser(), train=train, download=writable)
    except Exception as error:  # a download fails in many ways, and the remedy is the same
        told, remedy = (
            ("cannot be downloaded to", "use data.dataset=folder with a copy as <root>/train/<class>/*")
            if writable
            else ("is not in", "name the folder that it is in, or may be downloaded to, with --set data.root=...")
        )
        raise InputError(f"data.root: CIFAR-10 {told} {root!r} ({one_line(error)}); {remedy}") from error


def _folder(settings: DataSettings, writable: bool) -> Labelled:
    """Images in root/train/<class>/; of root/test only the names of its class folders are looked at."""
    root = Path(settings.root).expanduser()
    try:
        classes = class_names(root)
        files = [image_files(root / "train" / name) for name in classes]
        key = cache_key(root, [file for some in files for file in some])
    except OSError as error:
        raise InputError(f"data.root: {settings.root!r} cannot be read ({one_line(error)}); check the folder") from error
    labels = np.repeat(np.arange(len(classes)), [len(some) for some in files])
    used = _used(len(labels), settings)
    images = read_images(root, key, [file for some in files for file in some], writable=writable, used=used)
    return Labelled(images, labels, classes, flip=True)


DATASETS: Mapping[str, Callable[[DataSettings, bool], Labelled]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "folder": _folder,
}


def _split(found: Labelled, settings: DataSettings) -> tuple[Integers, Integers]:
    """Sorted indices of the training and of the validation images, in each the classes in the same proportion."""
    try:
        train, validation = _stratified(found.labels, settings.validation_fraction, settings.split_seed)
    except ValueError as error:
        raise _too_few(found, settings) from error
    if any(len(np.unique(found.labels[part])) < len(found.classes) for part in (train, validation)):
        raise _too_few(found, settings)
    return train, validation


def _stratified(labels: Integers, fraction: float, seed: int) -> tuple[Integers, Integers]:
    """Sorted indices of the larger part and of the ``fraction`` split off; ValueError where that can't be done."""
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - as above

    kept, held_out = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(held_out)


def _check_cutout(side: int, image: tuple[int, ...]) -> None:
    if side > min(image):
        raise InputError(
            f"data.cutout: a square of {side} pixels is larger than the images of {' x '.join(map(str, image))}; "
            f"use at most {min(image)}, and about a third of that to begin with"
        )


def _too_few(found: Labelled, settings: DataSettings) -> InputError:
    counts = np.bincount(found.labels, minlength=len(found.classes))
    rarest = int(counts.argmin())
    return InputError(
        f"data.validation_fraction: {settings.validation_fraction} of {len(found.labels)} images leaves a class "
        f"without training or validation images (the fewest, {counts[rarest]}, are of {found.classes[rarest]!r}); "
        "add images, or change the fraction"
    )


def _limit(train: Integers, found: Labelled, settings: DataSettings) -> Integers:
    """At most ``limit`` of the training indices: one of each class, then in proportion; a larger limit only adds."""
    if settings.limit is None or settings.limit >= len(train):
        return train
    if settings.limit < len(found.classes):
        raise InputError(
            f"data.limit: {settings.limit} images are fewer than the {len(found.classes)} classes; raise the limit"
        )
    shuffled = np.random.default_rng(settings.split_seed).permutation(train)
    turn = np.empty(len(shuffled))
    for label in range(len(found.classes)):
        members = np.flatnonzero(found.labels[shuffled] == label)
        turn[members] = np.arange(len(members)) / len(members)
    return np.sort(shuffled[np.argsort(turn, kind="stable")[: settings.limit]])


def _used(count: int, settings: DataSettings) -> int:
    """How many of so many images train or validate."""
    validation = math.ceil(count * settings.validation_fraction)
    return min(count - validation, settings.limit or count) + validation


def _normalisation(images: Pixels, settings: DataSettings) -> Moments:
    """Mean and standard deviation of each channel: those asked for, and else those of the images."""
    channels = images.shape[1]
    for name, given in (("mean", settings.mean), ("std", settings.std)):
        if given is not None and len(given) != channels:
            raise InputError(f"data.{name}: {len(given)} values for images of {channels} channels; give one for each")
    if settings.mean is not None and settings.std is not None:
        return settings.mean, settings.std
    mean, std = _moments(images)
    return settings.mean or mean, settings.std or std


def _moments(images: Pixels) -> Moments:
    """Mean and standard deviation of each channel, scaled to 0..1: from exact counts, so the same on every machine."""
    levels = np.arange(256) / 255
    share = np.stack([_histogram(images[:, channel]) for channel in range(images.shape[1])]) / images[:, 0].size
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.maximum(std, SMALLEST_STD).tolist())


def _histogram(images: Pixels, pixels: int = 2**22) -> Integers:
    """How often each grey level occurs; so many pixels at a time, because bincount widens them eightfold."""
    counts = np.zeros(256, np.int64)
    chunk = max(1, pixels // images[0].size)
    for start in range(0, len(images), chunk):
        counts += np.bincount(images[start : start + chunk].ravel(), minlength=256)
    return counts


def _fingerprint(arrays: Sequence[npt.NDArray[Any]], rest: Mapping[str, Any]) -> str:
    shapes = [(array.dtype.str, array.shape) for array in arrays]
    digest = hashlib.sha256(json.dumps([shapes, rest], sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
