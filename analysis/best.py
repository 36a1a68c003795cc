"""The best network within limits; or, where there is none, what comes nearest, what it lacks, and whether to search on."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from pydantic import ValidationError

import trainables.records.names as n
from analysis import words
from analysis.confirmed import records, trust
from analysis.load import Study
from analysis.optimism import of_promise
from analysis.pareto import HYPERVOLUME, hypervolume_history, sign, timed_by
from trainables.records.limits import OF_QUALITY, Bound, Limits, bounds, column_of, moved_drop, uncounted
from trainables.records.objectives import MAXIMISE, Objective
from trainables.records.points import point_id, stored_format
from trainables.records.words import recipe

MISSES = 3
LOST, GAIN = "lost", "gain"
LATE = 0.8
"""The share of all epochs after which a search that still gains is one that was ended too early."""
SHOWN = {
    n.STORED_BYTES: ("bytes", lambda value: f"{value:,.0f}"),
    n.PARAMS: ("parameters", lambda value: f"{value:,.0f}"),
    n.MACS: ("MACs", lambda value: f"{value:,.0f}"),
    n.LATENCY: ("latency", lambda value: f"{value:.3g} ms"),
}
Record = Mapping[str, Any]
Excess = dict[str, float | None]
"""How far a network is beyond each limit; None where that wasn't measured."""
Shown = Mapping[str, tuple[str, Callable[[Any], str]]]


def _shown(study: Study) -> Shown:
    """What is told of a network, by column, with its words: the study's latencies by other targets too."""
    by = {one.column: one.label.partition(" at ")[0] for one in timed_by(study.objectives)}
    measure = {study.measure.column: (study.measure.name, partial(words.quality, study.measure, digits=2))}
    return measure | SHOWN | {column: (label, SHOWN[n.LATENCY][1]) for column, label in by.items() if column not in SHOWN}


def limits_of(study: Study, given: Mapping[str, Any]) -> Limits:
    """The limits ``given`` over those of the study file; InputError if they can't be, or there are none.

    Of what the study doesn't measure there can be no limit.
    """
    limits = _read({name: value for name, value in given.items() if value is not None}, study).over(study.limits)
    if not limits.given:
        raise n.InputError("limits: none are given; name some, such as --max-drop 0.5 --max-bytes 200k")
    for name in limits.given:
        column = column_of(name, study.measure)
        if column not in study.pruned or study.pruned[column].isna().all():
            timed = [one.name for one in timed_by(study.objectives) if study.pruned[one.column].notna().any()]
            label = _shown(study)[column][0] if column in _shown(study) else f"latency there (only {', '.join(timed)})"
            raise n.InputError(
                f"{_flag(name)}: no network of {study.name} has a {label} measured; add it to the "
                "study's objectives and run it again, or leave the limit out"
            )
    return limits


def _read(raw: Mapping[str, Any], study: Study) -> Limits:
    try:
        limits = Limits.model_validate(raw)
        limits.check(study.measure)
        return limits
    except ValidationError as error:
        detail = error.errors()[0]
        told = detail["msg"].removeprefix("Value error, ")
        if not detail["loc"]:
            raise n.InputError(f"limits: {told}") from None
        raise n.InputError(f"{_flag(str(detail['loc'][0]))}: {detail['input']!r} cannot be used: {told}") from None
    except ValueError as error:
        name, _, told = str(error).partition(": ")
        raise n.InputError(f"{_flag(name)}: {raw[name]!r} cannot be used: {told}") from None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-').replace('.', ' ', 1)}"


def answer(study: Study, limits: Limits) -> list[str]:
    """The answer, in lines: the best network within all limits and how to export it, or the nearest misses."""
    rows = records(study.pruned)
    found = [(row, _excess(row, limits, study)) for row in rows]
    inside = [row for row, excess in found if _inside(excess)]
    lines = [f"Limits: {_told(study, limits)}.", *_moved(study, limits)]
    if not inside:
        return [*lines, *_misses(study, limits, found), *_chances(study, limits, found)]
    best, why = _best(inside, study, limits)
    lines += [f"{why} of {len(inside)} networks within all limits:", *_described(best, study)]
    return [*lines, *trust(study, best, lambda: _by_luck(study, limits, found)), f"  {_export(study, best)}"]


def _moved(study: Study, limits: Limits) -> Iterator[str]:
    """That more may be lost than the hypervolume counts with, if it may."""
    measure, near, far = study.measure, study.accuracy_drop, moved_drop(study.accuracy_drop, limits, study.measure)
    if far > near:
        yield (
            f"The hypervolume's reference moves from {measure.told_drop(near)} worse than dense to "
            f"{measure.told_drop(far)}, as max_drop allows it. Set limits.max_drop in the study to search so far."
        )
    if told := uncounted(limits, records(study.dense)[0], measure, far):
        yield f"Note: {told}."


def _by_luck(study: Study, limits: Limits, found: Sequence[tuple[Record, Excess]]) -> float | None:
    """How much having chosen within these limits is expected to flatter what was chosen (``optimism.flattery``)."""
    fits = [_inside({name: value for name, value in excess.items() if name not in OF_QUALITY}) for _, excess in found]
    rows = study.pruned.reset_index(drop=True)[fits]
    chosen = records(rows)
    lost = [_short(row, limits, study) for row in chosen]
    if set(limits.given) - set(OF_QUALITY):
        return of_promise(rows.assign(**{LOST: lost}), study, LOST, None, 0.0)
    gains = [_gain(row, study) for row in chosen]
    return of_promise(rows.assign(**{LOST: lost, GAIN: gains}), study, LOST, GAIN, 0.0)


def _short(row: Record, limits: Limits, study: Study) -> float:
    """How much worse than its limit a network's measure is; -inf where it has none."""
    floors = [one.value for one in _bounds(row, limits, study) if one.name in OF_QUALITY]
    return max((sign(study.measure) * (floor - row[study.measure.column]) for floor in floors), default=-math.inf)


def _inside(excess: Excess) -> bool:
    return all(value is not None and value <= 0 for value in excess.values())


def _excess(row: Record, limits: Limits, study: Study) -> Excess:
    return {bound.name: bound.excess(row) for bound in _bounds(row, limits, study)}


def _bounds(row: Record, limits: Limits, study: Study) -> list[Bound]:
    return bounds(limits, _dense(row, study), study.measure)


def _dense(row: Record, study: Study) -> Record:
    """The dense network of a point's seed; its latency as it was timed beside the point."""
    dense = {str(key): value for key, value in study.dense[study.dense[n.SEED] == row[n.SEED]].iloc[0].items()}
    times = {column: row.get(beside) for one in timed_by(study.objectives) for column, beside in one.dense_columns.items()}
    return dense | {column: time for column, time in times.items() if time is not None and not pd.isna(time)}


def _best(inside: Sequence[Record], study: Study, limits: Limits) -> tuple[Record, str]:
    """Within limits of size the best on the measure; with a limit of that alone the smallest on the main objective."""
    measure = study.measure
    if set(limits.given) - set(OF_QUALITY):
        return max(inside, key=lambda row: _worth(row, study)), f"The best {measure.name}"
    one = _main(study)
    measured = [row for row in inside if not pd.isna(row[one.column])] or list(inside)
    return max(measured, key=lambda row: (_gain(row, study), _worth(row, study))), f"The largest {one.noun}"


def _worth(row: Record, study: Study) -> float:
    return sign(study.measure) * float(row[study.measure.column])


def _gain(row: Record, study: Study) -> float:
    """On the main objective; NaN where that wasn't measured."""
    one = _main(study)
    return (
        math.nan if pd.isna(row[one.column]) else one.gain(float(row[one.column]), one.dense_value(row, _dense(row, study)))
    )


def _main(study: Study) -> Objective:
    return next(one for one in study.objectives if not one.quality)


def _told(study: Study, limits: Limits) -> str:
    """Every limit as a number, beside the dense network of the first seed."""
    dense, shown = records(study.dense)[0], _shown(study)
    return ", ".join(
        f"{shown[one.column][0]} {'at least' if one.at_least else 'at most'} {shown[one.column][1](one.value)}"
        for one in bounds(limits, dense, study.measure)
    )


def _described(row: Record, study: Study) -> Iterator[str]:
    shown = _shown(study).items()
    numbers = [f"{label} {show(row[column])}" for column, (label, show) in shown if not pd.isna(row[column])]
    measure = study.measure
    change = measure.told_change(row[measure.column] - _dense(row, study)[measure.column])
    yield f"  {point_id(row)}"
    yield f"  {', '.join(numbers)}; {words.times(row[n.COMPRESSION])} compression, {change} against dense"
    yield f"  {row[n.FAMILY]}: {recipe(row, study.retrainings)}"


def _export(study: Study, row: Record) -> str:
    suffix = "safetensors" if stored_format(row) == n.SAFETENSORS else "compact"
    return (
        f"python -m search export {shlex.quote(str(study.folder))} --point {point_id(row)} "
        f"--to {row[n.STEP_ID][:12]}.{suffix}"
    )


def _misses(study: Study, limits: Limits, found: Sequence[tuple[Record, Excess]]) -> Iterator[str]:
    near = sorted(found, key=lambda pair: sum(1.0 if value is None else max(value, 0.0) for value in pair[1].values()))
    yield f"No network of {len(found)} is within all limits. The nearest:"
    for row, excess in near[:MISSES]:
        yield from _described(row, study)
        beyond = [one for one in _bounds(row, limits, study) if (value := excess[one.name]) is None or value > 0]
        yield f"  lacks: {', '.join(_lacks(study, one, excess[one.name]) for one in beyond)}"


def _lacks(study: Study, bound: Bound, excess: float | None) -> str:
    label = _shown(study)[bound.column][0]
    if excess is None:
        return f"a {label} that was measured"
    own, of_name = study.measure.told_loss(excess * bound.size), f" of {study.measure.name}"  # which the label says
    far = own.removesuffix(of_name) if bound.name in OF_QUALITY else f"{100 * excess:.3g}%"
    return f"{label} {far} {'short of' if bound.at_least else 'above'} the limit"


def _chances(study: Study, limits: Limits, found: Sequence[tuple[Record, Excess]]) -> Iterator[str]:
    """Whether more search could help: what each limit alone was met by, and whether the search was still gaining."""
    unmet = [name for name in limits.given if not any(each[name] is not None and each[name] <= 0 for _, each in found)]  # type: ignore[operator]
    for name in unmet:
        column = column_of(name, study.measure)
        label, show = _shown(study)[column]
        values, up = study.pruned[column].dropna(), name in OF_QUALITY and study.measure.direction == MAXIMISE
        yield f"The {'most' if up else 'least'} {label} of any network is {show(values.max() if up else values.min())}."
    if unmet:
        yield "More search helps only if the space has more: further steps, larger step ratios, or another family."
    else:
        yield "Each limit is met by some network, and never all by one."
    drop = moved_drop(study.accuracy_drop, limits, study.measure)
    history = hypervolume_history(study.points, study.objectives, study.dense, drop)
    last, whole = history[n.EPOCHS].iloc[-1], history[HYPERVOLUME].iloc[-1]
    before = history[history[n.EPOCHS] <= LATE * last][HYPERVOLUME].iloc[-1]
    if whole > 0:
        gained = 1 - before / whole
        more = "it was still gaining, and more trials may help" if gained >= 0.01 else "more trials of the kind help little"
        yield f"The last fifth of the search's epochs gave {gained:.1%} of its hypervolume: {more}."
