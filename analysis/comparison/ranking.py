"""Which recipes can be compared with each other, and which of them selection puts first."""

from __future__ import annotations

import pandas as pd

import trainables.names as n
from analysis.comparison.columns import LABEL, LEVEL, RECIPE, VALIDATION_CHANGE, is_control

CELL = [n.SEED, LEVEL]


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

    Which seeds and levels: those that leave most networks to compare, the control's not counted.
    """
    cells = {recipe: frozenset(zip(*(group[c] for c in CELL), strict=True)) for recipe, group in rows.groupby(RECIPE)}
    rivals = {recipe: cells[recipe] for recipe in rows.loc[~is_control(rows), RECIPE]} or cells
    if not rivals:
        return rows, []
    # Sorted, so that of equally good choices it is always the same.
    choices = sorted(set(rivals.values()), key=lambda choice: (len(choice), sorted(choice)), reverse=True)
    chosen = max(choices, key=lambda choice: len(choice) * sum(choice <= own for own in rivals.values()))
    whole = rows[RECIPE].map(lambda recipe: chosen <= cells[recipe]).astype(bool)
    inside = pd.Series([cell in chosen for cell in zip(*(rows[c] for c in CELL), strict=True)], index=rows.index)
    return rows[whole & inside], list(dict.fromkeys(rows.loc[~whole, LABEL]))


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
