"""What a reader asks first, answered from the numbers: what to take, what to avoid, and how far to trust it.

A front chosen on validation data looks better there than it is. So a network whose test accuracy is known is promised by
that, and what rests on validation data alone is marked as optimistic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.columns import point_ids
from analysis.confirmed import Confirmed
from analysis.effects.sentences import validation_images
from analysis.figures import X, on_axis
from analysis.load import Study
from analysis.page.widths import FASTER, slower
from analysis.pareto import HYPERVOLUME, ROUNDING, hypervolume
from analysis.summary import POINTS, by_importance
from trainables.records.objectives import ACCURACY, COMPRESSION, LATENCY, Objective
from trainables.records.points import point_id
from trainables.records.words import recipe

SMALLEST, FASTEST = "Smallest file within half a point", "Fastest within a point"
LOST, TESTED_LOST, TESTED = "lost", "tested_lost", "tested"
"""What is added to a network's row: accuracy below the dense network's of its seed, on either split; test accuracy."""
FEWEST = 5
"""Networks of an importance that say something about it."""


@dataclass(frozen=True)
class Answers:
    """Each a heading and sentences; ``chosen`` are the points that they name."""

    told: Mapping[str, str]
    avoid: tuple[str, ...]
    trust: tuple[str, ...]
    chosen: tuple[str, ...]


def answers(study: Study, confirmed: Mapping[str, Confirmed]) -> Answers:
    """The paragraph at the head of the page."""
    rows = judged(study, confirmed)
    smallest, by_size = _promise(study, rows, COMPRESSION, 0.005, _smaller, "smaller")
    told, chosen = {SMALLEST: by_size}, [smallest]
    timed = _timed(study)
    if len(on_axis(study.pruned, study.dense, timed)):
        fastest, by_time = _promise(study, rows, timed, 0.01, partial(_faster, timed), "measurably faster")
        told, chosen = told | {FASTEST: by_time}, [*chosen, fastest]
    else:
        told[FASTEST] = "Latency was not measured in this study; fewer multiply-accumulates need not be faster."
    ids = tuple(dict.fromkeys(one for one in chosen if one))
    return Answers(told, tuple(_avoid(study, rows, smallest)), tuple(_trust(study, rows, confirmed)), ids)


def judged(study: Study, confirmed: Mapping[str, Confirmed]) -> pd.DataFrame:
    """The pruned networks with what they lost against the dense network of their seed."""
    dense = study.dense.set_index(n.SEED)
    test = {seed: confirmed[one].accuracy for seed, one in dense[n.STEP_ID].items() if one in confirmed}
    tested = point_ids(study.pruned).map(lambda one: confirmed[one].accuracy if one in confirmed else np.nan)
    lost = study.pruned[n.SEED].map(dense[n.ACCURACY]) - study.pruned[n.ACCURACY]
    tested_lost = study.pruned[n.SEED].map(lambda seed: test.get(seed, np.nan)) - tested
    return study.pruned.assign(**{LOST: lost, TESTED: tested, TESTED_LOST: tested_lost.astype(float)})


def _promise(
    study: Study, rows: pd.DataFrame, axis: Objective, drop: float, say: Callable[[pd.Series], str], better: str
) -> tuple[str | None, str]:
    """The point that is best on an axis within a drop of accuracy, on test data where it is known, and the sentences."""
    measured = on_axis(rows, study.dense, axis)
    seemed, kept = _best(measured, LOST, drop), _best(measured, TESTED_LOST, drop)
    if seemed is None and kept is None:
        return None, f"None: no network of this study is within {ACCURACY.told_drop(drop)} of the dense one."
    if kept is not None and (kept[X] >= FASTER or seemed is None):
        told = f"{say(kept)}, confirmed on the test data. {_described(study, kept)}"
        return _id(kept), told + _beyond(seemed, kept, say)
    assert seemed is not None
    if seemed[X] < FASTER:
        return None, f"None: no network within {ACCURACY.told_drop(drop)} of the dense one is {better} than it."
    return _id(seemed), f"{say(seemed)} on validation data: optimistic{_by_about(study)}. {_described(study, seemed)}"


def _beyond(seemed: pd.Series | None, kept: pd.Series, say: Callable[[pd.Series], str]) -> str:
    """What validation data alone would have promised."""
    if seemed is None or seemed[X] <= kept[X] * (1 + ROUNDING):
        return ""
    lost = seemed[TESTED_LOST]
    truth = "was not confirmed" if pd.isna(lost) else f"{_lost(lost)} on the test data"
    return f" Validation data alone would have promised {say(seemed)}; that network (step id {_id(seemed)}) {truth}."


def _best(measured: pd.DataFrame, lost: str, drop: float) -> pd.Series | None:
    near = measured[measured[lost] <= drop + ROUNDING]
    return None if near.empty else near.sort_values([X, n.ACCURACY], ascending=False, kind="stable").iloc[0]


def _described(study: Study, row: pd.Series) -> str:
    tested = "" if pd.isna(row[TESTED]) else f", {words.percent(row[TESTED], 2)} test"
    form = "" if row[n.FORM] == n.FP32 else f", stored as {row[n.FORM]}"
    how = recipe(row.to_dict(), study.retrainings)
    accuracy = f"{words.percent(row[n.ACCURACY], 2)} validation{tested} accuracy"
    return f"{accuracy}; {row[n.FAMILY]}: {how}{form}; step id {_id(row)}."


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
        far, drop = words.times(inside[n.COMPRESSION].max()), ACCURACY.told_drop(study.accuracy_drop)
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
        yield (
            f"One cut to {words.times(compression)} or more: the best network {_lost(once.min())}, where the best of "
            f"several cuts {_lost(more.min())}."
        )


def _trust(study: Study, rows: pd.DataFrame, confirmed: Mapping[str, Confirmed]) -> Iterator[str]:
    opened = rows[rows[TESTED].notna()]
    if error := _error(study):
        yield (
            f"The front was chosen among {len(rows):,} networks on {validation_images(study.provenance):,} validation "
            f"images, where an accuracy has a standard error of {_points(error)}: they are optimistic by about that "
            "much on validation data."
        )
    else:
        yield f"The front was chosen among {len(rows):,} networks on validation data, where it looks better than it is."
    if opened.empty:
        yield "None of it is confirmed: python -m search confirm measures the front on the test data, once."
        return
    yield f"Confirmed on the test data: {_measured(study, opened, confirmed)}"
    if others := sum(confirmed[one].other for one in point_ids(opened)):
        yield f"{others} of them had to be trained again, and came out different from the networks of this page."


def _measured(study: Study, opened: pd.DataFrame, confirmed: Mapping[str, Confirmed]) -> str:
    roots = study.dense[study.dense[n.STEP_ID].isin(list(confirmed))]
    pruned = float((opened[n.ACCURACY] - opened[TESTED]).mean())
    text = f"{len(opened):,} pruned networks, which {_lost(pruned)} from validation to test data on average"
    if roots.empty:
        return f"{text}."
    tested = roots.assign(**{n.ACCURACY: [confirmed[one].accuracy for one in roots[n.STEP_ID]]})
    own = float((roots[n.ACCURACY] - tested[n.ACCURACY]).mean())
    opened = opened[opened[n.SEED].isin(roots[n.SEED])]
    before = hypervolume(opened, study.objectives, roots, study.accuracy_drop)
    after = hypervolume(opened.assign(**{n.ACCURACY: opened[TESTED]}), study.objectives, tested, study.accuracy_drop)
    return (
        f"{text}; the dense network {_lost(own)}, so choosing on validation data flattered them by "
        f"{_points(pruned - own)} beside it. Their hypervolume is {after:.3f} on the test data, where validation data told "
        f"{before:.3f}."
    )


def _error(study: Study) -> float | None:
    images = validation_images(study.provenance)
    return ACCURACY.noise(float(study.dense[n.ACCURACY].mean()), images) if images else None


def _by_about(study: Study) -> str:
    error = _error(study)
    return f" by about {_points(error)}, the standard error" if error else ""


def _points(share: float) -> str:
    return ACCURACY.told_drop(round(share, 4))


def _lost(share: float) -> str:
    return f"lost {_points(share)}" if share >= 0 else f"gained {_points(-share)}"


def _id(row: pd.Series) -> str:
    return point_id({str(key): value for key, value in row.items()})


def _timed(study: Study) -> Objective:
    """The latency that the study asks for, and PyTorch's where it asks for none."""
    return next((one for one in study.objectives if one.of_host), LATENCY)
