"""Question 1: what one-shot unstructured pruning costs at each level, and where the curve bends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison import sentences as say
from analysis.comparison.columns import (
    CHANGE,
    CHANGE_BEFORE,
    CONTROL,
    LEVEL,
    REPORTED,
    VALIDATION_CHANGE,
    WHO,
    is_control,
)
from analysis.comparison.questions.ranking import behind_in_seeds
from analysis.comparison.sentences import Answer, Table
from analysis.comparison.statistics import (
    COUNT,
    HIGH,
    HIGHER,
    LOW,
    LOWER,
    MEAN,
    MIN_SEEDS,
    TIE,
    UNDECIDED,
    VERDICT,
    estimates,
    judged,
)
from analysis.comparison.sweep import Sweep

LINE = [WHO, n.IMPORTANCE, n.SCOPE, n.RETRAIN]
CUT = [WHO, n.IMPORTANCE, n.SCOPE]
# A level is called "within a point" of dense where the interval says that it loses no more.
TOLERANCE = 0.01
ROUNDING = 1e-9
DIFFERENCE = "difference"
REACHED = "within_one_point"
"""the level up to which a line is shown to stay within TOLERANCE"""


def answer(sweep: Sweep) -> Answer:
    """The cost of each level, the bend of each curve, and how far the control is away."""
    rows = usual(sweep.one_shot)
    if rows[~is_control(rows)].empty:
        return Answer("", "", missing=["no one-shot unstructured networks yet"])
    costs, cuts = cost_of_levels(rows), cost_of_cuts(rows)
    bends = [_bend(line) for _, line in _lines(costs)]
    control = against_control(rows)
    told = [_cost_sentence(line, bend) for (_, line), bend in zip(_lines(costs), bends, strict=True)]
    paragraph = " ".join([*told, *_cut_sentences(cuts)])
    details = [_same_sentence(line, bend) for (_, line), bend in zip(_lines(costs), bends, strict=True)]
    retrained = worth_of_retraining(rows)
    long_cuts = long_reach(sweep.one_shot, sweep.iterative)
    details += [*map(_long_sentence, long_cuts), *_retrained_sentences(retrained), *_control_sentences(control, bends)]
    return Answer(
        headline=_headline(costs, sorted(bends, key=_by_validation(rows), reverse=True), cuts, long_cuts),
        paragraph=paragraph,
        details=details,
        missing=_missing(rows),
        tables=[_table(costs, cuts)],
        findings={
            "cost": costs,
            "cut_alone": cuts,
            "retraining_less_cut_alone": retrained,
            "bend": pd.DataFrame(bends),
            "importance_minus_random": control,
        },
    )


def usual(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the one-shot networks, those with the epochs that most levels have: the others are matches for a chain."""
    spread = rows.groupby([*LINE, n.TOTAL_EPOCHS], dropna=False)[LEVEL].nunique().reset_index(name="levels")
    most = spread.sort_values(["levels", n.TOTAL_EPOCHS], ascending=[False, True]).drop_duplicates(LINE)
    return rows.merge(most[[*LINE, n.TOTAL_EPOCHS]], on=[*LINE, n.TOTAL_EPOCHS]).sort_values(LEVEL, kind="stable")


def longer(rows: pd.DataFrame) -> pd.DataFrame:
    """The other one-shot networks, which had the epochs of a chain."""
    return rows[~rows[n.STEP_ID].isin(usual(rows)[n.STEP_ID])]


def long_reach(cuts: pd.DataFrame, chains: pd.DataFrame) -> list[dict[Any, Any]]:
    """How far each line goes within a point with the epochs of a chain; those that reach no level aren't there.

    Of several chains the shortest.
    """
    same = [n.IMPORTANCE, n.SCOPE, n.RETRAIN, LEVEL, n.TOTAL_EPOCHS]
    matches = longer(cuts[~is_control(cuts)]).merge(chains[same].drop_duplicates(), on=same)
    budget = matches.groupby([*LINE, LEVEL], dropna=False)[n.TOTAL_EPOCHS].transform("min")
    found = []
    for key, line in matches[matches[n.TOTAL_EPOCHS] == budget].groupby(LINE, dropna=False):
        costs = estimates(line.sort_values(LEVEL, kind="stable"), [LEVEL], CHANGE, n.SEED)
        level = within_tolerance(costs)
        if level is not None:
            told = costs[costs[LEVEL] == level].iloc[0].to_dict() | dict(zip(LINE, key, strict=True))
            epochs = line.loc[line[LEVEL] == level, n.TOTAL_EPOCHS].iloc[0]
            found.append(told | {REACHED: level, n.TOTAL_EPOCHS: epochs, "tried": sorted(set(costs[LEVEL]))})
    return found


def _long_sentence(line: Mapping[str, Any]) -> str:
    return (
        f"With as many epochs as a chain ({say.levels(line['tried'])} were tried), one-shot {line[WHO]} stays within a "
        f"point at {say.level(line[REACHED])}, after {line_words(line)}: {say.interval(line)}."
    )


def cost_of_levels(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean change of each line and level; tested against dense, all lines and levels but the control's together."""
    keys = [*LINE, LEVEL]
    found = estimates(rows, keys, CHANGE, n.SEED)
    means = rows.groupby(keys, dropna=False)[[REPORTED, n.ACCURACY_BEFORE, CHANGE_BEFORE, n.TOTAL_EPOCHS]].mean()
    return judged(found.merge(means.reset_index(), on=keys), ~is_control(found))


def cost_of_cuts(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean change of each importance and level before any retraining, which is validation accuracy."""
    cuts = rows[rows[CHANGE_BEFORE].notna()].drop_duplicates([*CUT, LEVEL, n.SEED])
    return estimates(cuts, [*CUT, LEVEL], CHANGE_BEFORE, n.SEED)


def worth_of_retraining(rows: pd.DataFrame) -> pd.DataFrame:
    """What retraining adds to the cut alone, on validation data; all lines and levels but the control's together."""
    known = rows[rows[CHANGE_BEFORE].notna() & ~is_control(rows)]
    gained = known.assign(**{DIFFERENCE: known[VALIDATION_CHANGE] - known[CHANGE_BEFORE]})
    found = estimates(gained, [*LINE, n.TOTAL_EPOCHS, LEVEL], DIFFERENCE, n.SEED)
    return judged(found) if len(found) else found


def against_control(rows: pd.DataFrame) -> pd.DataFrame:
    """Each importance less random importance: same seed, level, scope, retraining and epochs."""
    same = [n.SEED, LEVEL, n.SCOPE, n.RETRAIN, n.TOTAL_EPOCHS]
    random = rows.loc[is_control(rows), [*same, CHANGE]].rename(columns={CHANGE: CONTROL})
    pairs = rows[~is_control(rows)].merge(random, on=same)
    pairs[DIFFERENCE] = pairs[CHANGE] - pairs[CONTROL]
    return judged(estimates(pairs, [*LINE, LEVEL], DIFFERENCE, n.SEED))


def line_words(line: Mapping[Any, Any]) -> str:
    """How a line retrains."""
    return f"{say.epochs(float(line[n.TOTAL_EPOCHS]))} of {say.retraining(line[n.RETRAIN])}"


def tested(line: pd.DataFrame) -> pd.DataFrame:
    """The levels that ran on seeds enough to conclude from, lowest first."""
    return line[line[COUNT] >= MIN_SEEDS].sort_values(LEVEL, kind="stable")


def within_tolerance(line: pd.DataFrame, end: str = LOW, tolerance: float = TOLERANCE) -> float | None:
    """The largest level such that it and every lower one loses at most ``tolerance``; None if none does.

    The lower end of the interval counts; with ``end`` MEAN, the mean alone. Levels of too few seeds are passed over.
    """
    line = tested(line)
    return _reached(line, line[end] >= -tolerance - ROUNDING)


def _reached(line: pd.DataFrame, kept: pd.Series) -> float | None:
    levels = line[LEVEL][kept.cummin()]
    return float(levels.max()) if len(levels) else None


def _lines(costs: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    shown = costs[~is_control(costs)].sort_values(LEVEL, kind="stable")
    yield from shown.groupby(LINE, dropna=False)


def _bend(line: pd.DataFrame) -> dict[str, Any]:
    judged_levels = tested(line)
    return {column: line[column].iloc[0] for column in (*LINE, n.TOTAL_EPOCHS)} | {
        REACHED: within_tolerance(line),
        "mean_within_one_point": within_tolerance(line, MEAN),
        "not_distinguishable": _reached(judged_levels, judged_levels[VERDICT] != LOWER),
    }


def _cost_sentence(line: pd.DataFrame, bend: dict[str, Any]) -> str:
    how = f"With {line_words(bend)}, one-shot {line[WHO].iloc[0]} pruning"
    if tested(line).empty:
        return f"{how}: {say.too_few(line[COUNT].max())}."
    line = tested(line)
    at, reached = line.set_index(LEVEL), bend[REACHED]
    beyond = line[line[LEVEL] > (reached or 0)][LEVEL]
    if reached is None:
        return f"{how} {_not_even(at.loc[beyond.min()], say.level(beyond.min()))}{in_the_mean(line, 'weights')}."
    kept = f"{how} stays within a point of the dense network up to {say.level(reached)} of the weights"
    kept += f", where the mean change is {say.interval(at.loc[reached])}"
    if beyond.empty:
        return f"{kept}; that is the highest level tried, so the curve has not bent yet."
    told = f"{kept}; at {say.level(beyond.min())} it is {say.interval(at.loc[beyond.min()])}"
    end = beyond.max()
    told += "" if end == beyond.min() else f", and at {say.level(end)} {say.points(at.loc[end][MEAN])}"
    return f"{told}{in_the_mean(line, 'weights')}."


def in_the_mean(line: pd.DataFrame, unit: str) -> str:
    """How much farther the mean alone would go, in words; empty where it goes no farther than its interval."""
    mean = within_tolerance(line, MEAN)
    if mean is None or mean <= (within_tolerance(line) or 0):
        return ""
    at = line[line[LEVEL] == mean].iloc[0]
    return f"; by the mean alone, {say.level(mean)} of the {unit} can go within a point ({say.points(at[MEAN])})"


def _not_even(lowest: Mapping[Any, Any], at: str) -> str:
    loses = lowest[HIGH] < -TOLERANCE
    said = "loses more than a point already" if loses else "is not shown to stay within a point of the dense network even"
    return f"{said} at the lowest level tried, {at}: {say.interval(lowest)}"


def _same_sentence(line: pd.DataFrame, bend: dict[str, Any]) -> str:
    how, count = f"{say.sentence(str(bend[WHO]))} with {say.retraining(bend[n.RETRAIN])}", line[COUNT].max()
    if count < MIN_SEEDS:
        return f"{how}: whether a level can be told from dense is open; {say.too_few(count)}."
    line = tested(line)
    same = bend["not_distinguishable"]
    better = line.loc[line[VERDICT] == HIGHER, LEVEL]
    gain = f" {say.sentence(say.levels(better))} of the weights removed is even above dense: retraining trained it further."
    if same is None:
        return f"{how}, every level is below dense after Holm's correction, the lowest one already."
    told = f"{how}, no level up to {say.level(same)} is shown to be below dense after Holm's correction"
    least = line[line[LEVEL] <= same][MEAN].min()
    limit = f" (n = {count:.0f} seeds; the lowest of their means is {say.points(least)}, which more seeds may show)"
    return f"{told}{limit}.{gain if len(better) else ''}"


def _cut_sentences(cuts: pd.DataFrame) -> Iterator[str]:
    """How far the cut goes without any retraining."""
    for _, line in cuts[~is_control(cuts)].groupby(CUT, dropna=False):
        if tested(line).empty:
            continue
        at = {row[LEVEL]: row for row in line.to_dict("records")}
        level = within_tolerance(line)
        who = f"Without any retraining (validation), one-shot {line[WHO].iloc[0]} pruning"
        if level is None:
            lowest = tested(line)[LEVEL].min()
            yield f"{who} {_not_even(at[lowest], say.level(lowest))}{in_the_mean(line, 'weights')}."
        else:
            yield (
                f"{who} stays within a point up to {say.level(level)}: {say.evidence(at[level])}"
                f"{in_the_mean(line, 'weights')}."
            )


def _retrained_sentences(found: pd.DataFrame) -> Iterator[str]:
    """Where retraining helps, and where it costs: what is cut little has little to win back."""
    if found.empty:
        return
    for _, line in found.sort_values(LEVEL).groupby([*LINE, n.TOTAL_EPOCHS], dropna=False, sort=False):
        first = line.iloc[0].to_dict()
        how = f"{line_words(first)} after {first[WHO]} pruning"
        if tested(line).empty:
            yield f"What {how} adds to the cut alone is open; {say.too_few(line[COUNT].max())}."
            continue
        verbs = {HIGHER: "raises accuracy", LOWER: "lowers it", TIE: "is a tie with the cut alone"}
        parts = [
            f"{verb} at {say.levels(line.loc[line[VERDICT] == verdict, LEVEL])}"
            for verdict, verb in verbs.items()
            if (line[VERDICT] == verdict).any()
        ]
        yield (
            f"{say.sentence(how)} {say.joined(parts)} (validation); at {say.level(first[LEVEL])}, with it less without is "
            f"{say.evidence(first)}."
        )


def _control_sentences(control: pd.DataFrame, bends: list[dict[str, Any]]) -> Iterator[str]:
    """At which levels an importance keeps more than random importance, with the numbers of the first and the last."""
    for bend in bends if len(control) else ():
        line = control[(control[WHO] == bend[WHO]) & (control[n.RETRAIN] == bend[n.RETRAIN])].sort_values(LEVEL)
        who = f"{bend[WHO]} with {say.retraining(bend[n.RETRAIN])}"
        if line.empty:
            yield f"Control: {who} has no random importance to be put beside."
            continue
        verbs = {
            HIGHER: "keeps more than",
            LOWER: "keeps less than",
            TIE: "is a tie with",
            UNDECIDED: "is not yet told from",
        }
        found = {verb: line.loc[line[VERDICT] == verdict, LEVEL] for verdict, verb in verbs.items()}
        names = itertools.chain(["random importance"], itertools.repeat("it"))
        parts = [f"{verb} {next(names)} at {say.levels(at)}" for verb, at in found.items() if len(at)]
        rows = line.to_dict("records")
        told = say.joined(f"{say.evidence(row)} at {say.level(row[LEVEL])}" for row in [rows[0], *rows[1:][-1:]])
        yield f"Control: {who} {say.joined(parts)}; the difference is {told}."


def _by_validation(rows: pd.DataFrame) -> Callable[[Mapping[str, Any]], tuple[float, float]]:
    """How far the line of a bend goes, to sort by: on validation data, for what is put first is a choice."""
    lines = dict(_lines(cost_of_levels(rows.assign(**{CHANGE: rows[VALIDATION_CHANGE]}))))

    def worth(bend: Mapping[str, Any]) -> tuple[float, float]:
        line = lines[tuple(bend[column] for column in LINE)]
        level = within_tolerance(line) or 0.0
        return level, float(line.loc[line[LEVEL] == level, MEAN].sum())

    return worth


def _headline(
    costs: pd.DataFrame, bends: Sequence[Mapping[str, Any]], cuts: pd.DataFrame, long_cuts: Sequence[Mapping[str, Any]]
) -> str:
    """What the summary says; ``bends`` are sorted, the one to be told first."""
    own = costs[~is_control(costs)]
    if tested(own).empty:
        return f"Pruned in one shot: {say.too_few(own[COUNT].max())}."
    first = bends[0]
    reached = first[REACHED] or 0.0
    beside = [bend for bend in bends[1:] if (bend[REACHED] or 0.0) > reached]
    farther = [line for line in long_cuts if line[REACHED] > reached]
    lines = [line for _, line in cuts[~is_control(cuts)].groupby(CUT, dropna=False)]
    alone = max((level for line in lines if (level := within_tolerance(line)) is not None), default=0.0)
    told = [f"; with {who}, {can}" for some in (beside, farther) for who, can in _can(some)]
    told += [f"; not retrained, {say.level(alone)} can (validation)"] if alone > reached else []
    who = f"with {line_words(first)}" + (", which goes farthest on validation data" if beside else "")
    if not reached:
        mean = first["mean_within_one_point"]
        though = f", though by the mean alone {say.level(mean)} of the weights can go" if mean is not None else ""
        return f"Pruned in one shot, no level is shown to stay within a point of dense {who}{though}{''.join(told)}."
    return (
        f"Pruned in one shot, {say.level(reached)} of the weights can go within a point of dense, its interval included, "
        f"{who}: the mean change is {say.interval(_row_at(costs, first))}{''.join(told)}."
    )


def _can(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(how these lines retrain, how far they go), those together that go as far."""
    found: dict[float, list[str]] = {}
    for line in lines:
        found.setdefault(line[REACHED], []).append(line_words(line))
    return [(say.joined(names, "or"), f"{say.level(level)} can") for level, names in found.items()]


def _row_at(costs: pd.DataFrame, bend: Mapping[str, Any]) -> dict[Any, Any]:
    line = costs[(costs[WHO] == bend[WHO]) & (costs[n.RETRAIN] == bend[n.RETRAIN])]
    return dict(line[line[LEVEL] == bend[REACHED]].iloc[0].to_dict())


def _missing(rows: pd.DataFrame) -> list[str]:
    control = [] if is_control(rows).any() else ["the control, random importance, has no one-shot networks yet"]
    lone = set(rows.loc[~is_control(rows), n.RETRAIN])
    behind = say.alike(
        (f"{who} with {say.retraining(retrain)}", behind_in_seeds(line))
        for (who, retrain), line in rows.groupby([WHO, n.RETRAIN], sort=False)
    )
    return (
        control
        + behind
        + [f"no one-shot networks with {say.retraining(r)} yet" for r in ("fine_tune", "lr_rewind") if r not in lone]
    )


def _table(costs: pd.DataFrame, cuts: pd.DataFrame) -> Table:
    seeds = costs.groupby(LEVEL)[COUNT].max().to_dict()
    columns: dict[str, dict[float, str]] = {}
    for _, line in cuts.sort_values(LEVEL).groupby(CUT, dropna=False):
        columns[f"{line[WHO].iloc[0]}, not retrained (validation): change"] = _cells(line, seeds, verdict=False)
    for key, line in costs.sort_values(LEVEL).groupby(LINE, dropna=False):
        who, importance, _, retrain = key
        name = f"{who}, {say.retraining(retrain)}"
        if importance != CONTROL:
            columns[f"{name}: accuracy"] = {
                float(row[LEVEL]): words.percent(row[REPORTED], 2) for row in line.to_dict("records")
            }
        columns[f"{name}: change"] = _cells(line, seeds, verdict=importance != CONTROL)
    table = pd.DataFrame(columns).sort_index().fillna(words.MISSING)
    table.insert(0, "removed", [say.level(float(at)) for at in table.index])
    table.insert(1, "seeds", [f"{seeds[float(at)]:.0f}" for at in table.index])
    title = (
        "Accuracy, and its change against the dense network of the same seed in points with the half-width of the 95% "
        "interval; verdicts after Holm's correction"
    )
    return Table(title, table.reset_index(drop=True))


def _cells(line: pd.DataFrame, seeds: Mapping[Any, float], *, verdict: bool) -> dict[float, str]:
    return {float(row[LEVEL]): say.cell(row, verdict=verdict, seeds=seeds[row[LEVEL]]) for row in line.to_dict("records")}
