"""The test accuracies that ``confirmed.jsonl`` holds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import trainables.records.names as n
from trainables.records.jsonl import read_rows
from trainables.records.objectives import ACCURACY, Quality
from trainables.records.points import point_id, quality_problem


class Confirmed(NamedTuple):
    """A network that was opened."""

    accuracy: float
    """on the test split"""
    other: bool
    """whether it was trained again and came out different from the one that its point tells of"""


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
        found[point_id(record)] = Confirmed(float(record[measure.test]), other)
    return found
