"""From declared contrasts to a tidy frame: a row a test, with estimate, interval, corrected p, equivalence and verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis.comparison.statistics import MIN_SEEDS, SIGNIFICANCE, estimate, holm, noise_floor
from analysis.comparison.sweep import FRESH, OF_RECIPE, ROLE, TEST, VALIDATION, Sweep
from analysis.pareto import measured
from trainables.records.contrasts import BEFORE, Contrast, where_of
from trainables.records.objectives import OBJECTIVES, gains

HIGHER, LOWER, EQUIVALENT, OPEN, FEW = "higher", "lower", "equivalent", "open", "too few seeds"
SLIGHTLY = "slightly "
"""A difference that is shown, and shown to lie within the margin."""
SLIGHTLY_OF = {word: SLIGHTLY + word for word in (HIGHER, LOWER)}
LEFT, RIGHT, MADE_OF = "left", "right", "made_of"
SIDES = (MADE_OF, f"{MADE_OF}_right")
COLUMNS = (
    "contrast", "tests", "of", "left", "right", "left_mean", "right_mean", "estimate", "low", "high", "n", "p",
    "adjusted_p", "p_equivalent", "margin", "noise_floor", "verdict", "concludes", "seeds", "roles", "split", "differs",
    "lost",
)  # fmt: skip


def compare(sweep: Sweep) -> pd.DataFrame:
    """The frame of all contrasts: those that the study declares, or those of the exercise as far as they match anything."""
    rows = [row for name, contrast in contrasts(sweep).items() for row in _tests(sweep, name, contrast)]
    return judged(pd.DataFrame(rows, columns=list(COLUMNS)))


def contrasts(sweep: Sweep) -> Mapping[str, Contrast]:
    """What is compared."""
    declared = sweep.declared.contrasts or {}
    return {name: contrast for name, contrast in declared.items() if not sweep.usual or _finds(sweep, name, contrast)}


def _finds(sweep: Sweep, name: str, contrast: Contrast) -> bool:
    try:
        return next(_tests(sweep, name, contrast), None) is not None
    except n.InputError:
        return False


def judged(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with p corrected within each family of tests, apart for what concludes, and the verdicts."""
    frame = frame.copy()
    frame["adjusted_p"], equivalent = np.nan, pd.Series(np.nan, index=frame.index)
    for _, family in frame.groupby(["tests", "concludes"], sort=False):
        frame.loc[family.index, "adjusted_p"] = holm(family["p"])
        equivalent[family.index] = holm(family["p_equivalent"])
    differs = (frame["adjusted_p"] < SIGNIFICANCE) & ~(frame["estimate"].abs() < frame["noise_floor"])
    within = equivalent < SIGNIFICANCE
    signs = pd.Series(np.where(frame["estimate"] > 0, HIGHER, LOWER), index=frame.index)
    small = signs.map(SLIGHTLY_OF).where(within, signs)
    found = small.where(differs, pd.Series(np.where(within, EQUIVALENT, OPEN), index=frame.index))
    frame["verdict"] = found.where(frame["n"] >= MIN_SEEDS, FEW)
    return frame


def _tests(sweep: Sweep, name: str, contrast: Contrast) -> Iterator[dict[str, Any]]:
    sides = {side: _side(sweep, name, contrast, side) for side in (LEFT, RIGHT)}
    after = contrast.value != BEFORE
    split = TEST if after and all(one[TEST].notna().all() for one in sides.values()) else VALIDATION
    value = split if after else BEFORE
    pairs = _pairs(sweep, contrast, sides, value)
    if pairs.empty:
        keys = ", ".join([n.SEED, *contrast.matched, *contrast.averaged])
        raise n.InputError(f"contrasts.{name}: left and right share no {keys}; match on less, or run what is missing")
    cells = [*contrast.each, *contrast.matched, *contrast.at]
    for key, cell in pairs.groupby(cells, sort=True, dropna=False) if cells else [((), pairs)]:
        of = {column: getattr(value, "item", lambda v=value: v)() for column, value in zip(cells, key, strict=True)}
        yield {
            "contrast": name, "tests": contrast.tests or name, "of": of, "split": split, "margin": sweep.margin(contrast),
            LEFT: _named(contrast.left), RIGHT: _named(contrast.right), **_estimated(sweep, contrast, cell, split),
        }  # fmt: skip


def _estimated(sweep: Sweep, contrast: Contrast, cell: pd.DataFrame, split: str) -> dict[str, Any]:
    """One test: on the seeds that may conclude if they are enough, and otherwise on all, which then conclude nothing."""
    fresh = cell[cell[ROLE].eq(FRESH)]
    concludes = fresh[n.SEED].nunique() >= MIN_SEEDS
    used, lost = _complete(fresh if concludes else cell, contrast.averaged)
    means = used.groupby(n.SEED)[[LEFT, RIGHT]].mean()
    found = estimate(means[LEFT] - means[RIGHT], sweep.step[split], sweep.margin(contrast))._asdict()
    return {
        "left_mean": means[LEFT].mean(), "right_mean": means[RIGHT].mean(), "estimate": found.pop("mean"), **found,
        "noise_floor": noise_floor(sweep.dense[split].dropna(), len(means)), "concludes": concludes,
        "seeds": sorted(int(seed) for seed in means.index), "roles": sorted(set(used[ROLE]) - {FRESH}),
        "differs": _differing(sweep, used), "lost": lost,
    }  # fmt: skip


def _complete(cell: pd.DataFrame, averaged: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """What every seed has, so that averages are of the same; and what was lost to that, in words."""
    if not averaged:
        return cell, ""
    seeds = cell.groupby(list(averaged), dropna=False)[n.SEED].transform("nunique")
    whole = cell[seeds == cell[n.SEED].nunique()]
    if whole.empty:  # seeds that have little would take everything from the others
        most = cell.groupby(n.SEED)[LEFT].size()
        kept = most.index[most == most.max()]
        return _complete(cell[cell[n.SEED].isin(kept if len(kept) < len(most) else kept[:1])], averaged)
    gone = cell[seeds < cell[n.SEED].nunique()][list(averaged)].drop_duplicates()
    return whole, "; ".join(", ".join(f"{k} {v}" for k, v in row.items()) for row in gone.to_dict("records"))


def _side(sweep: Sweep, name: str, contrast: Contrast, side: str) -> pd.DataFrame:
    told = f"contrasts.{name}.{side}"
    return sweep.where(where_of(getattr(contrast, side), sweep.declared.arms, told), told)


def _pairs(sweep: Sweep, contrast: Contrast, sides: Mapping[str, pd.DataFrame], value: str) -> pd.DataFrame:
    """A row for each seed and value of what is matched and averaged: both sides' values, means where several agree."""
    keys, found = [*contrast.matched, *contrast.averaged], []
    for side, networks in sides.items():
        rows = networks[networks[value].notna()].assign(**{MADE_OF: lambda of: of.index})
        own = [] if rows[n.FAMILY].eq(n.DENSE).all() else [*keys, *(contrast.each if side == LEFT else ())]
        if contrast.at:
            rows, own = _interpolated(sweep, rows, contrast.at, own, value), [*own, *contrast.at]
        groups = rows.groupby([n.SEED, *own], dropna=False, sort=False)
        table = groups.agg(**{side: (value, "mean"), MADE_OF: (MADE_OF, frozenset), ROLE: (ROLE, "first")})
        found.append(table.reset_index())
    on = [column for column in found[1].columns if column in (n.SEED, *keys, *contrast.at)]
    pairs = found[0].merge(found[1], on=on, suffixes=("", "_right"))
    pairs[ROLE] = pairs[ROLE].fillna(pairs[f"{ROLE}_right"]).fillna(FRESH)
    # A chain's first step may be a one-shot network: beside itself it is no evidence.
    left, right = (pairs[column].map(lambda made: frozenset(sweep.rows.loc[list(made), n.STEP_ID])) for column in SIDES)
    return pairs[left != right]


def _interpolated(
    sweep: Sweep, rows: pd.DataFrame, at: Mapping[str, Sequence[float]], keys: Sequence[str], value: str
) -> pd.DataFrame:
    """Each seed's values at equal factors, on straight lines over doublings between the networks that it has."""
    (name, factors), found = next(iter(at.items())), []
    axis = OBJECTIVES[name]
    known = measured(rows, [axis], sweep.dense)
    dense = {row[n.SEED]: row for row in _records(sweep.dense)}
    known = known.assign(x=[gains(row, dense[row[n.SEED]], [axis])[0] for row in _records(known)])
    for key, line in known.groupby([n.SEED, *keys], dropna=False, sort=False):
        means = line.groupby("x")[value].mean()
        inside = [factor for factor in factors if means.index.min() <= np.log2(factor) <= means.index.max()]
        base = dict(zip([n.SEED, *keys], key, strict=True))
        for factor in inside:
            at_it = np.interp(np.log2(factor), means.index, means)
            found += [base | {name: factor, value: at_it, MADE_OF: row, ROLE: line[ROLE].iloc[0]} for row in line.index]
    return pd.DataFrame(found, columns=[n.SEED, *keys, name, value, MADE_OF, ROLE])


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _differing(sweep: Sweep, pairs: pd.DataFrame) -> str:
    """The settings in which left and right differ, so that no reader takes one of them for the only one."""
    told: list[str] = []
    sides = [sweep.rows.loc[sorted(set().union(*pairs[column]))] for column in SIDES]
    if any(side[n.FAMILY].eq(n.DENSE).all() for side in sides):
        return ""  # from the dense network everything differs
    for column in (*OF_RECIPE, n.TOTAL_EPOCHS):
        left, right = (sorted(side[column].dropna().unique().tolist()) for side in sides)
        if left != right and left and right and column not in (n.STEPS, n.SCHEDULE):  # which CUTTING and levels tell
            told.append(f"{column} {_listed(left)} | {_listed(right)}")
    return "; ".join(told)


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(one if isinstance(one, str) else f"{one:.4g}" for one in values) or "none"


def _named(side: str | Mapping[str, Any]) -> str:
    return side if isinstance(side, str) else ", ".join(f"{column} {value}" for column, value in side.items())
