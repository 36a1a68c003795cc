"""Which recipes can be compared with each other, and which of them selection puts first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pandas as pd

import trainables.records.names as n
from analysis.comparison import sentences as say
from analysis.comparison.columns import LABEL, LEVEL, RECIPE, VALIDATION_CHANGE, is_control
from analysis.comparison.statistics import MIN_SEEDS

CELL = [n.SEED, LEVEL]
Cells = frozenset[tuple[int, float]]


def equal_budget(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with as many epochs as most recipes have at their level; and the labels of the recipes that have others."""
    recipes = rows.drop_duplicates([RECIPE, LEVEL]).groupby([LEVEL, n.TOTAL_EPOCHS]).size().reset_index(name="recipes")
    # Of budgets that equally many have, the smaller one.
    usual = recipes.sort_values(["recipes", n.TOTAL_EPOCHS], ascending=[False, True]).drop_duplicates(LEVEL)
    budget = rows[LEVEL].map(usual.set_index(LEVEL)[n.TOTAL_EPOCHS])
    equal = rows[n.TOTAL_EPOCHS].eq(budget)
    return rows[equal], list(dict.fromkeys(rows.loc[~equal, LABEL]))


def balanced(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of recipes that all have the same seeds and levels; and the labels of those that are incomplete.

    Which seeds and levels: the largest grid, of seeds enough to conclude from, that at least two recipes fill; the
    control is not counted. A recipe that has run on fewer seeds is left out, and takes no seed from the others.
    """
    cells = {recipe: frozenset(zip(*(group[c] for c in CELL), strict=True)) for recipe, group in rows.groupby(RECIPE)}
    rivals = {recipe: cells[recipe] for recipe in rows.loc[~is_control(rows), RECIPE]} or cells
    if not rivals:
        return rows, []
    own = list(rivals.values())
    grids = {grid for one, other in itertools.product(set(own), repeat=2) for grid in _grids(one & other) if grid}
    # Sorted, so that of equally good choices it is always the same.
    chosen = max(sorted(grids, key=sorted, reverse=True), key=lambda grid: _worth(grid, own))
    whole = rows[RECIPE].map(lambda recipe: chosen <= cells[recipe]).astype(bool)
    inside = pd.Series([cell in chosen for cell in zip(*(rows[c] for c in CELL), strict=True)], index=rows.index)
    return rows[whole & inside], list(dict.fromkeys(rows.loc[~whole, LABEL]))


def _grids(cells: Cells) -> Iterator[Cells]:
    """Cells as full grids of seeds by levels: the seeds with all levels, the levels that all seeds have, each level."""
    seeds, levels = {seed for seed, _ in cells}, {level for _, level in cells}
    whole = {seed for seed in seeds if all((seed, level) in cells for level in levels)}
    shared = {level for level in levels if all((seed, level) in cells for seed in seeds)}
    yield frozenset(itertools.product(whole, levels))
    yield frozenset(itertools.product(seeds, shared))
    for level in levels:
        yield frozenset(cell for cell in cells if cell[1] == level)


def _worth(grid: Cells, own: Sequence[Cells]) -> tuple[bool, bool, int, int]:
    filled = sum(grid <= cells for cells in own)
    return filled >= min(2, len(own)), len({seed for seed, _ in grid}) >= MIN_SEEDS, len(grid), filled


def lost(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """The levels and the seeds that are no longer there, in words; empty where all are."""
    levels, seeds = (sorted(set(before[column]) - set(after[column])) for column in (LEVEL, n.SEED))
    counts = before.groupby(LEVEL)[n.SEED].nunique()
    told = [f"{say.levels(levels)} (on {counts[levels].max()} of {before[n.SEED].nunique()} seeds)"] if levels else []
    return say.joined([*told, *([f"{say.seed_numbers(seeds)} (not at every level)"] if seeds else [])])


def behind_in_seeds(line: pd.DataFrame) -> str:
    """The levels of one line that ran on fewer seeds than its others, or too few, in words; empty where there are none."""
    counts = line.groupby(LEVEL)[n.SEED].nunique()
    seeds = max(line[n.SEED].nunique(), MIN_SEEDS)
    few = counts[counts < seeds]
    return say.joined(
        f"{say.levels(own.index)} on {number} of {seeds} seeds" for number, own in few.groupby(few, sort=True)
    )


def ranked(rows: pd.DataFrame) -> list[str]:
    """The recipes, best first, by their mean change of validation accuracy; the control does not compete."""
    rivals = balanced(rows)[0]
    means = rivals[~is_control(rivals)].groupby(RECIPE)[VALIDATION_CHANGE].mean()
    return [str(recipe) for recipe in means.sort_values(ascending=False, kind="stable").index]


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the levels that most seeds have, and of the seeds that have all of these."""
    if rows.empty:
        return rows
    seeds = rows.groupby(LEVEL)[n.SEED].nunique()
    kept = rows[rows[LEVEL].isin(seeds.index[seeds == seeds.max()])]
    levels = kept.groupby(n.SEED)[LEVEL].nunique()
    return kept[kept[n.SEED].isin(levels.index[levels == levels.max()])]
