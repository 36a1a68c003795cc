"""Question 4: both families side by side on each axis that a user may care about."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison import curves
from analysis.comparison import sentences as say
from analysis.comparison.columns import CHANGE, LABEL, LEVEL, RECIPE, UNITS, WHO, is_control
from analysis.comparison.curves import AXES, Crossing, Curve
from analysis.comparison.questions.one_shot import ROUNDING, longer, usual, within_tolerance
from analysis.comparison.questions.ranking import ranked
from analysis.comparison.questions.within_margin import changes_by_level, in_words, reach_sentence
from analysis.comparison.sentences import Answer, Table
from analysis.comparison.statistics import (
    COUNT,
    HIGHER,
    LOW,
    LOWER,
    MEAN,
    MIN_SEEDS,
    TIE,
    UNDECIDED,
    VERDICT,
    Estimate,
    estimate,
    judged,
    step_in,
)
from analysis.comparison.sweep import Sweep

AXIS, AT, LOWEST, HIGHEST = "axis", "at", "range_low", "range_high"
OUTCOME = "outcome"
# How an axis can come out, beside the verdict on a difference.
ONLY_STRUCTURED, ONLY_UNSTRUCTURED = "only structured moves", "only unstructured moves"
NEITHER, APART, UNMEASURED = "neither moves", "no common range", "not measured"
COMPARED = "compared"
SLOWER = 0.9
"""What has less than this share of the dense speed is told as slower; less of a difference can be the measurement's."""
KEEPS = {HIGHER: "structured keeps more", LOWER: "unstructured keeps more", TIE: TIE, UNDECIDED: UNDECIDED}


@dataclass(frozen=True, eq=False)
class Sides:
    """The recipe of each family that selection puts first, on the same seeds."""

    unstructured: pd.DataFrame
    structured: pd.DataFrame
    rivals: pd.DataFrame
    """the other unstructured recipes on these seeds, which may be better elsewhere than where the families are compared"""
    long_cuts: pd.DataFrame
    """one-shot networks on these seeds that had the epochs of a chain"""
    fresh: bool = False
    """whether these seeds had no part in choosing"""
    lone: Sequence[str] = ()
    """the seeds on which only one family is complete, in words"""

    @property
    def seeds(self) -> list[int]:
        """The seeds that have both."""
        return sorted({*self.unstructured[n.SEED]} & {*self.structured[n.SEED]})


def sides(sweep: Sweep) -> Sides:
    """The best of each family, chosen by validation accuracy on the seeds that choose; on fresh seeds if both ran there."""
    chains, structured = sweep.iterative if len(sweep.iterative) else usual(sweep.one_shot), sweep.structured
    # Chosen where the two are compared: the last levels of a chain, far beyond, would outweigh all others.
    within = chains[chains[n.SPARSITY] <= structured[n.SPARSITY].max()] if len(structured) else chains
    found = []
    for rows, choosing_by in ((chains, within if len(within) else chains), (structured, structured)):
        first = ranked(sweep.selection(choosing_by))[:1]
        found.append(rows[rows[RECIPE].isin(first)])
    rivals = chains[~is_control(chains) & ~chains[RECIPE].isin(found[0][RECIPE])]
    cuts = longer(sweep.one_shot)
    cuts = cuts[~is_control(cuts)]
    whole = [_whole_seeds(rows) for rows in found]
    common = whole[0] & whole[1]
    if not common:
        return Sides(found[0], found[1], rivals, cuts)  # a family alone keeps all seeds of its own
    # Some of the fresh seeds are not those that were named in advance.
    fresh = len(sweep.fresh) >= MIN_SEEDS and sweep.fresh <= common
    common = common & sweep.fresh if fresh else common - sweep.fresh
    lone = [
        f"left out here, because only {rows[LABEL].iloc[0]} is complete on them: {say.seed_numbers(seeds)}"
        for rows, own in zip(found, whole, strict=True)
        if (seeds := own - sweep.fresh - common) and not fresh
    ]
    begun = {*found[0][n.SEED]} & {*found[1][n.SEED]} & sweep.fresh
    if begun and not fresh:
        lone.append(
            "not compared on the fresh seeds yet, because both families are not complete on "
            f"{say.seed_numbers(sweep.fresh - (whole[0] & whole[1]))}"
        )
    one, other, rivals, cuts = (rows[rows[n.SEED].isin(common)] for rows in (*found, rivals, cuts))
    return Sides(one, other, rivals, cuts, fresh, lone)


def _whole_seeds(rows: pd.DataFrame) -> set[int]:
    """The seeds that have every level: one that is behind would narrow the range over which all are compared."""
    levels = rows.groupby(n.SEED)[LEVEL].nunique()
    return {int(seed) for seed in levels.index[levels == rows[LEVEL].nunique()]}


def answer(sweep: Sweep) -> Answer:
    """Each axis: who keeps more at the same reduction, over which range, and where the curves cross."""
    both = sides(sweep)
    missing = [
        f"no {name} recipe to put beside the other family yet"
        for name, rows in (("iterative unstructured", both.unstructured), ("structured", both.structured))
        if rows.empty
    ]
    if not missing and not both.seeds:
        missing = ["there is no seed yet on which both families are complete"]
    if missing:
        return Answer("", "", missing=missing)
    found, marks, crossed = compare(both, sweep.dense)
    return Answer(
        headline=_headline(both, found),
        paragraph=" ".join([_who(both), *_axis_sentences(found)]),
        details=[
            *_crossing_sentences(found, crossed, both.seeds),
            *_alike_sentences(both, sweep.dense),
            *_reach_sentences(both, sweep.dense),
            *_slower_sentences(both.structured, sweep.dense),
        ],
        missing=[
            *say.alike((AXES[a].noun, f"{UNMEASURED} for both families") for a in _unmeasured(found)),
            *both.lone,
        ],
        tables=[
            _budgets_table(both, sweep.dense),
            _table(found, crossed),
            _marks_table(marks),
            _levels_table(both, sweep.dense),
        ],
        findings={"axes": found, "at": marks, "crossings": pd.DataFrame(crossed, columns=[AXIS, *Crossing._fields])},
    )


def compare(both: Sides, dense: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[tuple[Any, ...]]]:
    """Structured less unstructured: averaged over each axis's common range, at its marks, and every crossing.

    Axes are tested together, and so are the marks of all axes.
    """
    rows: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    crossed: list[tuple[Any, ...]] = []
    step = max(step_in(both.structured), step_in(both.unstructured))
    for name, axis in AXES.items():
        one, other = (curves.curves(rows, dense, axis) for rows in (both.structured, both.unstructured))
        outcome, common = _outcome(one, other)
        rows.append({AXIS: name, OUTCOME: outcome} | _reach(one, other) | _averaged(one, other, common, step))
        if common is None:
            continue
        marks += [{AXIS: name, AT: at} | _at(one, other, at, step) for at in _marks(axis.marks, *common)]
        for seed in sorted(one.keys() & other.keys()):
            crossed += [(name, *crossing) for crossing in curves.crossings(seed, one[seed], other[seed])]
    return judged(pd.DataFrame(rows)), judged(pd.DataFrame(marks, columns=[AXIS, AT, *Estimate._fields, *VALUES])), crossed


def _alike_sentences(both: Sides, dense: pd.DataFrame) -> Iterator[str]:
    """By stored bytes, the same weights' importance retrained as the channels are, where the best is not."""
    retrain = set(both.structured[n.RETRAIN])
    if set(both.unstructured[n.RETRAIN]) == retrain:
        return
    rivals = both.rivals[both.rivals[n.RETRAIN].isin(retrain) & both.rivals[WHO].isin(both.unstructured[WHO])]
    for _, own in rivals.groupby(RECIPE, sort=False):
        alike = replace(both, unstructured=own[own[n.SEED].isin(_whole_seeds(own))])
        row = next(row for row in compare(alike, dense)[0].to_dict("records") if row[AXIS] == n.COMPRESSION)
        if row[OUTCOME] == COMPARED:
            still = say.joined([*_unlike(alike), "epochs"])
            how = say.joined(map(say.retraining, sorted(retrain)))
            yield f"With {how} on both sides (they differ in {still} still): {say.clause(_axis_sentence(row))}"


VALUES = (n.STRUCTURED, n.UNSTRUCTURED)
BUDGETS = (0.01, 0.02, 0.05)
"""losses of accuracy that a table says what they buy"""


def _outcome(one: dict[int, Curve], other: dict[int, Curve]) -> tuple[str, tuple[float, float] | None]:
    if not one or not other:
        return UNMEASURED, None
    moved = (curves.moves(one), curves.moves(other))
    if moved != (True, True):
        return {(True, False): ONLY_STRUCTURED, (False, True): ONLY_UNSTRUCTURED}.get(moved, NEITHER), None
    common = curves.common_range(one, other)
    return (APART, None) if common is None else (COMPARED, common)


def _reach(one: dict[int, Curve], other: dict[int, Curve]) -> dict[str, float]:
    """How far each family reaches, and what it has lost there."""
    told = {}
    for family, found in zip(VALUES, (one, other), strict=True):
        for end, pick in (("low", np.min), ("high", np.max)):
            told[f"{family}_{end}"] = float(2 ** np.mean([pick(x) for x, _ in found.values()])) if found else np.nan
        told[f"{family}_change"] = float(np.mean([y[x.argmax()] for x, y in found.values()])) if found else np.nan
    return told


def _averaged(
    one: dict[int, Curve], other: dict[int, Curve], common: tuple[float, float] | None, step: float
) -> dict[str, Any]:
    if common is None:
        return {LOWEST: np.nan, HIGHEST: np.nan} | Estimate(np.nan, np.nan, np.nan, 0, np.nan)._asdict()
    gaps = [curves.mean_difference(one[s], other[s], *common) for s in sorted(one.keys() & other.keys())]
    return {LOWEST: 2 ** common[0], HIGHEST: 2 ** common[1]} | estimate(gaps, step)._asdict()


def _at(one: dict[int, Curve], other: dict[int, Curve], factor: float, step: float) -> dict[str, Any]:
    seeds, x = sorted(one.keys() & other.keys()), np.array([np.log2(factor)])
    values = {
        family: [float(np.interp(x, *found[s])[0]) for s in seeds]
        for family, found in zip(VALUES, (one, other), strict=True)
    }
    gaps = np.subtract(values[n.STRUCTURED], values[n.UNSTRUCTURED])
    return estimate(gaps, step)._asdict() | {family: float(np.mean(value)) for family, value in values.items()}


def _marks(marks: Sequence[float], low: float, high: float) -> list[float]:
    inside = [mark for mark in marks if low - ROUNDING <= np.log2(mark) <= high + ROUNDING]
    return inside or [2**low, 2**high]


def _unmeasured(found: pd.DataFrame) -> list[str]:
    return list(found.loc[found[OUTCOME] == UNMEASURED, AXIS])


def _who(both: Sides) -> str:
    part = "had no part in choosing them" if both.fresh else "chose them"
    return (
        "Compared is of each family what selection puts first, of the weights over the sparsity that both reach: "
        f"{in_words(both.unstructured)}, and {in_words(both.structured)}; on {say.seed_numbers(both.seeds)}, which {part}. "
        f"They are compared as they are, each with its own retraining ({_epochs(both)})."
        + (f" Beside the family they differ in {say.joined(unlike.values())}." if (unlike := _unlike(both)) else "")
    )


def _unlike(both: Sides) -> dict[str, str]:
    """What the two differ in beside the family, and in which way, in words."""
    pairs = {
        "retraining": [say.joined(map(say.retraining, sorted(set(rows[n.RETRAIN])))) for rows in _pair(both)],
        "scope": [say.joined(sorted({str(scope) for scope in rows[n.SCOPE].dropna()})) for rows in _pair(both)],
    }
    return {what: f"{what} ({one} against {other})" for what, (one, other) in pairs.items() if one != other}


def _pair(both: Sides) -> tuple[pd.DataFrame, pd.DataFrame]:
    return both.unstructured, both.structured


def _epochs(both: Sides) -> str:
    totals = [rows.groupby(LEVEL)[n.TOTAL_EPOCHS].max() for rows in (both.unstructured, both.structured)]
    return " and ".join(
        f"{say.epochs(total.max())} by {say.level(float(str(total.idxmax())))} of the {UNITS[family]}"
        for family, total in zip(VALUES[::-1], totals, strict=True)
    )


def _axis_sentences(found: pd.DataFrame) -> Iterator[str]:
    """A sentence an axis that was measured, but one for all axes that only structured pruning moves."""
    lone = found[found[OUTCOME] == ONLY_STRUCTURED].to_dict("records")
    others = found[~found[OUTCOME].isin([ONLY_STRUCTURED, UNMEASURED])]
    yield from (_axis_sentence(row) for row in others.to_dict("records"))
    if lone:
        far = say.joined(
            f"{AXES[row[AXIS]].noun} (up to {AXES[row[AXIS]].tell(row['structured_high'])}, at "
            f"{say.points(row['structured_change'])})"
            for row in lone
        )
        yield (
            f"Only structured pruning gains anything in {far}: masked weights leave the shapes as they are, so there is no "
            "accuracy at the same reduction to compare."
        )


def _axis_sentence(row: dict[Any, Any]) -> str:
    axis = AXES[row[AXIS]]
    name = f"By {axis.noun}"
    far = {family: axis.tell(row[f"{family}_high"]) for family in VALUES if row[OUTCOME] != UNMEASURED}
    if row[OUTCOME] == UNMEASURED:
        return f"{name}: not measured for both families, so nothing is said."
    if row[OUTCOME] == ONLY_STRUCTURED:
        return f"{name} only structured pruning gains anything, up to {far[n.STRUCTURED]}."
    if row[OUTCOME] == ONLY_UNSTRUCTURED:
        return f"{name} only unstructured pruning gains anything, up to {far[n.UNSTRUCTURED]}."
    if row[OUTCOME] == NEITHER:
        return f"{name} neither family gains anything."
    if row[OUTCOME] == APART:
        return (
            f"{name} the families do not overlap: structured runs from {axis.tell(row['structured_low'])} to "
            f"{far[n.STRUCTURED]}, unstructured from {axis.tell(row['unstructured_low'])} to {far[n.UNSTRUCTURED]}."
        )
    verdict = {
        HIGHER: "structured pruning keeps more accuracy",
        LOWER: "unstructured pruning keeps more accuracy",
        TIE: "the two are a tie",
        UNDECIDED: "the two are not told apart yet",
    }[row[VERDICT]]
    return (
        f"{name}, {verdict} over the range that both cover, {axis.tell(row[LOWEST])} to {axis.tell(row[HIGHEST])}: "
        f"structured less unstructured is {say.evidence(row)} on average."
    )


def _crossing_sentences(found: pd.DataFrame, crossed: list[tuple[Any, ...]], seeds: list[int]) -> Iterator[str]:
    for row in found[found[OUTCOME] == COMPARED].to_dict("records"):
        yield f"By {AXES[row[AXIS]].noun}, {_crossing(row[AXIS], crossed, seeds)}."


def _crossing(name: str, crossed: list[tuple[Any, ...]], seeds: list[int]) -> str:
    axis = AXES[name]
    by_seed = {s: [Crossing(*c[1:]) for c in crossed if c[0] == name and c[1] == s] for s in seeds}
    with_one = {s: own for s, own in by_seed.items() if own}
    if not with_one:
        return f"the curves do not cross within the common range on any of {len(seeds)} seeds"
    told = "; ".join(
        f"seed {s}: " + say.joined(f"between {axis.tell(c.low)} and {axis.tell(c.high)}" for c in own)
        for s, own in with_one.items()
    )
    again = any(len(own) > 1 for own in with_one.values())
    doubt = " Curves that cross more than once are too close there to be told apart" if again else ""
    some = "" if len(with_one) == len(seeds) else ", and on the others not within the common range"
    return f"the curves cross on {len(with_one)} of {len(seeds)} seeds ({told}){some}" + (f".{doubt}" if doubt else "")


def _reach_sentences(both: Sides, dense: pd.DataFrame) -> Iterator[str]:
    for rows in (both.unstructured, both.structured):
        yield reach_sentence(rows, dense)
    reached = within_tolerance(changes_by_level(both.unstructured)) or 0
    for name, own in _others(both):
        found = changes_by_level(own)
        level = within_tolerance(found)
        if level and level > reached:
            yield (
                f"Farther within a point goes {name}: to {say.level(level)} of the weights, "
                f"{say.evidence(found[found[LEVEL] == level].iloc[0].to_dict())}."
            )


def _others(both: Sides) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, rows) of the unstructured recipes that the structured one is not compared with."""
    for _, own in both.rivals.groupby(RECIPE, sort=False):
        yield own[LABEL].iloc[0], own
    for (who, retrain), own in both.long_cuts.groupby([WHO, n.RETRAIN], sort=False):
        budget = say.epochs(own[n.TOTAL_EPOCHS].max(), own[n.TOTAL_EPOCHS].min())
        yield f"{who} in one shot ({say.retraining(retrain)}, {budget})", own


def _slower_sentences(structured: pd.DataFrame, dense: pd.DataFrame) -> Iterator[str]:
    """The levels at which a smaller network runs slower: times don't follow from sizes."""
    told = []
    for name in (n.LATENCY, n.LATENCY_LARGE):
        factors = curves.by_level(structured, dense, AXES[name])
        slower = [f"{say.level(level)} ({AXES[name].tell(factor)})" for level, factor in factors.items() if factor < SLOWER]
        if slower:
            told.append(f"by {AXES[name].noun}, those without {say.joined(slower)} of the channels")
    if told:
        advice = ""
        if structured[n.ROUND_TO].fillna(1).max() <= 1:
            advice = (
                ": widths that are no multiple of what a kernel works on at once may be why (round_to keeps to multiples)"
            )
        yield f"Smaller is not always faster; slower than the dense network are, {say.joined(told)}{advice}."


def _headline(both: Sides, found: pd.DataFrame) -> str:
    row = found[found[AXIS] == n.COMPRESSION].iloc[0].to_dict()
    names = f"{both.unstructured[LABEL].iloc[0]} against {both.structured[LABEL].iloc[0]}"
    names += f", which differ in {say.joined(unlike)}, too" if (unlike := _unlike(both)) else ""
    return f"Family against family, {names}: {say.clause(_axis_sentence(row))}"


def _table(found: pd.DataFrame, crossed: list[tuple[Any, ...]]) -> Table:
    rows = []
    for row in found.to_dict("records"):
        axis, compared = AXES[row[AXIS]], row[OUTCOME] == COMPARED
        outcome = KEEPS[row[VERDICT]] if compared else row[OUTCOME]
        where = [c[4] for c in crossed if c[0] == row[AXIS]]
        rows.append(
            {
                "axis": axis.noun,
                "outcome": outcome,
                "common range": f"{axis.tell(row[LOWEST])} to {axis.tell(row[HIGHEST])}" if compared else "\N{EN DASH}",
                "structured less unstructured": f"{say.cell(row, verdict=False)}",
                "seeds": str(row[COUNT]) if compared else "\N{EN DASH}",
                "crossings": say.joined(axis.tell(at) for at in sorted(where)) or ("none" if compared else "\N{EN DASH}"),
            }
        )
    return Table("Each axis: structured less unstructured over the common range, in points", pd.DataFrame(rows))


def _marks_table(found: pd.DataFrame) -> Table:
    rows = [
        {
            "axis": AXES[row[AXIS]].noun,
            "at": AXES[row[AXIS]].tell(row[AT]),
            "unstructured": say.signed(row[n.UNSTRUCTURED]),
            "structured": say.signed(row[n.STRUCTURED]),
            "structured less unstructured": say.cell(row),
            "seeds": row[COUNT],
        }
        for row in found.to_dict("records")
    ]
    return Table("At the same reduction: changes of accuracy interpolated within each seed, in points", pd.DataFrame(rows))


def _levels_table(both: Sides, dense: pd.DataFrame) -> Table:
    """What each level that was asked for took away."""
    rows = [
        {"family": family, "asked for": say.level(level)} | told
        for family, own in ((n.UNSTRUCTURED, both.unstructured), (n.STRUCTURED, both.structured))
        for level, told in _taken(own, dense).items()
    ]
    title = "What each level took away: of the weights (unstructured) or of the channels (structured); means over seeds"
    return Table(title, pd.DataFrame(rows))


def _budgets_table(both: Sides, dense: pd.DataFrame) -> Table:
    """How far each family can go for so much accuracy."""
    rows = []
    first, last = ((own[LABEL].iloc[0], own) for own in (both.unstructured, both.structured))
    for budget, (name, own) in itertools.product(BUDGETS, (first, *_others(both), last)):
        found = changes_by_level(own)
        level, shown = within_tolerance(found, MEAN, budget), within_tolerance(found, LOW, budget)
        told = {"to give up": f"{100 * budget:g} {'point' if budget == 0.01 else 'points'}"}
        told |= {"family": own[n.FAMILY].iloc[0], "recipe": name}
        told["shown up to"] = say.level(shown) if shown else "none"
        told["by the mean up to"] = say.level(level) if level else "none"
        rows.append(told | (_taken(own, dense)[level] if level else {}))
    title = (
        f"What a budget of accuracy buys, on {say.seed_numbers(both.seeds)}: the level up to which the interval of every "
        "level (shown), or its mean, stays within it, and what that takes away"
    )
    return Table(title, pd.DataFrame(rows).fillna(words.MISSING))


def _taken(own: pd.DataFrame, dense: pd.DataFrame) -> dict[float, dict[str, str]]:
    """level -> what its networks lost, for tables."""
    levels = own[LEVEL].astype(float)
    factors = {axis.label: (axis, curves.by_level(own, dense, axis)) for axis in AXES.values()}
    means = own.groupby(levels)[[CHANGE, n.TOTAL_EPOCHS]].mean()
    return {
        level: {"change": say.signed(change), "epochs": f"{epochs:g}"}
        | {label: axis.tell(found.get(level)) for label, (axis, found) in factors.items()}
        for level, change, epochs in zip(means.index.tolist(), *(means[c].tolist() for c in means), strict=True)
    }
