"""Question 3, first stage: every importance with every pruner, on the seeds that choose, by validation accuracy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison import sentences as say
from analysis.comparison.columns import (
    BASE,
    CHANGE_BEFORE,
    CONTROL,
    LABEL,
    LEVEL,
    RECIPE,
    VALIDATION_CHANGE,
    is_control,
)
from analysis.comparison.questions.ranking import balanced, equal_budget, lost, ranked
from analysis.comparison.sentences import Table
from analysis.comparison.statistics import (
    COUNT,
    HIGH,
    HIGHER,
    LOW,
    MEAN,
    MIN_SEEDS,
    TIE,
    VERDICT,
    Estimate,
    estimate,
    estimates,
    judged,
    step_in,
)
from analysis.comparison.sweep import Sweep, structured

ONE, OTHER = "one", "other"
AFTER = "_retrained"


@dataclass(frozen=True, eq=False)
class Selection:
    """The recipes of equal budget that ran on the same seeds and levels, best first."""

    rows: pd.DataFrame
    scores: pd.DataFrame
    """one estimate a recipe: the mean change of validation accuracy over levels"""
    by_level: pd.DataFrame
    order: list[str]
    """the recipes, best first, without the control"""
    other_budget: list[str]
    incomplete: list[str]
    lost: str
    """levels and seeds that not every recipe here has"""


def select(sweep: Sweep) -> Selection | None:
    """The selection stage, or None where there is nothing to select from."""
    rows, other_budget = equal_budget(sweep.selection(structured(sweep.rows)))
    everything = rows[~is_control(rows)]
    rows, incomplete = balanced(rows)
    order = ranked(rows)
    if not order:
        return None
    keys = [RECIPE, LABEL, n.IMPORTANCE, n.PRUNER]
    scores = estimates(rows, keys, VALIDATION_CHANGE, n.SEED).sort_values(MEAN, ascending=False, kind="stable")
    by_level = estimates(rows, [*keys, LEVEL], VALIDATION_CHANGE, n.SEED)
    return Selection(rows, scores.reset_index(drop=True), by_level, order, other_budget, incomplete, lost(everything, rows))


def marginal(selection: Selection, factor: str, other: str) -> pd.DataFrame:
    """The best value of ``factor`` less each other value, averaged over levels and the values of ``other`` that all share.

    Which is the best is seen on the same seeds, so the verdicts are corrected for all pairs of values, not for these alone.
    """
    rows = selection.rows[~is_control(selection.rows)]
    counts = rows.groupby(other)[factor].nunique()
    shared = rows[rows[other].isin(counts.index[counts == rows[factor].nunique()])]
    means = shared.pivot_table(index=n.SEED, columns=factor, values=VALIDATION_CHANGE, aggfunc="mean")
    if means.shape[1] < 2:
        return pd.DataFrame()
    order = means.mean().sort_values(ascending=False, kind="stable").index
    pairs = [
        {ONE: better, OTHER: worse} | estimate(means[better] - means[worse], step_in(rows))._asdict()
        for better, worse in itertools.combinations(order, 2)
    ]
    found = judged(pd.DataFrame(pairs, columns=[ONE, OTHER, *Estimate._fields]))
    best: pd.DataFrame = found[found[ONE] == order[0]]
    return best.reset_index(drop=True)


def selection_sentence(selection: Selection) -> str:
    """What selection puts first, and by how little."""
    first = selection.scores[selection.scores[RECIPE] == selection.order[0]].iloc[0].to_dict()
    count = len(selection.order)
    place = f"first of {count} recipes" if count > 1 else "the only recipe that is complete"
    told = (
        f"On the {_choosing(selection)} {first[LABEL]} is {place}: its mean change of validation accuracy over "
        f"{say.levels(selection.rows[LEVEL])} of the channels is {say.evidence(first)}"
    )
    if len(selection.order) < 2:
        return f"{told}."
    second = selection.scores[selection.scores[RECIPE] == selection.order[1]].iloc[0].to_dict()
    return f"{told}; {second[LABEL]} follows {say.size(first[MEAN] - second[MEAN])} behind."


def _choosing(selection: Selection) -> str:
    seeds = sorted(set(selection.rows[n.SEED]))
    return f"{'seed that chooses' if len(seeds) == 1 else 'seeds that choose'} ({say.seeds(seeds)})"


def marginal_sentence(found: pd.DataFrame, what: str, others: str) -> str:
    """Which value is best in the mean over all others, and whether the next one is a tie."""
    if found.empty:
        return ""
    best, tied = found.iloc[0][ONE], found[found[VERDICT] == TIE]
    head = f"By validation accuracy on those seeds, averaged over the {others} that all of them share,"
    if found[COUNT].max() < MIN_SEEDS:
        return f"{head} {best} is the first {what}, but {say.too_few(found[COUNT].max())}."
    nearest = found.sort_values(MEAN).iloc[0].to_dict()
    if tied.empty:
        return f"{head} {best} is the best {what}; {best} less the next, {nearest[OTHER]}, is {say.evidence(nearest)}."
    names = say.joined([best, *tied[OTHER]])
    beaten = found.loc[found[VERDICT] == HIGHER, OTHER]
    told = f"{head} the {what}s {names} are a tie: {best} less {nearest[OTHER]} is {say.evidence(nearest)}"
    return f"{told}. Behind: {say.joined(beaten)}." if len(beaten) else f"{told}."


def first_cut(selection: Selection) -> pd.DataFrame:
    """What each importance loses by the lowest level's cut alone, of the same dense networks and not yet retrained."""
    rows = selection.rows[selection.rows[n.PRUNER].eq(BASE) & selection.rows[CHANGE_BEFORE].notna()]
    lowest = rows[rows[LEVEL] == rows[LEVEL].min()]
    if lowest[n.IMPORTANCE].nunique() < 2:
        return pd.DataFrame()
    columns = {
        column: estimates(lowest, [n.IMPORTANCE, LEVEL], column, n.SEED) for column in (CHANGE_BEFORE, VALIDATION_CHANGE)
    }
    found = columns[CHANGE_BEFORE].merge(columns[VALIDATION_CHANGE], on=[n.IMPORTANCE, LEVEL], suffixes=("", AFTER))
    return found.sort_values(MEAN, ascending=False, kind="stable").reset_index(drop=True)


def first_cut_sentence(found: pd.DataFrame) -> str:
    """How far the importances are apart before retraining, and after it."""
    if found.empty:
        return ""
    first, last = found.iloc[0].to_dict(), found.iloc[-1].to_dict()
    before, after = first[MEAN] - last[MEAN], found[f"{MEAN}{AFTER}"].max() - found[f"{MEAN}{AFTER}"].min()
    # Each interval is of its line alone, so those that lie apart show no order either.
    doubt = ", and their intervals overlap" if first[LOW] <= last[HIGH] else ""
    told = say.joined(f"{row[n.IMPORTANCE]} changes accuracy by {say.points(row[MEAN])}" for row in (first, last))
    return (
        f"The means of the importances at {say.level(first[LEVEL])} of the channels (validation): before any retraining "
        f"{told}, {say.size(before)} apart{doubt}; retrained, all {len(found)} lie within {say.size(after)} of each other. "
        "No order among them is tested there."
    )


def control_sentence(selection: Selection) -> str:
    """How many recipes the plain control is ahead of, in the mean."""
    plain = selection.scores[is_control(selection.scores) & selection.scores[n.PRUNER].eq(BASE)]
    others = selection.scores[~is_control(selection.scores)]
    if plain.empty or not len(behind := others[others[MEAN] < plain[MEAN].iloc[0]]):
        return ""
    each = say.joined(f"{count} with {pruner}" for pruner, count in behind[n.PRUNER].value_counts(dropna=False).items())
    penalised = behind[n.PRUNER].ne(BASE).any()
    return (
        f"In the mean, which is not tested, {plain[LABEL].iloc[0]} is ahead of {len(behind)} of the other {len(others)} "
        f"recipes at selection ({each}{'; a penalty takes part of the epochs' if penalised else ''})."
    )


def first_cut_table(found: pd.DataFrame) -> Table:
    """Each importance before and after retraining."""
    shown = [
        {"importance": row[n.IMPORTANCE], "cut alone": say.cell(row), "retrained": say.cell(_after(row))}
        for row in found.to_dict("records")
    ]
    at = say.level(found[LEVEL].iloc[0])
    title = f"Selection: what {at} of the channels cost with the base pruner, by validation accuracy, in points"
    return Table(title, pd.DataFrame(shown))


def _after(row: dict[Any, Any]) -> dict[Any, Any]:
    return {column: row[f"{column}{AFTER}"] for column in (MEAN, LOW, HIGH)}


def grid(selection: Selection) -> pd.DataFrame:
    """Importance × pruner: mean change over levels; of several recipes in one cell, the best."""
    cells = selection.scores.assign(**{n.PRUNER: selection.scores[n.PRUNER].fillna("none")})
    cells = cells.drop_duplicates([n.IMPORTANCE, n.PRUNER])
    table = cells.pivot_table(index=n.IMPORTANCE, columns=n.PRUNER, values=MEAN)
    pruners = table.mean().sort_values(ascending=False, kind="stable").index
    importances = table.max(axis=1).sort_values(ascending=False, kind="stable").index
    # The control last, whatever it reaches.
    return table.loc[sorted(importances, key=lambda name: name == CONTROL), pruners]


def tables(selection: Selection) -> list[Table]:
    """Importance × pruner, and every recipe at every level."""
    means, half = grid(selection), {}
    for row in reversed(selection.scores.to_dict("records")):
        half[row[n.IMPORTANCE], "none" if pd.isna(row[n.PRUNER]) else row[n.PRUNER]] = say.cell(row)
    shown = pd.DataFrame(
        {"importance": means.index, **{p: [half.get((i, p), words.MISSING) for i in means.index] for p in means.columns}}
    )
    cuts = first_cut(selection)
    return [
        Table("Selection: mean change of validation accuracy over all levels, in points (importance by pruner)", shown),
        Table(
            "Selection: change of validation accuracy of every recipe at every level (share of the channels), in points, "
            "best first",
            _level_table(selection),
        ),
        *([first_cut_table(cuts)] if len(cuts) else []),
    ]


def _level_table(selection: Selection) -> pd.DataFrame:
    cells = {(row[RECIPE], row[LEVEL]): say.cell(row) for row in selection.by_level.to_dict("records")}
    levels = sorted(set(selection.rows[LEVEL]))
    rows: list[dict[str, Any]] = [
        {"recipe": row[LABEL], "mean": say.cell(row), **{say.level(at): cells[row[RECIPE], at] for at in levels}}
        for row in selection.scores.to_dict("records")
    ]
    return pd.DataFrame(rows)
