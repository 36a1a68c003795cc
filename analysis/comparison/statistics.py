"""Means with their intervals, and many tests at once. Frames in, frames out.

The unit is a seed: values are differences within a seed (each has its own dense network), averaged within it first, so
``n`` is always a number of seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Floats = npt.NDArray[np.float64]

# Columns that are made here.
MEAN, LOW, HIGH, COUNT, P, ADJUSTED, VERDICT = "mean", "low", "high", "n", "p", "adjusted_p", "verdict"
# Verdicts on a mean difference.
HIGHER, LOWER, TIE, UNDECIDED = "higher", "lower", "tie", "undecided"

CONFIDENCE = 0.95
# With fewer seeds nothing is concluded.
MIN_SEEDS = 3


class Estimate(NamedTuple):
    """A mean with its Student t interval, the number of values, and the two-sided p of the mean being 0."""

    mean: float
    low: float
    high: float
    n: int
    p: float


def estimate(values: Sequence[float] | Floats | pd.Series) -> Estimate:
    """The mean of these values; interval and p are NaN for fewer than two of them.

    Values that are all alike leave no doubt: an interval of no width.
    """
    numbers = np.asarray(values, dtype=np.float64)
    count, mean = len(numbers), float(numbers.mean()) if len(numbers) else np.nan
    if count < 2:
        return Estimate(mean, np.nan, np.nan, count, np.nan)
    error = float(numbers.std(ddof=1)) / np.sqrt(count)
    if error < 1e-12 * max(1.0, abs(mean)):
        return Estimate(mean, mean, mean, count, 1.0 if abs(mean) < 1e-12 else 0.0)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return Estimate(mean, mean - half, mean + half, count, float(2 * stats.t.sf(abs(mean) / error, count - 1)))


def band(values: Sequence[float] | Floats | pd.Series) -> tuple[float, float]:
    """What a figure shades: the t interval, or the smallest and largest value where there are too few for one."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < MIN_SEEDS:
        return float(numbers.min()), float(numbers.max())
    found = estimate(numbers)
    return found.low, found.high


def estimates(frame: pd.DataFrame, by: Sequence[str], value: str, seed: str) -> pd.DataFrame:
    """One estimate for each group, in the order of the rows; a seed with several rows counts once, with their mean."""
    by = list(by)
    if frame.empty:
        return pd.DataFrame(columns=[*by, *Estimate._fields])
    within = frame.groupby([*by, seed], sort=False, dropna=False)[value].mean().reset_index()
    rows = [
        dict(zip(by, key, strict=True)) | estimate(group[value])._asdict()
        for key, group in within.groupby(by, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows)


def holm(p: Sequence[float] | Floats | pd.Series) -> Floats:
    """Adjusted p values that keep the chance of any false finding below the level (Holm 1979, Scand. J. Stat. 6, 65-70)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def judged(found: pd.DataFrame, family: pd.Series | None = None) -> pd.DataFrame:
    """Estimates with Holm's adjusted p over all rows together, or over those of ``family``, and the verdict of each."""
    tested = found[COUNT].ge(MIN_SEEDS) & found[P].notna() if len(found) else pd.Series(dtype=bool)
    if family is not None:
        tested &= family
    adjusted = pd.Series(np.nan, index=found.index, dtype=float)
    adjusted[tested] = holm(found.loc[tested, P].to_numpy(dtype=float))
    signs = [HIGHER if mean > 0 else LOWER for mean in found[MEAN]]
    verdicts = pd.Series(signs, index=found.index, dtype=object).where(adjusted < 1 - CONFIDENCE, TIE)
    verdicts = verdicts.where(tested, UNDECIDED)
    return found.assign(**{ADJUSTED: adjusted}).assign(**{VERDICT: verdicts})
