"""Means with their intervals, many tests at once, and equivalence. The unit is a seed, so ``n`` is a number of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Floats = npt.NDArray[np.float64]

SIGNIFICANCE = 0.05
MIN_SEEDS = 3
"""With fewer nothing is concluded."""
# What floating point leaves of a difference that is none, and the closest that two counts of images can be.
EXACT, CLOSEST = 1e-12, 1e-7


class Estimate(NamedTuple):
    """A mean with its Student t interval, the number of values, and the p of two tests."""

    mean: float
    low: float
    high: float
    n: int
    p: float
    """two-sided, of the mean being 0"""
    p_equivalent: float
    """of its lying outside the margin: the larger p of two one-sided tests (Schuirmann 1987)"""


def estimate(values: Sequence[float] | Floats | pd.Series, step: float = 0.0, margin: float = np.inf) -> Estimate:
    """The mean of these differences of two accuracies of this ``step``; interval and p are NaN where they are unknown.

    They are unknown for fewer than two values, and for values that are all alike, unless the step is given.
    """
    numbers = np.asarray(values, dtype=np.float64)
    count, mean = len(numbers), float(numbers.mean()) if len(numbers) else np.nan
    # An accuracy is a count of images, known to within one step: a uniform error, of variance step² / 12, and a difference
    # has two of them. Differences that happen to be alike on a few seeds are no more certain than that.
    deviation = max(float(numbers.std(ddof=1)), step / np.sqrt(6)) if count > 1 else np.nan
    if not deviation > EXACT:
        return Estimate(mean, np.nan, np.nan, count, np.nan, np.nan)
    error, law = deviation / np.sqrt(count), stats.t(count - 1)
    half = float(law.ppf(1 - SIGNIFICANCE / 2)) * error
    return Estimate(
        mean, mean - half, mean + half, count, float(2 * law.sf(abs(mean) / error)),
        float(law.sf((margin - abs(mean)) / error)),
    )  # fmt: skip


def step_of(*accuracies: pd.Series) -> float:
    """The step of these accuracies, each a share of the same images: the smallest gap between two of them, 0 if none.

    It is one image or, where only few networks were measured, several, which errs on the side of doubt.
    """
    known = np.unique(pd.concat(accuracies).dropna().to_numpy(dtype=np.float64))
    gaps = np.diff(known)
    gaps = gaps[gaps > CLOSEST]
    return float(gaps.min()) if len(gaps) else 0.0


def noise_floor(replicates: pd.Series, count: int) -> float:
    """What two means of ``count`` replicates each can differ by, at 95 %; NaN where fewer than two were measured."""
    if len(replicates) < 2 or not count:
        return np.nan
    return float(stats.t.ppf(1 - SIGNIFICANCE / 2, len(replicates) - 1) * replicates.std(ddof=1) * np.sqrt(2 / count))


def holm(p: Sequence[float] | Floats | pd.Series) -> Floats:
    """Adjusted p values that keep the chance of any false finding below the level (Holm 1979); NaN is no test."""
    values = np.asarray(p, dtype=np.float64)
    adjusted, tested = np.full_like(values, np.nan), np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * (len(order) - np.arange(len(order)))))
    return adjusted
