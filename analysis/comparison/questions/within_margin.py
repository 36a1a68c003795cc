"""How far one recipe goes within a point of dense: the compression that it has there, on every axis."""

from __future__ import annotations

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis.comparison import curves
from analysis.comparison import sentences as say
from analysis.comparison.columns import CHANGE, LABEL, LEVEL, REPORTED, UNITS
from analysis.comparison.curves import AXES
from analysis.comparison.questions.one_shot import TOLERANCE, in_the_mean, tested, within_tolerance
from analysis.comparison.statistics import COUNT, HIGH, estimates

REACH = {
    n.SPARSITY: "{} of the weights removed",
    n.COMPRESSION: "{} compression",
    n.MACS: "{} fewer MACs",
    n.LATENCY: "{} the speed at batch 1",
    n.LATENCY_LARGE: "{} the speed at a large batch",
}


def in_words(rows: pd.DataFrame) -> str:
    """One recipe with its family: "unstructured pruning by magnitude (fine-tuning) in a chain of cuts"."""
    steps = "a chain of cuts" if rows[n.STEPS].max() > 1 else "one shot"
    return f"{rows[n.FAMILY].iloc[0]} pruning by {rows[LABEL].iloc[0]} in {steps}"


def changes_by_level(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean change of one recipe at each level, lowest first."""
    return estimates(rows.sort_values(LEVEL, kind="stable"), [LEVEL], CHANGE, n.SEED)


def reach_sentence(rows: pd.DataFrame, dense: pd.DataFrame) -> str:
    """How far one recipe goes within a point of dense, its interval included, on every axis."""
    found = changes_by_level(rows)
    who, unit = in_words(rows), UNITS[rows[n.FAMILY].iloc[0]]
    if tested(found).empty:
        return f"How far {who} goes within a point of dense is open: {say.too_few(found[COUNT].max())}."
    level = within_tolerance(found)
    if level is None:
        lowest = tested(found).iloc[0].to_dict()
        said = "loses more than a point" if lowest[HIGH] < -TOLERANCE else "is not shown to stay within a point of dense"
        at = f"at {say.level(lowest[LEVEL])}, the lowest level tried: {say.evidence(lowest)}"
        return f"{say.sentence(who)} {said} even {at}{in_the_mean(found, unit)}."
    best = rows[rows[LEVEL] == level]
    change = found[found[LEVEL] == level].iloc[0].to_dict()
    return (
        f"Within a point of dense, {who} reaches {_gained(best, dense)}, at "
        f"{100 * best[REPORTED].mean():.2f}% accuracy; the mean change is {say.evidence(change)}"
        f"{in_the_mean(found, unit)}."
    )


def _gained(best: pd.DataFrame, dense: pd.DataFrame) -> str:
    told = []
    for name, axis in AXES.items():
        factor = 2 ** curves.gains(best, dense, axis).mean()
        if pd.notna(factor) and np.log2(factor) > curves.LEAST_MOVE:
            told.append(REACH[name].format(axis.tell(factor)))
    return say.joined(told)
