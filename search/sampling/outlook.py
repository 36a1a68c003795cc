"""What a study's points say of the steps that a trial still has ahead: whether one of them can reach the front.

Of a step ahead its target is known. What it will reduce is foreseen from the points seen, and never as less than the target
allows in principle: the first cuts of a chain can say little, where channels go by the dozen or a mask costs as much as it
saves. Its accuracy is not foreseen, but cutting more seldom makes a network better. So a trial is hopeless when a network
as accurate as its present one, with every step's reductions, would be beaten each time, by more than the noise of
validation accuracy: with n validation images an accuracy a has a standard error of sqrt(a(1 - a)/n).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from trainables.records.fronts import Floats, nondominated
from trainables.records.objectives import Objective, objectives_of

Kind = tuple[str, ...]
"""Family, scope and stored form: the family first."""

ERRORS = 2.0
"""Standard errors of the difference of two accuracies by which the front must beat what is ahead."""


def all_beaten(ahead: Floats, front: Floats, margins: Floats) -> bool:
    """Whether each step ahead [step, objective] is beaten by a point of the front less its margin [point, objective].

    All values are to be maximised.
    """
    weakened = front - margins
    return all(bool((weakened >= step).all(axis=1).any()) for step in ahead)


def halvings(sparsity: float) -> float:
    """How often what remains was halved."""
    return -math.log2(1 - sparsity)


class Outlook:
    """Points of one study as gains above its reference, a front, and the most that each kind of cut can be seen to reduce.

    ``images`` are those that an accuracy was measured on; of a measure whose error they don't tell it is ``noise``.
    A point's kind (family, scope, stored form) says which points its reductions are like.
    """

    def __init__(
        self, objectives: Iterable[str | Objective], images: int, errors: float = ERRORS, noise: float | None = None
    ) -> None:
        self._objectives = objectives_of(objectives)
        quality = [i for i, one in enumerate(self._objectives) if one.quality]
        foreseen = all(one.quality or one.halved is not None for one in self._objectives)
        self._quality = quality[0] if quality and foreseen else None
        self._images, self._errors, self._constant = images, errors, noise
        self._front: Floats = np.empty((0, len(self._objectives)))
        self._rates: dict[Kind, Floats] = {}

    def add(self, kind: Kind, sparsity: float, gains: Sequence[float]) -> None:
        """Take a point in: the sparsity that was asked for, and its gains above the reference."""
        point = np.array(gains, np.float64)
        rates = point / halvings(sparsity)
        self._rates[kind] = np.maximum(self._rates[kind] if kind in self._rates else self._in_principle(kind), rates)
        values = np.vstack([self._front, point])
        self._front = values[nondominated(values)]

    def hopeless(self, kind: Kind, gains: Sequence[float], sparsities: Sequence[float], reference: Sequence[float]) -> bool:
        """Whether no step ahead, of these sparsities, can be expected to reach the front.

        ``gains`` are those of the present step, which was taken in, above the ``reference``.
        """
        if self._quality is None or not sparsities:
            return False
        ahead = np.outer([halvings(sparsity) for sparsity in sparsities], self._rates[kind])
        ahead[:, self._quality] = gains[self._quality]
        origin = reference[self._quality]
        # What lies below the reference is worth nothing, whatever it reduces.
        worthless = np.full((1, ahead.shape[1]), np.inf)
        worthless[0, self._quality] = 0.0
        front = np.vstack([self._front, worthless])
        margins = np.zeros_like(front)
        margins[:, self._quality] = self._errors * np.sqrt(
            self._noise(gains[self._quality] + origin) ** 2
            + np.array([self._noise(value + origin) for value in front[:, self._quality]]) ** 2
        )
        return all_beaten(ahead, front, margins)

    def _in_principle(self, kind: Kind) -> Floats:
        """Gains for each halving of what remains; of objectives that this kind does not serve, none."""
        return np.array([(one.halved or {}).get(kind[0], 0.0) for one in self._objectives])

    def _noise(self, quality: float) -> float:
        """Standard error of what pruning costs, measured on the validation images."""
        assert self._quality is not None
        if self._constant is not None:
            return self._constant
        return self._objectives[self._quality].noise(quality, self._images)
