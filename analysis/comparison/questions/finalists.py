"""Question 3, second stage: what of the finalists' schedules is still missing on the fresh seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pandas as pd

from analysis.comparison import sentences as say
from analysis.comparison.columns import LABEL, LEVEL, RECIPE, is_control
from analysis.comparison.questions.ranking import CELL, equal_budget
from analysis.comparison.questions.selection import Selection
from analysis.comparison.statistics import MIN_SEEDS
from analysis.comparison.sweep import Sweep, structured

WHICH_CONTROL = "the control, random importance,"


def unfinished(sweep: Sweep, selection: Selection | None) -> list[str]:
    """Why the fresh seeds conclude nothing yet; empty where every finalist and the control have run on all of them.

    A conclusion from those that happen to be there already could name a best recipe before its rival has run.
    """
    if not sweep.fresh:
        return ["the study names no fresh seeds, so nothing confirms what selection finds"]
    rows, others = equal_budget(sweep.confirmation(structured(sweep.rows)))
    if rows.empty:
        return [f"{_planned(sweep)} and the control have not run on the fresh seeds yet"]
    told = list(_absent(sweep, selection, rows))
    lacking = {str(label): _lacking(sweep, rows, own) for label, own in rows.groupby(LABEL, sort=False)}
    partly = {label: seeds for label, seeds in lacking.items() if seeds}
    if partly:
        told.append(f"not complete on fresh {say.seed_numbers(set().union(*partly.values()))} yet: {say.some([*partly])}")
    if others:
        told.append(f"with other budgets on the fresh seeds, so left out there: {say.some(others)}")
    if len(sweep.fresh) < MIN_SEEDS:
        told.append(f"the study names {say.count(len(sweep.fresh), 'fresh seed')}, and {MIN_SEEDS} are needed")
    return told


def condition(sweep: Sweep) -> str:
    """When the fresh seeds conclude, in words."""
    how_many = f"each of the {sweep.top} recipes" if sweep.top and sweep.top > 1 else "the best recipe"
    return f"fresh seeds conclude only when {how_many} that selection puts first and the control have run on all of them"


def _planned(sweep: Sweep) -> str:
    return f"the {sweep.top} best recipes of selection" if sweep.top and sweep.top > 1 else "the best recipe of selection"


def _absent(sweep: Sweep, selection: Selection | None, rows: pd.DataFrame) -> Iterator[str]:
    there = rows[~is_control(rows)].drop_duplicates(RECIPE)
    absent = (sweep.top or max(len(there), 1)) - len(there)
    first = selection.order[0] if selection and selection.order[0] not in set(there[RECIPE]) else None
    name = selection.scores.set_index(RECIPE)[LABEL][first] if selection and first else None
    if absent > 0:
        which = f", {name}, which selection puts first, among them" if name else ""
        of = f"{absent} of {say.count(len(there) + absent, 'finalist')}"
        yield f"{of} {'has' if absent == 1 else 'have'} not run on the fresh seeds yet{which}"
    elif name:
        yield f"{name}, which selection puts first, is none of the finalists on the fresh seeds"
    if not is_control(rows).any():
        yield f"{WHICH_CONTROL} has not run on the fresh seeds yet"


def _lacking(sweep: Sweep, rows: pd.DataFrame, own: pd.DataFrame) -> set[int]:
    """The fresh seeds on which one recipe lacks a level that its kind has anywhere."""
    levels = set(sweep.selection(sweep.structured)[LEVEL]) | set(rows[LEVEL])
    cells = set(zip(*(own[c] for c in CELL), strict=True))
    return {seed for seed, level in itertools.product(sweep.fresh, levels) if (seed, level) not in cells}
