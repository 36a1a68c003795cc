"""The front of a study and its hypervolume.

A point's position is its excess: its gains over the reference of the dense network of its own seed (see
``trainables.records.objectives``). So every objective is maximised, the reference is the origin, and seeds can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

import trainables.records.names as n
from trainables.records.fronts import Floats, nondominated, volume
from trainables.records.objectives import (
    ACCURACY,
    LATENCY,
    LOG2,
    MAXIMISE,
    Objective,
    Quality,
    gains,
    objectives_of,
    reference,
)

Objectives = Sequence[str | Objective]
"""Objectives, of which ours may be given by name."""

# Columns of the tables made here; the other columns are those of the points.
HYPERVOLUME = "hypervolume"
ACCURACY_DROP = "accuracy_drop"

GAINED, LOST = "gained", "lost"

ROUNDING = 1e-9


def timed_by(objectives: Sequence[Objective]) -> list[Objective]:
    """The latencies that points may have: by PyTorch, and by the targets that a study's objectives name."""
    return list(dict.fromkeys([LATENCY, *(one for one in objectives if one.of_host)]))


def measured(points: pd.DataFrame, objectives: Objectives, dense: pd.DataFrame) -> pd.DataFrame:
    """The points that, like the dense network of their seed, have a value on every objective."""
    anchors = dense[_known(dense, objectives)]
    return points[_known(points, objectives) & points[n.SEED].isin(anchors[n.SEED])]


def _known(rows: pd.DataFrame, objectives: Objectives) -> pd.Series:
    known = pd.Series(True, rows.index)
    for one in objectives_of(objectives):  # of 0 there is no logarithm
        known &= rows[one.column].gt(0) if one.scale == LOG2 else rows[one.column].notna()
    return known


def excess(
    points: pd.DataFrame,
    objectives: Objectives,
    dense: pd.DataFrame,
    accuracy_drop: float = n.REFERENCE_ACCURACY_DROP,
) -> Floats:
    """Gains over the reference, one row a point and one column an objective; the points must be measured."""
    anchors = {record[n.SEED]: record for record in _records(dense)}
    rows = []
    for point in _records(points):
        anchor = anchors[point[n.SEED]]
        origin = reference(anchor, objectives, accuracy_drop)
        rows.append(np.subtract(gains(point, anchor, objectives), origin))
    return np.array(rows, dtype=np.float64).reshape(-1, len(objectives))


def front(
    points: pd.DataFrame, objectives: Objectives, dense: pd.DataFrame, competing: pd.DataFrame | None = None,
    accuracy_drop: float | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The pruned networks that no other and no dense network beats, by rising gain on the second objective.

    The dense networks are ``competing`` in their stored forms; without them, as they are in ``dense``.
    Of points equal on every objective the first is kept; points not measured on every objective are left out, and with an
    ``accuracy_drop`` those below the hypervolume's reference, which count for nothing.
    """
    unpruned = dense if competing is None else competing
    rivals = measured(pd.concat([unpruned, points], ignore_index=True), objectives, dense)
    if rivals.empty:
        return rivals
    values = excess(rivals, objectives, dense)
    best = nondominated(values)
    # A stable order, so that the table is the same on every run.
    order = np.argsort(values[:, 1], kind="stable")
    if accuracy_drop is not None:
        best &= (excess(rivals, objectives, dense, accuracy_drop) >= -ROUNDING).all(axis=1)
    members: pd.DataFrame = rivals.iloc[order[best[order]]]
    return members[members[n.FAMILY] != n.DENSE].reset_index(drop=True)


def hypervolume(
    points: pd.DataFrame,
    objectives: Objectives,
    dense: pd.DataFrame,
    accuracy_drop: float = n.REFERENCE_ACCURACY_DROP,
) -> float:
    """What the points dominate beyond the fixed reference; points beyond the reference add nothing."""
    return volume(excess(measured(points, objectives, dense), objectives, dense, accuracy_drop))


def hypervolume_history(
    points: pd.DataFrame,
    objectives: Objectives,
    dense: pd.DataFrame,
    accuracy_drop: float = n.REFERENCE_ACCURACY_DROP,
) -> pd.DataFrame:
    """Hypervolume after each new point against the epochs computed until then, in file order, from (0, 0).

    ``points`` are all lines of the study. Training the dense network is not counted: every search pays it alike.
    """
    pruned = points[points[n.FAMILY] != n.DENSE]
    # Summed before anything is left out: a step that was not measured, or is not new, has still been paid for.
    paid = pruned.assign(**{n.EPOCHS: pruned[n.EPOCHS].fillna(0).cumsum()})
    steps = measured(paid.drop_duplicates([n.STEP_ID, n.FORM]), objectives, dense)
    volumes = _running_volumes(excess(steps, objectives, dense, accuracy_drop))
    return pd.DataFrame({n.EPOCHS: [0.0, *steps[n.EPOCHS]], HYPERVOLUME: [0.0, *volumes]})


def best_at_drops(
    points: pd.DataFrame, dense: pd.DataFrame, drops: Sequence[float], by: str = n.FAMILY, measure: Quality = ACCURACY
) -> pd.DataFrame:
    """For each family (or other column ``by``) and allowed drop of accuracy (0.01 = one point), the most compressed point.

    Families without a point that keeps the accuracy have no row; of equal compressions the more accurate one wins.
    """
    gained = sign(measure) * points[measure.column]
    lost = sign(measure) * points[n.SEED].map(dense.set_index(n.SEED)[measure.column]) - gained
    # Differences of floats are off in the last digits; a network at the limit keeps it.
    ranked = points.assign(**{GAINED: gained, LOST: lost}).sort_values(
        [n.COMPRESSION, GAINED], ascending=False, kind="stable"
    )
    kept = pd.concat([ranked[ranked[LOST] <= drop + ROUNDING].assign(**{ACCURACY_DROP: drop}) for drop in drops])
    best = kept.drop(columns=[GAINED, LOST]).drop_duplicates([ACCURACY_DROP, by])
    return best.sort_values([ACCURACY_DROP, by], ascending=[True, False]).reset_index(drop=True)


def sign(measure: Quality) -> int:
    """1, or -1 where less of the measure is better."""
    return 1 if measure.direction == MAXIMISE else -1


def _records(points: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(column): value for column, value in row.items()} for row in points.to_dict("records")]


def _running_volumes(values: Floats) -> list[float]:
    volumes, reached = [], 0.0
    # Only the front so far is carried along, so that long studies stay fast.
    best = values[:0]
    for value in values:
        if (value > 0).all():
            best = np.vstack([best, value])
            best = best[nondominated(best)]
            reached = volume(best)
        volumes.append(reached)
    return volumes
