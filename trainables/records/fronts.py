"""Fronts, how sure they are, and hypervolumes; the mathematics is moocore's. All values are maximised, above the origin."""

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


def on_front(values: Floats, draws: int = 1000) -> Floats:
    """The probability of each member [member, seed, objective] to be on the front of the means over all seeds there are.

    By the bootstrap (Efron 1979): seeds are drawn anew, the same for all members, whose differences within a seed stay so.
    Deviations are widened by sqrt(S / (S - 1)), by which the bootstrap of a mean of S values falls short. What is NaN
    failed on that seed; a draw that has no value of a member counts it as beaten.
    """
    seeds = values.shape[1]
    chosen = np.random.default_rng(0).integers(seeds, size=(draws, seeds))
    mean, widened, times = _mean(values), np.sqrt(seeds / max(1, seeds - 1)), np.zeros(len(values))
    for which in chosen:
        drawn = mean + widened * (_mean(values[:, which]) - mean)
        known = np.flatnonzero(np.isfinite(drawn).all(axis=1))
        times[known[nondominated(drawn[known])]] += 1
    return times / draws


def _mean(values: Floats) -> Floats:
    """Over the seeds that have a value; NaN where none has."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1), np.float64)
