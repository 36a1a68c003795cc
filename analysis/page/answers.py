"""What a reader asks first, answered from the numbers: what to take, what to avoid, and how far to trust it.

A front chosen on validation data looks better there than it is. So a network whose test accuracy is known is promised by
that and by what its recipe reached on fresh seeds, where it ran on some; what rests on validation data alone is marked as
optimistic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis import optimism, words
from analysis.columns import point_ids
from analysis.confirmed import Confirmed, optimism_of
from analysis.effects.sentences import validation_images
from analysis.figures import X, on_axis
from analysis.load import Study
from analysis.page.widths import FASTER, slower
from analysis.pareto import HYPERVOLUME, ROUNDING, front, sign
from analysis.summary import POINTS, by_importance
from analysis.tables import drops_of
from trainables.records.confirmation import Member, lost_beside_dense, lost_or_gained
from trainables.records.objectives import COMPRESSION, LATENCY, Objective, Quality
from trainables.records.points import point_id
from trainables.records.words import recipe

SMALLEST, FASTEST = "Smallest file within", "Fastest within"
LOST, TESTED_LOST, TESTED, PROMISED_LOST, WORTH = "lost", "tested_lost", "tested", "promised_lost", "worth"
TESTED_ERROR = "tested_error"
"""What is added to a network's row: how much worse than the dense network of its seed it is, on either split; what the test
split said; the larger of what it lost there and what its recipe did on fresh seeds; its measure, more being better; and the
standard error of what it lost on the test split."""
Again = Mapping[str, Member]
FEWEST = 5
"""Networks of an importance that say something about it."""


@dataclass(frozen=True)
class Answers:
    """Each a heading and sentences; ``chosen`` are the points that they name."""

    told: Mapping[str, str]
    avoid: tuple[str, ...]
    trust: tuple[str, ...]
    chosen: tuple[str, ...]


def answers(study: Study, confirmed: Mapping[str, Confirmed], again: Again = MappingProxyType({})) -> Answers:
    """The paragraph at the head of the page; ``again`` are the front's members on fresh seeds, by their names."""
    rows = judged(study, confirmed, again)
    _, half, whole, _ = drops_of(study)  # half a point, and a point, of a share
    small, fast = (f"{what} {study.measure.told_drop(drop)}" for what, drop in ((SMALLEST, half), (FASTEST, whole)))
    smallest, by_size = _promise(study, rows, again, COMPRESSION, half, _smaller, "smaller")
    told, chosen = {small: by_size}, [smallest]
    timed = _timed(study)
    if len(on_axis(study.pruned, study.dense, timed)):
        fastest, by_time = _promise(study, rows, again, timed, whole, partial(_faster, timed), "measurably faster")
        told, chosen = told | {fast: by_time}, [*chosen, fastest]
    else:
        told[fast] = "Latency was not measured in this study; fewer multiply-accumulates need not be faster."
    ids = tuple(dict.fromkeys(one for one in chosen if one))
    return Answers(told, tuple(_avoid(study, rows, smallest)), tuple(_trust(study, rows, confirmed, again)), ids)


def judged(study: Study, confirmed: Mapping[str, Confirmed], again: Again) -> pd.DataFrame:
    """The pruned networks with what they lost against the dense network of their seed."""
    dense, up, column = study.dense.set_index(n.SEED), sign(study.measure), study.measure.column
    test = {seed: confirmed[one].value for seed, one in dense[n.STEP_ID].items() if one in confirmed}
    tested = point_ids(study.pruned).map(lambda one: confirmed[one].value if one in confirmed else np.nan)
    lost = up * (study.pruned[n.SEED].map(dense[column]) - study.pruned[column])
    tested_lost = up * (study.pruned[n.SEED].map(lambda seed: test.get(seed, np.nan)) - tested).astype(float)
    errors = point_ids(study.pruned).map(lambda one: confirmed[one].error if one in confirmed else None)
    columns = {LOST: lost, TESTED: tested, TESTED_LOST: tested_lost, WORTH: up * study.pruned[column]}
    found = study.pruned.assign(**columns, **{TESTED_ERROR: errors.astype(float)})
    anew = point_ids(study.pruned).map(lambda one: again[one].over_seeds("lost")[0] if one in again else np.nan)
    return found.assign(**{PROMISED_LOST: np.fmax(found[TESTED_LOST], anew.astype(float))})


def _promise(
    study: Study,
    rows: pd.DataFrame,
    again: Again,
    axis: Objective,
    drop: float,
    say: Callable[[pd.Series], str],
    better: str,
) -> tuple[str | None, str]:
    """The point that is best on an axis within a drop of the measure, on test data where it is known, and the sentences."""
    measured = on_axis(rows, study.dense, axis)
    seemed, kept = _best(measured, LOST, drop), _best(measured, PROMISED_LOST, drop)
    if seemed is None and kept is None:
        return None, f"None: every network of this study loses more than {study.measure.told_drop(drop)}."
    if kept is not None and (kept[X] >= FASTER or seemed is None):
        told = f"{say(kept)}, confirmed on the test data. {_described(study, kept)}"
        told += f" Against the dense network it {_beside_dense(kept, study.measure)} there."
        told += f" {again[_id(kept)].told(study.measure)}" if _id(kept) in again else ""
        return _id(kept), told + _beyond(study.measure, seemed, kept, again, say)
    assert seemed is not None
    if seemed[X] < FASTER:
        return None, f"None: no network that loses at most {study.measure.told_drop(drop)} is {better} than the dense one."
    by_luck = optimism.of_promise(measured, study, LOST, X, drop)
    told = f"{say(seemed)} on validation data: optimistic{_by_about(by_luck, study.measure)}. {_described(study, seemed)}"
    return _id(seemed), told + _truth(study.measure, seemed, again)


def _truth(measure: Quality, seemed: pd.Series, again: Again) -> str:
    """What became of a promise of validation data on the test data, where that is known."""
    if pd.isna(seemed[TESTED_LOST]):
        return ""
    member = again.get(_id(seemed))
    anew = f", and its recipe {lost_or_gained(member.over_seeds('lost')[0], measure)} on fresh seeds" if member else ""
    return f" It {_beside_dense(seemed, measure)} on the test data{anew}."


def _beside_dense(row: pd.Series, measure: Quality) -> str:
    error = None if pd.isna(row[TESTED_ERROR]) else float(row[TESTED_ERROR])
    return lost_beside_dense(float(row[TESTED_LOST]), error, measure)


def _beyond(
    measure: Quality, seemed: pd.Series | None, kept: pd.Series, again: Again, say: Callable[[pd.Series], str]
) -> str:
    """What validation data alone would have promised."""
    if seemed is None or seemed[X] <= kept[X] * (1 + ROUNDING):
        return ""
    truth = _truth(measure, seemed, again) or " It was not confirmed."
    return f" Validation data alone would have promised {say(seemed)} (step id {_id(seemed)}).{truth}"


def _best(measured: pd.DataFrame, lost: str, drop: float) -> pd.Series | None:
    near = measured[measured[lost] <= drop + ROUNDING]
    return None if near.empty else near.sort_values([X, WORTH], ascending=False, kind="stable").iloc[0]


def _described(study: Study, row: pd.Series) -> str:
    measure = study.measure
    tested = "" if pd.isna(row[TESTED]) else f", {measure.told(row[TESTED])} test"
    form = "" if row[n.FORM] == n.FP32 else f", stored as {row[n.FORM]}"
    how = recipe(row.to_dict(), study.retrainings)
    value = f"{measure.told(row[measure.column])} validation{tested} {measure.name}"
    return f"{value}; {row[n.FAMILY]}: {how}{form}; step id {_id(row)}."


def _smaller(row: pd.Series) -> str:
    return f"{words.times(row[X])} smaller ({words.size(row[n.STORED_BYTES])})"


def _faster(timed: Objective, row: pd.Series) -> str:
    where = timed.label.partition(" at ")[0].removeprefix("latency")
    return f"{words.times(row[X])} as fast ({words.number(row[timed.column])} ms{where} at batch 1)"


def _avoid(study: Study, rows: pd.DataFrame, smallest: str | None) -> Iterator[str]:
    yield from _no_better_than_random(study)
    if smallest is not None:
        yield from _one_cut(study, rows, float(rows[point_ids(rows) == smallest][n.COMPRESSION].iloc[0]))
    yield from slower(study, _timed(study))
    inside = rows[rows[LOST] < study.accuracy_drop]
    if len(inside) and len(beyond := rows[rows[n.COMPRESSION] > inside[n.COMPRESSION].max()]):
        far, drop = words.times(inside[n.COMPRESSION].max()), study.measure.told_drop(study.accuracy_drop)
        yield f"Compression beyond {far}: each of the {len(beyond)} networks there lost {drop} or more."


def _no_better_than_random(study: Study) -> Iterator[str]:
    table = by_importance(study)
    for family, part in table[table[POINTS] >= FEWEST].groupby(n.FAMILY):
        control = part[part[n.IMPORTANCE] == n.RANDOM]
        worse = part[(part[n.IMPORTANCE] != n.RANDOM) & part[HYPERVOLUME].le(control[HYPERVOLUME].max())]
        if len(worse):
            names = ", ".join(worse[n.IMPORTANCE])
            yield f"{str(family).capitalize()} pruning by {names}: no better here than random importance."


def _one_cut(study: Study, rows: pd.DataFrame, compression: float) -> Iterator[str]:
    """One cut, where several to the same compression keep more than noise can explain."""
    there = rows[rows[n.COMPRESSION] >= compression]
    once, more = there[there[n.STEP] == 1][LOST], there[there[n.STEP] > 1][LOST]
    if len(once) and len(more) and once.min() - more.min() > (_error(study) or 0.0):
        one_cut, several = (lost_or_gained(some.min(), study.measure) for some in (once, more))
        far = words.times(compression)
        yield f"One cut to {far} or more: the best network {one_cut}, where the best of several cuts {several}."


def _trust(study: Study, rows: pd.DataFrame, confirmed: Mapping[str, Confirmed], again: Again) -> Iterator[str]:
    best = front(study.pruned, study.objectives, study.dense, study.dense_forms, study.accuracy_drop)
    by_luck, images = optimism.of_front(study), validation_images(study.provenance)
    if by_luck and images:
        yield (
            f"The front was chosen among {len(rows):,} networks on {images:,} validation images: by their noise alone its "
            f"networks are expected to look {study.measure.told_loss(by_luck)} better there than they are."
        )
    else:
        yield f"The front was chosen among {len(rows):,} networks on validation data, where it looks better than it is."
    found = optimism_of(study, best, confirmed)
    if found is None:
        yield "None of it is confirmed: python -m search confirm measures the front on the test data, once."
        return
    yield f"Confirmed on the test data. {found.told(study.measure)}"
    if again:
        yield f"{len(again)} of them ran again on fresh seeds: see “What the test data said”."
    if others := sum(confirmed[one].other for one in point_ids(best) if one in confirmed):
        yield f"{others} of them had to be trained again, and came out different from the networks of this page."


def _error(study: Study) -> float | None:
    errors = optimism.errors_of(study.dense, study)
    return None if errors is None else float(errors.mean())


def _by_about(by_luck: float | None, measure: Quality) -> str:
    return f", by about {measure.told_loss(by_luck)} in expectation" if by_luck and by_luck > 0 else ""


def _id(row: pd.Series) -> str:
    return point_id({str(key): value for key, value in row.items()})


def _timed(study: Study) -> Objective:
    """The latency that the study asks for, and PyTorch's where it asks for none."""
    return next((one for one in study.objectives if one.of_host), LATENCY)
