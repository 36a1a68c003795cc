"""The validation split, and what is left of the training images: drawn once, each class in the same proportion."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from trainables.records.names import InputError

Integers = npt.NDArray[np.int64]


def stratified(labels: Integers, fraction: float, seed: int) -> tuple[Integers, Integers]:
    """Sorted indices of the larger part and of the ``fraction`` split off; ValueError where that can't be done."""
    # Workers get arrays, and scikit-learn would be more than a quarter of what they import.
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    kept, held_out = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(held_out)


def drawn(count: int, strata: Integers | None, fraction: float, seed: int) -> tuple[Integers, Integers]:
    """Sorted indices of the training and of the validation images, of which no kind must be in both.

    Each of the ``strata`` is in both in the same proportion, if it is large enough.
    """
    strata = np.zeros(count, np.int64) if strata is None else strata
    _, kinds, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    fewest = math.ceil(1 / min(fraction, 1 - fraction))
    try:
        return stratified(np.where(sizes[kinds] < fewest, len(sizes), kinds), fraction, seed)
    except ValueError:  # too few of something
        pass
    try:
        return stratified(np.zeros(count, np.int64), fraction, seed)
    except ValueError:
        raise InputError(
            f"data.validation_fraction: {fraction} of {count} images leaves none to train or to validate; add images"
        ) from None


def split(labels: Integers, classes: Sequence[str], fraction: float, seed: int) -> tuple[Integers, Integers]:
    """Sorted indices of the training and of the validation images; InputError where a class can't be in both."""
    try:
        train, validation = stratified(labels, fraction, seed)
    except ValueError as error:
        raise _too_few(labels, classes, fraction) from error
    if any(len(np.unique(labels[part])) < len(classes) for part in (train, validation)):
        raise _too_few(labels, classes, fraction)
    return train, validation


def _too_few(labels: Integers, classes: Sequence[str], fraction: float) -> InputError:
    counts = np.bincount(labels, minlength=len(classes))
    rarest = int(counts.argmin())
    if counts[rarest] < 2:
        more = f", and so do {int((counts < 2).sum()) - 1} more" if (counts < 2).sum() > 1 else ""
        return InputError(
            f"data.validation_fraction: the class {classes[rarest]!r} has {counts[rarest]} image{more}, and training and "
            "validation need one each; add images of it, leave the class out, or give validation images of your own"
        )
    return InputError(
        f"data.validation_fraction: {fraction} of {len(labels)} images leaves a class "
        f"without training or validation images (the fewest, {counts[rarest]}, are of {classes[rarest]!r}); "
        "add images, or change the fraction"
    )


def limited(train: Integers, labels: Integers, classes: int, limit: int | None, seed: int) -> Integers:
    """At most ``limit`` of the training indices: one of each class, then in proportion; a larger limit only adds."""
    if limit is None or limit >= len(train):
        return train
    if limit < classes:
        raise InputError(f"data.limit: {limit} images are fewer than the {classes} classes; raise the limit")
    shuffled = np.random.default_rng(seed).permutation(train)
    turn = np.empty(len(shuffled))
    for label in range(classes):
        members = np.flatnonzero(labels[shuffled] == label)
        turn[members] = np.arange(len(members)) / len(members)
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:limit]])


def seen_twice(train: Iterable[npt.NDArray[np.generic]], validation: Iterable[npt.NDArray[np.generic]]) -> list[int]:
    """The validation images that training sees too, pixel by pixel."""
    known = {_digest(image) for image in train}
    return [i for i, image in enumerate(validation) if _digest(image) in known]


def _digest(image: npt.NDArray[np.generic]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
