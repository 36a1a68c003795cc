"""What ``confirm`` found: test values in ``confirmed.jsonl``, and the front's members again on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import trainables.records.names as n
from analysis.load import Study
from analysis.pareto import front
from trainables.records.confirmation import Member, Optimism, Terms, lost_beside_dense, members_again, optimism
from trainables.records.jsonl import read_rows
from trainables.records.objectives import ACCURACY, Quality
from trainables.records.points import LARGEST, point_id, quality_problem


class Confirmed(NamedTuple):
    """A network that was opened."""

    value: float
    """of the measure, on the test split"""
    other: bool
    """whether it was trained again and came out different from the one that its point tells of"""
    error: float | None = None
    """the standard error of its difference to the dense network, on the same images; None where it isn't known"""


def load_confirmed(folder: Path, measure: Quality = ACCURACY) -> dict[str, Confirmed]:
    """A point's name -> what was opened; empty where the test split has not been."""
    path = folder / n.CONFIRMED_FILE
    found: dict[str, Confirmed] = {}
    for number, record in read_rows(path):
        if not isinstance(record.get(n.STEP_ID), str):
            raise n.InputError(f"{path}, line {number}: {n.STEP_ID} is missing; repair or remove the line")
        other = record.get(measure.retrained) is not None
        for column in (measure.test, *([measure.retrained] if other else [])):
            if problem := quality_problem(measure, record.get(column)):
                raise n.InputError(f"{path}, line {number}: {column} {problem}; repair or remove the line")
        error = record.get(measure.test_paired)
        if error is not None and (not isinstance(error, int | float) or not 0 <= error < LARGEST):
            raise n.InputError(
                f"{path}, line {number}: {measure.test_paired} is no standard error; repair or remove the line"
            )
        found[point_id(record)] = Confirmed(float(record[measure.test]), other, error)
    return found


def load_again(study: Study) -> dict[str, Member]:
    """The front's members on fresh seeds, by the point's name; empty where ``confirm --seeds`` has not run."""
    best = front(study.pruned, study.objectives, study.dense, study.dense_forms)
    return {one.point: one for one in members_again(study.folder, records(best), _terms(study))}


def optimism_of(study: Study, rows: pd.DataFrame, confirmed: Mapping[str, Confirmed]) -> Optimism | None:
    """By how much validation flattered those of the rows that were opened."""

    def tested(some: pd.DataFrame) -> list[dict[str, Any]]:
        known = ((row, confirmed.get(point_id(row))) for row in records(some))
        return [{**row, study.measure.test: one.value} for row, one in known if one]

    return optimism(tested(rows), tested(study.dense), _terms(study))


def _terms(study: Study) -> Terms:
    return Terms(study.objectives, study.measure, study.accuracy_drop)


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def trust(study: Study, row: Mapping[str, Any], by_luck: Callable[[], float | None]) -> Iterator[str]:
    """What the test images said of a network; or by how much having chosen it is expected to flatter it (``by_luck``)."""
    measure, confirmed, again = study.measure, load_confirmed(study.folder, study.measure), load_again(study)
    roots = study.dense.set_index(n.SEED)[n.STEP_ID]
    tested, root = confirmed.get(point_id(row)), confirmed.get(roots.get(row[n.SEED], ""))
    if tested is None:
        luck = by_luck()
        about = f": expect about {measure.told_loss(luck)} less on fresh data" if luck and luck > 0 else ""
        yield f"  chosen on validation data among {len(study.pruned):,} networks, and so optimistic{about}"
    else:
        worse = None if root is None else _terms(study).worse(tested.value, root.value)
        lost = "" if worse is None else f", against dense it {lost_beside_dense(worse, tested.error, measure)}"
        yield f"  confirmed on the test data: {measure.told(tested.value)}{lost}"
    if (member := again.get(point_id(row))) is not None:
        yield f"  {member.told(measure)}"
