"""Question 3, the control: the pruned shapes trained from scratch for as many epochs in all (Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

import trainables.records.names as n
from analysis.comparison import sentences as say
from analysis.comparison.columns import CHANGE, CONTROL, DENSE_EPOCHS, LABEL, LEVEL, RECIPE
from analysis.comparison.questions.ranking import complete
from analysis.comparison.sentences import Table
from analysis.comparison.statistics import COUNT, HIGHER, LOWER, MIN_SEEDS, TIE, UNDECIDED, VERDICT, estimates, judged
from analysis.comparison.sweep import Sweep
from analysis.words import MISSING

SAME = [n.SEED, LEVEL, n.SCOPE, n.ROUND_TO, n.SHAPE_ID]
BUDGET = "budget"
DIFFERENCE = "difference"


def against_scratch(sweep: Sweep, recipes: list[str]) -> pd.DataFrame:
    """Pairs of a pruned network and one of the same shape trained from scratch: same seed, same epochs in all."""
    scratch = sweep.scratch.assign(**{BUDGET: sweep.scratch[n.TOTAL_EPOCHS]})
    pruned = sweep.structured[sweep.structured[RECIPE].isin(recipes)]
    pruned = pruned.assign(**{BUDGET: pruned[n.TOTAL_EPOCHS] + pruned[DENSE_EPOCHS]})
    alone = scratch.drop_duplicates([*SAME, BUDGET])[[*SAME, BUDGET, CHANGE]]
    pairs = pruned.merge(alone, on=[*SAME, BUDGET], suffixes=("", "_scratch"))
    return pairs.assign(**{DIFFERENCE: pairs[CHANGE] - pairs[f"{CHANGE}_scratch"]})


def pooled(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pruned less scratch over the levels, a row for each recipe, tested together."""
    lines = [complete(line) for _, line in pairs.groupby(RECIPE, sort=False)]
    if not lines:
        return pd.DataFrame()
    found = judged(estimates(pd.concat(lines), [RECIPE, LABEL, n.IMPORTANCE], DIFFERENCE, n.SEED))
    levels, seeds = ([sorted(set(line[column])) for line in lines] for column in (LEVEL, n.SEED))
    return found.assign(levels=pd.Series(levels, index=found.index), seeds=pd.Series(seeds, index=found.index))


def by_level(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pruned less scratch at each level, tested together."""
    return judged(estimates(pairs.sort_values(LEVEL), [RECIPE, LABEL, LEVEL], DIFFERENCE, n.SEED))


def sentences(found: pd.DataFrame, fresh: frozenset[int]) -> list[str]:
    """Whether the trained weights are worth anything beyond the shape that pruning found; ``fresh`` seeds chose nothing."""
    said = {
        HIGHER: "pruning the trained network keeps more accuracy than training the same shape from scratch",
        LOWER: "training the shape from scratch reaches more accuracy than pruning the trained network",
        TIE: "pruning the trained network and training the same shape from scratch are a tie",
        UNDECIDED: "pruning and training from scratch are not told apart yet",
    }
    return [
        f"For equal epochs in all, {said[row[VERDICT]]} with {row[LABEL]}: {say.over(row['levels'])} of the "
        f"channels, pruned less scratch is {say.evidence(row)}{_caveat(row, fresh)}."
        + (f" {_few(row)}" if row[COUNT] < MIN_SEEDS else "")
        for row in found.to_dict("records")
    ]


def table(found: pd.DataFrame) -> Table:
    """Pruned less scratch, a row a recipe and a column a level."""
    cells = {(row[LABEL], row[LEVEL]): say.cell(row) for row in found.to_dict("records")}
    shown = [
        {"recipe": label, **{say.level(at): cells.get((label, at), MISSING) for at in sorted(set(found[LEVEL]))}}
        for label in dict.fromkeys(found[LABEL])
    ]
    return Table("Pruned from the trained network less the same shape trained from scratch, in points", pd.DataFrame(shown))


def _caveat(row: Mapping[Any, Any], fresh: frozenset[int]) -> str:
    # The control was chosen by nobody, so nothing flatters it.
    chosen = row[n.IMPORTANCE] != CONTROL and not set(row["seeds"]) <= fresh
    return ", on the seeds on which it was chosen as the best, which favours it" if chosen else ""


def _few(row: dict[object, float]) -> str:
    return say.sentence(say.too_few(row[COUNT])) + "."
