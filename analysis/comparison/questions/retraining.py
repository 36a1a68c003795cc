"""Question 2: which retraining keeps more, at the epochs of one step and at those that match a chain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

import trainables.records.names as n
from analysis.comparison import sentences as say
from analysis.comparison.columns import CHANGE, LEVEL, WHO, is_control
from analysis.comparison.questions.one_shot import longer, usual
from analysis.comparison.questions.ranking import complete, lost
from analysis.comparison.sentences import Table
from analysis.comparison.statistics import COUNT, HIGHER, LOWER, STEP_SIZE, TIE, UNDECIDED, VERDICT, estimates, judged
from analysis.words import MISSING

METHOD, LEVELS, FEWEST, MOST = "method", "levels", "fewest_epochs", "most_epochs"
FIRST, OTHER = "first", "other"
CHAIN, CUT, LONG_CUT = "iterative", "one-shot", "one-shot with the chain's epochs"
DIFFERENCE = "difference"
LINE = [METHOD, WHO, n.STEPS]
KEYS = [*LINE, FEWEST, MOST, FIRST, OTHER]


class Retrainings(NamedTuple):
    """Each other retraining less the first (fine-tuning, where there is it), a line for each method and its epochs."""

    pooled: pd.DataFrame
    """averaged over a line's levels, all lines tested together"""
    by_level: pd.DataFrame
    """at each level, all tested together"""
    left_out: list[str]
    """what the averages are without"""

    @property
    def findings(self) -> dict[str, pd.DataFrame]:
        """The frames, by the names that they are written under."""
        return {"retraining": self.pooled, "retraining_by_level": self.by_level}

    def at(self, row: Mapping[Any, Any]) -> pd.DataFrame:
        """The levels of one line of ``pooled``."""
        return self.by_level.merge(pd.DataFrame([row])[KEYS], on=KEYS) if len(self.by_level) else self.by_level


def compare(chains: pd.DataFrame, cuts: pd.DataFrame) -> Retrainings:
    """All pairs of retrainings.

    The one-shot networks that match a chain are a line of their own: which retraining is better may depend on the
    epochs, because rewinding replays more of the dense schedule.
    """
    rows = _by_method(chains, cuts)
    pooled, at_level, left_out = [], [], []
    for first, other in itertools.combinations(sorted(set(rows[n.RETRAIN].dropna())), 2):
        for _, line in _pairs(rows, first, other).groupby([*LINE, FEWEST, MOST], sort=False):
            kept = complete(line).assign(**{FIRST: first, OTHER: other})
            found = estimates(kept, KEYS, DIFFERENCE, n.SEED)
            pooled.append(found.assign(**{LEVELS: pd.Series([sorted(set(kept[LEVEL]))])}))
            at_level.append(estimates(kept.sort_values(LEVEL, kind="stable"), [*KEYS, LEVEL], DIFFERENCE, n.SEED))
            if gaps := lost(line, kept):
                left_out.append(f"left out of the retrainings' average, {_where(found.iloc[0].to_dict())}: {gaps}")
    if not pooled:
        return Retrainings(pd.DataFrame(), pd.DataFrame(), [])
    frames = [judged(pd.concat(found, ignore_index=True)) for found in (pooled, at_level)]
    return Retrainings(frames[0], frames[1], left_out)


def _by_method(chains: pd.DataFrame, cuts: pd.DataFrame) -> pd.DataFrame:
    # A chain's first network may be a one-shot one as well, and counts as that.
    chains = chains[~chains[n.STEP_ID].isin(cuts[n.STEP_ID])]
    parts = {CHAIN: chains, CUT: usual(cuts), LONG_CUT: longer(cuts)}
    rows = pd.concat([part.assign(**{METHOD: method}) for method, part in parts.items()])
    return rows[~is_control(rows)]


def _pairs(rows: pd.DataFrame, first: str, other: str) -> pd.DataFrame:
    same = [METHOD, n.SEED, LEVEL, WHO, n.SCOPE, n.STEPS, n.FINE_TUNE_EPOCHS]
    one, two = (rows.loc[rows[n.RETRAIN] == name, [*same, CHANGE, STEP_SIZE]] for name in (first, other))
    pairs = two.merge(one.drop(columns=STEP_SIZE), on=same, suffixes=("_other", "_first"))
    by_line = pairs.groupby([*LINE, pairs[n.FINE_TUNE_EPOCHS].where(pairs[METHOD] != LONG_CUT, 0)])[n.FINE_TUNE_EPOCHS]
    return pairs.assign(
        **{
            DIFFERENCE: pairs[f"{CHANGE}_other"] - pairs[f"{CHANGE}_first"],
            FEWEST: by_line.transform("min"),
            MOST: by_line.transform("max"),
        }
    )


def _where(row: Mapping[Any, Any]) -> str:
    each = say.epochs(float(str(row[MOST])), float(str(row[FEWEST])))
    return f"{row[METHOD]} ({row[WHO]}, {each}{' a step' if row[METHOD] == CHAIN else ''})"


def sentences(found: Retrainings) -> list[str]:
    """Which retraining keeps more, a sentence a line; and whether that depends on the level, or on the epochs."""
    return [*(_sentence(row, found.at(row)) for row in found.pooled.to_dict("records")), *_on_budget(found)]


def _sentence(row: Mapping[Any, Any], line: pd.DataFrame) -> str:
    first, other = say.retraining(row[FIRST]), say.retraining(row[OTHER])
    verdict = {
        HIGHER: f"{other} keeps more than {first}",
        LOWER: f"{first} keeps more than {other}",
        TIE: f"{other} and {first} are a tie",
        UNDECIDED: f"{other} and {first} are not told apart yet",
    }[row[VERDICT]]
    evidence = f"{other} less {first} is {say.evidence(row)}"
    ahead = say.ahead(line, other, first)
    if say.turns(row, line):  # then a mean over the levels says only which levels were asked for
        return (
            f"{say.sentence(_where(row))}: which retraining keeps more depends on the sparsity ({ahead}); "
            f"{say.over(row[LEVELS])}, {evidence}."
        )
    whole = (line[VERDICT] == row[VERDICT]).all() or row[VERDICT] == UNDECIDED
    told = verdict if whole else f"{verdict} on average ({ahead})"
    return f"{say.sentence(_where(row))}, {say.over(row[LEVELS])}: {told}; {evidence}."


def _on_budget(found: Retrainings) -> Iterator[str]:
    """The one-shot lines alone: they differ in their epochs (and levels) and in nothing else."""
    lines = [row for row in found.pooled.to_dict("records") if not say.turns(row, found.at(row))]
    cuts = pd.DataFrame([row for row in lines if row[METHOD] in (CUT, LONG_CUT) and row[VERDICT] != UNDECIDED])
    for _, rows in cuts.groupby([WHO, FIRST, OTHER], sort=False) if len(cuts) else ():
        if {HIGHER, LOWER} <= set(rows[VERDICT]):
            told = f"Which retraining is better in one shot ({rows[WHO].iloc[0]}) depends on the number of epochs"
            rewinds = "lr_rewind" in set(rows[FIRST]) | set(rows[OTHER])
            why = ": with few, rewinding replays only the small end of the dense schedule's learning rates"
            yield f"{told}{why if rewinds else ''}."


def tables(found: Retrainings) -> list[Table]:
    """Every line's difference, over its levels and at each."""
    pooled = [
        {
            "method": _where(row),
            "retrainings": f"{say.retraining(row[OTHER])} less {say.retraining(row[FIRST])}",
            "levels": say.levels(row[LEVELS]),
            "difference": say.cell(row),
            "seeds": row[COUNT],
        }
        for row in found.pooled.to_dict("records")
    ]
    columns: dict[str, dict[float, str]] = {}
    for row in found.by_level.to_dict("records"):
        what = f"{_where(row)}: {say.retraining(row[OTHER])} less {say.retraining(row[FIRST])}"
        columns.setdefault(what, {})[row[LEVEL]] = say.cell(row)
    by_level = (
        pd.DataFrame(columns).sort_index().rename(index=say.level).fillna(MISSING).rename_axis("removed").reset_index()
    )
    title = "How to retrain: differences within seeds, in points"
    return [Table(f"{title}; averaged over the levels", pd.DataFrame(pooled)), Table(f"{title}; at each level", by_level)]
