"""The digits that come with scikit-learn."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from trainables.data.cache import Decoded, Reader
from trainables.data.images import Pixels
from trainables.data.sets.base import DataSet, Drawn, Seen
from trainables.data.split import Integers, stratified

TEST_FRACTION = 0.2


class Digits(Drawn, DataSet):
    """8x8, 1,797 of them; they come with scikit-learn."""

    name = "digits"
    mirrored: ClassVar[bool] = False

    def seen(self, reader: Reader) -> Seen:
        """All but their test part."""
        return Seen(self._part(digits_development(self.split_seed), reader), tuple(map(str, digits().target_names)))

    def held_out(self, reader: Reader) -> Decoded:
        """A fifth of them."""
        every = np.arange(len(digits().target))
        return self._part(np.setdiff1d(every, digits_development(self.split_seed)), reader)

    def _part(self, which: Integers, reader: Reader) -> Decoded:
        return Decoded(reader.array(digits_images(which)), digits().target[which].astype(np.int64), which)


def digits() -> Any:
    """scikit-learn's digits: ``images`` [1797, 8, 8] of grey levels 0 to 16, ``target`` and ``target_names``."""
    # Workers get arrays, and scikit-learn would be more than a quarter of what they import.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    return load_digits()


def digits_development(split_seed: int) -> Integers:
    """Indices of the digits that may be seen before the end; their complement is the held-out test part."""
    return stratified(digits().target, TEST_FRACTION, split_seed)[0]


def digits_images(indices: Integers) -> Pixels:
    """These of scikit-learn's digits as uint8 [N, 1, 8, 8]; their grey levels go from 0 to 16."""
    grey: Pixels = np.rint(digits().images[indices, None] * (255 / 16)).astype(np.uint8)
    return grey
