"""What a study's points say of the steps that a trial still has ahead: whether one of them can reach the front.

Of a step ahead its target is known. What it will reduce is foreseen from the points seen, and never as less than the target
allows in principle: the first cuts of a chain can say little, where channels go by the dozen or a mask costs as much as it
saves. Its accuracy is not foreseen, but cutting more seldom makes a network better. So a trial is hopeless when a network
as accurate as its present one, with every step's reductions, would be beaten each time, by more than the noise of
validation accuracy: with n validation images an accuracy a has a standard error of sqrt(a(1 - a)/n).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import moocore
import numpy as np
import numpy.typing as npt

from trainables.records import names as n

Floats = npt.NDArray[np.float64]
Kind = tuple[str, str]
"""Family and scope."""

ERRORS = 2.0
"""Standard errors of the difference of two accuracies by which the front must beat what is ahead."""


IN_PRINCIPLE: Mapping[str, Mapping[str, float]] = {
    n.UNSTRUCTURED: {"compression": 1.0, "params": 1.0},
    n.STRUCTURED: {"compression": 2.0, "params": 2.0, "macs": 2.0, "latency": 2.0},
}
"""How often an objective is halved, at best, when what is asked to remain is: of weights the file that holds them (masked,
they don't spare a dense runtime anything); of channels, which a layer has on both its sides, their products."""


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

    ``images`` are those that an accuracy was measured on. A point's kind (family and scope) says which points its
    reductions are like.
    """

    def __init__(self, objectives: Sequence[str], images: int, errors: float = ERRORS) -> None:
        self._accuracy = objectives.index(n.ACCURACY) if n.ACCURACY in objectives else None
        self._images, self._errors = images, errors
        self._front: Floats = np.empty((0, len(objectives)))
        self._rates: dict[Kind, Floats] = {}
        self._objectives = tuple(objectives)

    def add(self, kind: Kind, sparsity: float, gains: Sequence[float]) -> None:
        """Take a point in: the sparsity that was asked for, and its gains above the reference."""
        point = np.array(gains, np.float64)
        rates = point / halvings(sparsity)
        self._rates[kind] = np.maximum(self._rates[kind] if kind in self._rates else self._in_principle(kind), rates)
        values = np.vstack([self._front, point])
        self._front = values[moocore.is_nondominated(values, maximise=True)]

    def hopeless(self, kind: Kind, gains: Sequence[float], sparsities: Sequence[float], reference: Sequence[float]) -> bool:
        """Whether no step ahead, of these sparsities, can be expected to reach the front.

        ``gains`` are those of the present step, which was taken in, above the ``reference``.
        """
        if self._accuracy is None or not sparsities:
            return False
        ahead = np.outer([halvings(sparsity) for sparsity in sparsities], self._rates[kind])
        ahead[:, self._accuracy] = gains[self._accuracy]
        origin = reference[self._accuracy]
        # What lies below the reference is worth nothing, whatever it reduces.
        worthless = np.full((1, ahead.shape[1]), np.inf)
        worthless[0, self._accuracy] = 0.0
        front = np.vstack([self._front, worthless])
        margins = np.zeros_like(front)
        margins[:, self._accuracy] = self._errors * np.sqrt(
            self._variance(gains[self._accuracy] + origin) + self._variance(front[:, self._accuracy] + origin)
        )
        return all_beaten(ahead, front, margins)

    def _in_principle(self, kind: Kind) -> Floats:
        """Gains for each halving of what remains; of objectives that this kind does not serve, none."""
        return np.array([IN_PRINCIPLE[kind[0]].get(name, 0.0) for name in self._objectives])

    def _variance(self, accuracy: Floats | float) -> Floats:
        """Of an accuracy measured on the validation images."""
        share = np.clip(accuracy, 0.5 / self._images, 1 - 0.5 / self._images)
        return np.asarray(share * (1 - share) / self._images)
