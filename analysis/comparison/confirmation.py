"""Question 3, second stage: the finalists on seeds that had no part in choosing them. Only these conclude."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis.comparison import sentences as say
from analysis.comparison.columns import BASE, CHANGE, LABEL, LEVEL, RECIPE, is_control
from analysis.comparison.questions.finalists import unfinished
from analysis.comparison.questions.ranking import balanced, equal_budget
from analysis.comparison.questions.selection import Selection
from analysis.comparison.sentences import Table
from analysis.comparison.statistics import (
    HIGHER,
    LOWER,
    MEAN,
    MIN_SEEDS,
    VERDICT,
    Estimate,
    estimate,
    estimates,
    judged,
    step_in,
)
from analysis.comparison.sweep import Sweep, structured

ONE, OTHER, CONTROLLED = "one", "other", "against_control"
RANDOM = "random importance"


@dataclass(frozen=True, eq=False)
class Confirmation:
    """The recipes that ran on the same fresh seeds and levels."""

    rows: pd.DataFrame
    scores: pd.DataFrame
    """one estimate a recipe, best first, the control's last: the mean change over levels"""
    pairs: pd.DataFrame
    """ONE less OTHER, tested together: the better finalist less the worse, each finalist less the control"""
    by_level: pd.DataFrame
    """ONE less OTHER of the finalists at each level, tested together"""
    turning: pd.DataFrame
    """what ONE gains on OTHER between the lowest level and the highest, tested together"""
    unfinished: Sequence[str] = ()
    """what has to run before these seeds conclude"""
    noun: str = "finalist"
    """what a recipe is called here"""

    @property
    def finalists(self) -> pd.DataFrame:
        """The scores without the control's, best first."""
        return self.scores[~is_control(self.scores)]

    @property
    def seeds(self) -> list[int]:
        """The fresh seeds."""
        return sorted({int(seed) for seed in self.rows[n.SEED]})

    @property
    def concludes(self) -> bool:
        """Whether there are seeds enough to conclude from, and nothing is unfinished."""
        return len(self.seeds) >= MIN_SEEDS and not self.unfinished

    def tied(self, at: float | None = None) -> pd.DataFrame:
        """The finalists, best first (at this level), that are not told from the best."""
        found = self.finalists if at is None else self._scores_at(at)
        pairs = self.pairs[~self.pairs[CONTROLLED]] if at is None else self.by_level[self.by_level[LEVEL] == at]
        top = found.iloc[0][RECIPE]
        beaten = {*pairs.loc[(pairs[ONE] == top) & (pairs[VERDICT] == HIGHER), OTHER]}
        beaten |= {*pairs.loc[(pairs[OTHER] == top) & (pairs[VERDICT] == LOWER), ONE]}
        return found[~found[RECIPE].isin(beaten)]

    @property
    def rival(self) -> str:
        """The recipe that the best is told by: the first that ties with it, or the runner-up."""
        tied = self.tied()
        return str((tied if len(tied) > 1 else self.finalists)[RECIPE].iloc[1])

    def _scores_at(self, at: float) -> pd.DataFrame:
        here = self.rows[(self.rows[LEVEL] == at) & ~is_control(self.rows)]
        means = here.groupby([RECIPE, LABEL])[CHANGE].mean().reset_index(name=MEAN)
        return means.sort_values(MEAN, ascending=False, kind="stable")


def confirm(sweep: Sweep, selection: Selection | None) -> Confirmation | None:
    """The fresh seeds' stage, or None before any finalist has run."""
    found = compare(sweep.confirmation(structured(sweep.rows)))
    return replace(found, unfinished=unfinished(sweep, selection)) if found else None


def compare(rows: pd.DataFrame, noun: str = "finalist") -> Confirmation | None:
    """All pairs of these recipes within seeds, over the levels that all have."""
    rows, _ = balanced(equal_budget(rows)[0])
    if rows[~is_control(rows)].empty:
        return None
    keys = [RECIPE, LABEL, n.IMPORTANCE, n.PRUNER]
    scores = estimates(rows, keys, CHANGE, n.SEED).sort_values(MEAN, ascending=False, kind="stable")
    scores = pd.concat([scores[~is_control(scores)], scores[is_control(scores)]], ignore_index=True)
    order = list(scores.loc[~is_control(scores), RECIPE])
    control = list(scores.loc[is_control(scores), RECIPE])
    means = rows.pivot_table(index=n.SEED, columns=RECIPE, values=CHANGE)
    pairs = [*itertools.combinations(order, 2), *itertools.product(order, control)]
    levels = rows.pivot_table(index=n.SEED, columns=[LEVEL, RECIPE], values=CHANGE)
    lowest, highest = rows[LEVEL].min(), rows[LEVEL].max()
    inner, step = list(itertools.combinations(order, 2)), step_in(rows)
    by_level = [_difference(levels[a], *p, step) | {LEVEL: a} for a in sorted(set(rows[LEVEL])) for p in inner]
    change = levels[highest] - levels[lowest] if highest > lowest else levels[lowest]
    # A change of a difference holds four accuracies, twice as many as the difference itself.
    turning = [_difference(change, *pair, step * np.sqrt(2)) for pair in inner if highest > lowest]
    compared = _frame([_difference(means, *pair, step) | {CONTROLLED: pair[1] in control} for pair in pairs], [CONTROLLED])
    # Without rows a column has no type, and could not be negated.
    compared = compared.astype({CONTROLLED: bool})
    return Confirmation(
        rows, scores, judged(compared), judged(_frame(by_level, [LEVEL])), judged(_frame(turning)), noun=noun
    )


def _difference(means: pd.DataFrame, one: str, other: str, step: float) -> dict[str, Any]:
    return {ONE: one, OTHER: other} | estimate(means[one] - means[other], step)._asdict()


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[ONE, OTHER, *Estimate._fields, *columns])


def winner_sentence(found: Confirmation) -> str:
    """The best recipe with its evidence, or the tie with its members."""
    labels, order = _labels(found), list(found.finalists[RECIPE])
    stage = f"On the fresh seeds {say.seeds(found.seeds)}, over {say.levels(found.rows[LEVEL])} of the channels,"
    top = found.finalists.iloc[0].to_dict()
    if len(order) == 1:
        return f"{stage} the only finalist, {top[LABEL]}, changes accuracy by {say.evidence(top)}."
    gap = found.pairs[(found.pairs[ONE] == order[0]) & (found.pairs[OTHER] == found.rival)].iloc[0].to_dict()
    tied = found.tied()
    if len(tied) == 1:
        return (
            f"{stage} {top[LABEL]} suits this network best of the {len(order)} finalists: its mean change is "
            f"{say.evidence(top)}, and it keeps more than the runner-up {labels[found.rival]} by {say.evidence(gap)}."
        )
    beaten = [labels[recipe] for recipe in order if recipe not in set(tied[RECIPE])]
    told = (
        f"{stage} {tie_words(found)}: {top[LABEL]} is first with a mean change of {say.evidence(top)}, but {top[LABEL]} "
        f"less {labels[found.rival]} is {say.evidence(gap)}"
    )
    return (
        f"{told}. {say.sentence(say.joined(beaten))} {'keep' if len(beaten) > 1 else 'keeps'} less."
        if beaten
        else f"{told}."
    )


def tie_words(found: Confirmation) -> str:
    """The finalists that tie with the best; those among them that are told from each other are no tie of their own."""
    tied, labels = found.tied(), _labels(found)
    first, *others = tied[LABEL]
    pairs = found.pairs[found.pairs[ONE].isin(tied[RECIPE]) & found.pairs[OTHER].isin(tied[RECIPE])]
    apart = pairs[pairs[VERDICT] == HIGHER].to_dict("records")
    if not apart:
        return f"{say.joined(tied[LABEL])} are a tie"
    though = say.joined(f"{labels[row[ONE]]} keeps more than {labels[row[OTHER]]}" for row in apart)
    return f"{first} is a tie with each of {say.joined(others)} (though {though})"


def control_words(found: Confirmation) -> str:
    """How the best, and what ties with it, stand to random importance; empty where that has not run."""
    against = found.pairs[found.pairs[CONTROLLED] & found.pairs[ONE].isin(found.tied()[RECIPE])]
    if against.empty:
        return ""
    rest = [_labels(found)[row[ONE]] for row in against.to_dict("records") if row[VERDICT] != HIGHER]
    if not rest:
        return "random importance keeps less"
    if len(rest) == len(against):
        who = "none of them is" if len(rest) > 1 else f"{rest[0]} is not"
        return f"{who} shown to keep more than {RANDOM}"
    above = [_labels(found)[row[ONE]] for row in against.to_dict("records") if row[VERDICT] == HIGHER]
    return (
        f"{say.joined(above)} {'keep' if len(above) > 1 else 'keeps'} more than {RANDOM}, which {say.joined(rest)} "
        f"{'are' if len(rest) > 1 else 'is'} not shown to"
    )


def factor_sentence(found: Confirmation, factor: str, what: str) -> str:
    """The best importance or pruner among the finalists, with its evidence; a tie is called a tie."""
    values = found.finalists.set_index(RECIPE)[factor].fillna("none")
    tied = list(dict.fromkeys(found.tied().set_index(RECIPE)[factor].fillna("none")))
    top = found.finalists.iloc[0][RECIPE]
    if values.nunique() == 1:
        whose = "every finalist" if len(values) > 1 else "the only finalist"
        return (
            f"Best {what}: {whose} has {values.iloc[0]}, so no fresh seed compares {what}s; that choice rests on the "
            "selection stage alone."
        )
    rivals = found.pairs[
        (found.pairs[ONE] == top) & found.pairs[OTHER].map(values).ne(values[top]) & ~found.pairs[CONTROLLED]
    ]
    near = rivals[rivals[OTHER].isin(found.tied()[RECIPE])] if len(tied) > 1 else rivals
    nearest = near.sort_values(MEAN).iloc[0].to_dict()
    best = tied[0] if len(tied) == 1 else f"a tie of {say.joined(tied)}"
    if nearest[OTHER] == found.rival:
        return f"Best {what}: {best}, by the same difference." if len(tied) == 1 else f"Best {what}: {best}."
    labels = _labels(found)
    return f"Best {what}: {best}; {labels[top]} less {labels[nearest[OTHER]]} is {say.evidence(nearest)}."


def ratio_sentences(found: Confirmation) -> Iterator[str]:
    """Whether the answer changes with the ratio: the winner of each level, and differences that turn."""
    levels = sorted(set(found.rows[LEVEL]))
    if len(found.finalists) < 2 or len(levels) < 2:
        return
    tops = {at: found.tied(at) for at in levels}
    ahead = _ahead(tops)
    labels = _labels(found)
    turning = found.turning[found.turning[VERDICT].isin([HIGHER, LOWER])].to_dict("records")
    # Two finalists behind the first may change places; the answer turns only where the first one does, and beyond the
    # noise at both ends.
    ends = {tops[levels[0]].iloc[0][RECIPE], tops[levels[-1]].iloc[0][RECIPE]}
    flips = [row for row in turning if {row[ONE], row[OTHER]} == ends and _reversed(found, row, levels)]
    if flips:
        yield f"The answer depends on the ratio: {_flip(found, flips[0], labels, levels)}. {ahead}"
    elif turning:
        told = say.joined(f"{labels[row[ONE]]} less {labels[row[OTHER]]} changes by {say.evidence(row)}" for row in turning)
        yield (
            f"Which {found.noun} is best does not change with the ratio beyond the noise, but how far some are apart does, "
            f"between {say.level(levels[0])} and {say.level(levels[-1])}: {told}. {ahead}"
        )
    else:
        widest = found.turning.reindex(found.turning[MEAN].abs().sort_values(ascending=False).index).iloc[0].to_dict()
        yield (
            f"There is no evidence that the answer changes with the ratio: between {say.level(levels[0])} and "
            f"{say.level(levels[-1])} no difference of two {found.noun}s changes beyond the noise; the largest, that "
            f"of {labels[widest[ONE]]} less {labels[widest[OTHER]]}, is {say.evidence(widest)}. {ahead}"
        )


def _ahead(tops: Mapping[float, pd.DataFrame]) -> str:
    at: dict[str, list[float]] = {}
    for level, tied in tops.items():
        at.setdefault(str(tied.iloc[0][LABEL]), []).append(level)
    first = say.joined(f"{label} at {say.levels(levels)}" for label, levels in at.items())
    clear = [level for level, tied in tops.items() if len(tied) == 1]
    return f"First in the mean: {first}; beyond the noise at {say.levels(clear) if clear else 'no level'}."


def control_sentence(found: Confirmation) -> str:
    """Which finalists random importance does not reach."""
    against, labels = found.pairs[found.pairs[CONTROLLED]], _labels(found)
    if against.empty:
        return ""
    better = [labels[row[ONE]] for row in against.to_dict("records") if row[VERDICT] == HIGHER]
    rest = [labels[row[ONE]] for row in against.to_dict("records") if row[VERDICT] != HIGHER]
    first = against.iloc[0].to_dict()
    said = f"{labels[first[ONE]]} less random importance is {say.evidence(first)}"
    if not rest:
        every = "both" if len(better) == 2 else "all"
        whole = f"{every} {found.noun}s keep" if len(better) > 1 else f"{better[0]} keeps"
        return f"Control: {whole} more than random importance; {said}."
    head = f"{say.joined(better)} keep more than random importance, but " if better else ""
    verb = "do" if len(rest) > 1 else "does"
    return f"Control: {head}{say.joined(rest)} {verb} not show that scores matter here; {said}."


def tables(found: Confirmation) -> list[Table]:
    """The finalists' changes at each level, and their differences."""
    at_level = estimates(found.rows, [RECIPE, LEVEL], CHANGE, n.SEED)
    cells = {(row[RECIPE], row[LEVEL]): say.cell(row) for row in at_level.to_dict("records")}
    levels, labels = sorted(set(found.rows[LEVEL])), _labels(found)
    scores = [
        {"recipe": row[LABEL], "mean": say.cell(row), **{say.level(at): cells[row[RECIPE], at] for at in levels}}
        for row in found.scores.to_dict("records")
    ]
    inner = {(row[ONE], row[OTHER], row[LEVEL]): say.cell(row) for row in found.by_level.to_dict("records")}
    pairs = [
        {
            "difference": f"{labels[row[ONE]]} less {labels[row[OTHER]]}",
            "mean": say.cell(row),
            "evidence": say.support(row),
            **{say.level(at): inner.get((row[ONE], row[OTHER], at), "\N{EN DASH}") for at in levels},
        }
        for row in found.pairs.to_dict("records")
    ]
    title = f"on the fresh seeds {say.seeds(found.seeds)}, in points"
    return [
        Table(f"Confirmation: change of accuracy {title}", pd.DataFrame(scores)),
        Table(f"Confirmation: differences within seeds {title}; verdicts after Holm's correction", pd.DataFrame(pairs)),
    ]


def _labels(found: Confirmation) -> dict[str, str]:
    # The pruner of the control is worth naming only where it is not the plain one.
    return {
        row[RECIPE]: "random" if row[LABEL] == f"random + {BASE}" else row[LABEL] for row in found.scores.to_dict("records")
    }


def _pair_at(found: Confirmation, row: dict[Any, Any], at: float) -> dict[Any, Any]:
    pairs = found.by_level
    here = pairs[(pairs[ONE] == row[ONE]) & (pairs[OTHER] == row[OTHER]) & (pairs[LEVEL] == at)]
    return dict(here.iloc[0].to_dict())


def _reversed(found: Confirmation, row: dict[Any, Any], levels: list[float]) -> bool:
    return {_pair_at(found, row, at)[VERDICT] for at in (levels[0], levels[-1])} == {HIGHER, LOWER}


def _flip(found: Confirmation, row: dict[Any, Any], labels: dict[str, str], levels: list[float]) -> str:
    low, high = _pair_at(found, row, levels[0]), _pair_at(found, row, levels[-1])
    return (
        f"{labels[row[ONE]]} less {labels[row[OTHER]]} is {say.points(low[MEAN])} at {say.level(levels[0])} and "
        f"{say.points(high[MEAN])} at {say.level(levels[-1])}, a change of {say.evidence(row)}"
    )
