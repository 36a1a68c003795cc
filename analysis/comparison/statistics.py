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
STEP_SIZE = "step_size"
# Verdicts on a mean difference.
HIGHER, LOWER, TIE, UNDECIDED = "higher", "lower", "tie", "undecided"

SIGNIFICANCE = 0.05
CONFIDENCE = 1 - SIGNIFICANCE
# With fewer seeds nothing is concluded.
MIN_SEEDS = 3
# What floating point leaves of a difference that is none, and the closest that two counts of images can be.
EXACT, CLOSEST = 1e-12, 1e-7


class Estimate(NamedTuple):
    """A mean with its Student t interval, the number of values, and the two-sided p of the mean being 0."""

    mean: float
    low: float
    high: float
    n: int
    p: float


def estimate(values: Sequence[float] | Floats | pd.Series, step: float = 0.0) -> Estimate:
    """The mean of these differences of two accuracies of this ``step``; interval and p are NaN where they are unknown.

    They are unknown for fewer than two values, and for values that are all alike, unless they are 0 or the step is given.
    """
    numbers = np.asarray(values, dtype=np.float64)
    count, mean = len(numbers), float(numbers.mean()) if len(numbers) else np.nan
    if count < 2:
        return Estimate(mean, np.nan, np.nan, count, np.nan)
    # An accuracy is a count of images, known to within one step: a uniform error, of variance step² / 12, and a difference
    # has two of them. Differences that happen to be alike on a few seeds are no more certain than that.
    least = step / np.sqrt(6)
    error = max(float(numbers.std(ddof=1)), least) / np.sqrt(count)
    if error < EXACT:
        known = abs(mean) < EXACT
        edge = mean if known else np.nan
        return Estimate(mean, edge, edge, count, 1.0 if known else np.nan)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return Estimate(mean, mean - half, mean + half, count, float(2 * stats.t.sf(abs(mean) / error, count - 1)))


def band(values: Sequence[float] | Floats | pd.Series) -> tuple[float, float]:
    """What a figure shades: the t interval, or the smallest and largest value where there are too few for one."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < MIN_SEEDS:
        return float(numbers.min()), float(numbers.max())
    found = estimate(numbers)
    return (found.low, found.high) if np.isfinite(found.low) else (found.mean, found.mean)


def step_of(*accuracies: pd.Series) -> float:
    """The step of these accuracies, each a share of the same images: the smallest gap between two of them, 0 if none.

    It is one image or, where only few networks were measured, several, which errs on the side of doubt.
    """
    known = np.unique(pd.concat(accuracies).dropna().to_numpy(dtype=np.float64))
    gaps = np.diff(known)
    gaps = gaps[gaps > CLOSEST]
    return float(gaps.min()) if len(gaps) else 0.0


def estimates(frame: pd.DataFrame, by: Sequence[str], value: str, seed: str) -> pd.DataFrame:
    """One estimate for each group, in the order of the rows; a seed with several rows counts once, with their mean.

    The step of the accuracies is in the column STEP_SIZE, where the frame has one.
    """
    by, step = list(by), step_in(frame)
    if frame.empty:
        return pd.DataFrame(columns=[*by, *Estimate._fields])
    within = frame.groupby([*by, seed], sort=False, dropna=False)[value].mean().reset_index()
    rows = [
        dict(zip(by, key, strict=True)) | estimate(group[value], step)._asdict()
        for key, group in within.groupby(by, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows)


def step_in(frame: pd.DataFrame) -> float:
    """The step of the accuracies of these rows; 0 where it is not known."""
    return float(frame[STEP_SIZE].max()) if STEP_SIZE in frame and len(frame) else 0.0


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
    verdicts = pd.Series(signs, index=found.index, dtype=object).where(adjusted < SIGNIFICANCE, TIE)
    verdicts = verdicts.where(tested, UNDECIDED)
    return found.assign(**{ADJUSTED: adjusted}).assign(**{VERDICT: verdicts})
