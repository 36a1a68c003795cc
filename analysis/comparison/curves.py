"""Accuracy against a reduction, within one seed: interpolated on a log2 axis, compared where two curves both run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison.columns import CHANGE, LEVEL
from analysis.comparison.statistics import Floats

# Doublings over which a family must reach to have a curve on an axis; and over which two must run together.
LEAST_MOVE = np.log2(1.02)
LEAST_COMMON = np.log2(1.05)
GRID = 201


@dataclass(frozen=True)
class Axis:
    """One way to say how much smaller a network is; its values are log2 of dense / pruned."""

    label: str
    noun: str
    reduction: Callable[[pd.DataFrame, pd.DataFrame], pd.Series]
    """(rows, the dense row of each) -> dense / pruned"""
    marks: Sequence[float]
    """reductions that a table shows"""
    tell: Callable[[float | None], str]
    """a reduction in words, or the sign of a missing one"""


def _cost(column: str, beside: str | None = None) -> Callable[[pd.DataFrame, pd.DataFrame], pd.Series]:
    """``beside`` is where a row has the dense network's value, if that was measured where its own was."""
    return lambda rows, dense: (dense[column] if beside is None else rows[beside].fillna(dense[column])) / rows[column]


def _share(factor: float | None) -> str:
    return words.MISSING if pd.isna(factor) else f"{100 * (1 - 1 / factor):.0f}%"


FACTORS = (1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)

AXES: Mapping[str, Axis] = {
    n.SPARSITY: Axis(
        "weights removed (achieved)", "share of weights removed", lambda rows, _: 1 / (1 - rows[n.SPARSITY]),
        [1 / (1 - share) for share in SHARES], _share,
    ),
    n.COMPRESSION: Axis(
        "compression of the stored file", "stored bytes", lambda rows, _: rows[n.COMPRESSION], FACTORS, words.times
    ),
    n.MACS: Axis("reduction of MACs", "MACs", _cost(n.MACS), FACTORS, words.times),
    n.LATENCY: Axis(
        "measured speed-up, batch 1", "latency at batch 1", _cost(n.LATENCY, n.LATENCY_DENSE), FACTORS, words.times
    ),
    n.LATENCY_LARGE: Axis(
        "measured speed-up, large batch", "latency at a large batch", _cost(n.LATENCY_LARGE, n.LATENCY_LARGE_DENSE),
        FACTORS, words.times,
    ),
}  # fmt: skip


class Crossing(NamedTuple):
    """Where two curves of one seed cross: between two measured reductions, and by interpolation."""

    seed: int
    low: float
    high: float
    at: float


Curve = tuple[Floats, Floats]
"""(log2 reductions, rising; accuracy changes)"""


def gains(rows: pd.DataFrame, dense: pd.DataFrame, axis: Axis) -> pd.Series:
    """log2 of each row's reduction; NaN where either side was not measured."""
    roots = dense.set_index(n.SEED).reindex(rows[n.SEED]).set_index(rows.index)
    reduction = axis.reduction(rows, roots).astype(float)
    known = reduction.where(reduction.gt(0) & np.isfinite(reduction))
    return pd.Series(np.log2(known.to_numpy()), index=rows.index)


def by_level(rows: pd.DataFrame, dense: pd.DataFrame, axis: Axis) -> dict[float, float]:
    """level -> the mean reduction of the networks of this level (geometric), where one was measured."""
    means = gains(rows, dense, axis).groupby(rows[LEVEL].astype(float)).mean().dropna()
    return dict(zip(means.index.tolist(), (2**means).tolist(), strict=True))


def curves(rows: pd.DataFrame, dense: pd.DataFrame, axis: Axis) -> dict[int, Curve]:
    """seed -> the curve of these rows on the axis; of networks that are equally small, the mean."""
    x = gains(rows, dense, axis)
    known = rows.assign(x=x)[x.notna() & rows[CHANGE].notna()]
    found = {}
    for seed, own in known.groupby(n.SEED):
        means = own.groupby(own["x"].round(9))[CHANGE].mean()
        found[int(str(seed))] = (means.index.to_numpy(dtype=float), means.to_numpy(dtype=float))
    return found


def moves(found: Mapping[int, Curve]) -> bool:
    """Whether the curves go anywhere on their axis."""
    return any(x.max() > LEAST_MOVE for x, _ in found.values())


def common_range(one: Mapping[int, Curve], other: Mapping[int, Curve]) -> tuple[float, float] | None:
    """The log2 reductions that both curves of every seed cover, or None where they do not run together."""
    pairs = [(one[seed][0], other[seed][0]) for seed in sorted(one.keys() & other.keys())]
    if not pairs:
        return None
    low = max(max(a.min(), b.min()) for a, b in pairs)
    high = min(min(a.max(), b.max()) for a, b in pairs)
    return (float(low), float(high)) if high - low >= LEAST_COMMON else None


def difference(one: Curve, other: Curve, at: Floats) -> Floats:
    """``one`` less ``other`` at these log2 reductions."""
    gap: Floats = np.interp(at, *one) - np.interp(at, *other)
    return gap


def mean_difference(one: Curve, other: Curve, low: float, high: float) -> float:
    """The mean of ``one`` less ``other`` between two log2 reductions."""
    return float(difference(one, other, np.linspace(low, high, GRID)).mean())


def crossings(seed: int, one: Curve, other: Curve) -> list[Crossing]:
    """Every crossing of the two curves where both run; each lies between two neighbouring measured reductions."""
    low, high = max(one[0].min(), other[0].min()), min(one[0].max(), other[0].max())
    knots = np.unique(np.concatenate([one[0], other[0], [low, high]]))
    knots = knots[(knots >= low) & (knots <= high)]
    gap = difference(one, other, knots)
    # Where the curves touch, the sign of the side that they come from counts.
    apart = np.flatnonzero(np.abs(gap) > 1e-12)
    found = []
    for left, right in itertools.pairwise(apart):
        if gap[left] * gap[right] < 0:
            share = gap[left] / (gap[left] - gap[right])
            at = knots[left] + share * (knots[right] - knots[left])
            found.append(Crossing(seed, *(float(2**x) for x in (knots[left], knots[right], at))))
    return found
