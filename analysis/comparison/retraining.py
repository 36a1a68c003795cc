"""Question 2: which retraining keeps more, at the epochs of one step and at those that match a chain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pandas as pd

import trainables.names as n
from analysis.comparison import sentences as say
from analysis.comparison.columns import CHANGE, LEVEL, WHO, is_control
from analysis.comparison.one_shot import longer, usual
from analysis.comparison.ranking import complete, lost
from analysis.comparison.sentences import Table
from analysis.comparison.statistics import COUNT, HIGHER, LOWER, STEP_SIZE, TIE, UNDECIDED, VERDICT, estimates, judged

METHOD, LEVELS, FEWEST, MOST = "method", "levels", "fewest_epochs", "most_epochs"
FIRST, OTHER = "first", "other"
CHAIN, CUT, LONG_CUT = "iterative", "one-shot", "one-shot with the chain's epochs"
DIFFERENCE = "difference"
LINE = [METHOD, WHO, n.STEPS]


def compare(chains: pd.DataFrame, cuts: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Each other retraining less the first (fine-tuning, where there is it), over levels, all lines tested together.

    The one-shot networks that match a chain are a line of their own: which retraining is better may depend on the
    epochs, because rewinding replays more of the dense schedule. Also what was left out of the averages.
    """
    rows = _by_method(chains, cuts)
    found, left_out = [], []
    for first, other in itertools.combinations(sorted(set(rows[n.RETRAIN].dropna())), 2):
        for _, line in _pairs(rows, first, other).groupby([*LINE, FEWEST, MOST], sort=False):
            kept = complete(line)
            found.append(_estimate(kept).assign(**{FIRST: first, OTHER: other}))
            if gaps := lost(line, kept):
                left_out.append(f"left out of the retrainings' average, {_where(found[-1].iloc[0].to_dict())}: {gaps}")
    return (judged(pd.concat(found, ignore_index=True)) if found else pd.DataFrame()), left_out


def _by_method(chains: pd.DataFrame, cuts: pd.DataFrame) -> pd.DataFrame:
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


def _estimate(line: pd.DataFrame) -> pd.DataFrame:
    found = estimates(line, [*LINE, FEWEST, MOST], DIFFERENCE, n.SEED)
    return found.assign(**{LEVELS: pd.Series([sorted(set(line[LEVEL]))])})


def _where(row: dict[object, object]) -> str:
    each = say.epochs(float(str(row[MOST])), float(str(row[FEWEST])))
    return f"{row[METHOD]} ({row[WHO]}, {each}{' a step' if row[METHOD] == CHAIN else ''})"


def sentences(found: pd.DataFrame) -> list[str]:
    """Which retraining keeps more, a sentence a line; and whether that depends on the epochs."""
    told = []
    for row in found.to_dict("records"):
        first, other = say.retraining(row[FIRST]), say.retraining(row[OTHER])
        verdict = {
            HIGHER: f"{other} keeps more than {first}",
            LOWER: f"{first} keeps more than {other}",
            TIE: f"{other} and {first} are a tie",
            UNDECIDED: f"{other} and {first} are not told apart yet",
        }[row[VERDICT]]
        told.append(
            f"{say.sentence(_where(row))}, {say.over(row[LEVELS])}: {verdict}; {other} less {first} is {say.evidence(row)}."
        )
    return [*told, *_on_budget(found)]


def _on_budget(found: pd.DataFrame) -> Iterator[str]:
    """The one-shot lines alone: they differ in their epochs (and levels) and in nothing else."""
    if found.empty:
        return
    cuts = found[found[METHOD].isin([CUT, LONG_CUT]) & found[VERDICT].ne(UNDECIDED)]
    for _, rows in cuts.groupby([WHO, FIRST, OTHER], sort=False):
        if {HIGHER, LOWER} <= set(rows[VERDICT]):
            told = f"Which retraining is better in one shot ({rows[WHO].iloc[0]}) depends on the number of epochs"
            rewinds = "lr_rewind" in set(rows[FIRST]) | set(rows[OTHER])
            why = ": with few, rewinding replays only the small end of the dense schedule's learning rates"
            yield f"{told}{why if rewinds else ''}."


def table(found: pd.DataFrame) -> Table:
    """Every line's difference."""
    shown = [
        {
            "method": _where(row),
            "retrainings": f"{say.retraining(row[OTHER])} less {say.retraining(row[FIRST])}",
            "levels": say.levels(row[LEVELS]),
            "difference": say.cell(row),
            "seeds": row[COUNT],
        }
        for row in found.to_dict("records")
    ]
    return Table("How to retrain: differences within seeds, averaged over the levels, in points", pd.DataFrame(shown))
