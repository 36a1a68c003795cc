"""Fronts and hypervolumes; the mathematics is moocore's. All values are to be maximised, above the origin."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def nondominated(values: npt.ArrayLike, *, equals: bool = False) -> Flags:
    """Which points [point, objective] no other beats on every objective; of equal ones the first, or all (``equals``)."""
    return np.asarray(moocore.is_nondominated(np.asarray(values, np.float64), maximise=True, keep_weakly=equals), bool)


def volume(values: npt.ArrayLike) -> float:
    """What points [point, objective] dominate beyond the origin; those that miss it on an objective add nothing."""
    points = np.asarray(values, np.float64)
    if not points.size or not (inside := (points > 0).all(axis=1)).any():
        return 0.0
    return float(moocore.hypervolume(points[inside], ref=np.zeros(points.shape[1]), maximise=True))


def best_of(values: npt.ArrayLike, origin: npt.ArrayLike) -> int:
    """Which of some points [point, objective] dominates most beyond the origin, or where none does is least below it."""
    above = np.asarray(values, np.float64) - np.asarray(origin, np.float64)
    worth = list(zip(above.clip(min=0).prod(axis=1).tolist(), above.sum(axis=1).tolist(), strict=True))
    return worth.index(max(worth))


def contributions(values: Floats) -> Floats:
    """Hypervolume beyond the origin that is lost without each of these nondominated points."""
    return np.asarray(moocore.hv_contributions(values, ref=np.zeros(values.shape[1]), maximise=True), np.float64)
