"""The test accuracies that ``confirmed.jsonl`` holds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import trainables.records.names as n
from trainables.records.jsonl import read_rows
from trainables.records.points import point_id, share_problem


class Confirmed(NamedTuple):
    """A network that was opened."""

    accuracy: float
    """on the test split"""
    other: bool
    """whether it was trained again and came out different from the one that its point tells of"""


def load_confirmed(folder: Path) -> dict[str, Confirmed]:
    """A point's name -> what was opened; empty where the test split has not been."""
    path = folder / n.CONFIRMED_FILE
    found: dict[str, Confirmed] = {}
    for number, record in read_rows(path):
        if not isinstance(record.get(n.STEP_ID), str):
            raise n.InputError(f"{path}, line {number}: {n.STEP_ID} is missing; repair or remove the line")
        other = record.get(n.RETRAINED_ACCURACY) is not None
        for column in (n.TEST_ACCURACY, *([n.RETRAINED_ACCURACY] if other else [])):
            if problem := share_problem(record.get(column)):
                raise n.InputError(f"{path}, line {number}: {column} {problem}; repair or remove the line")
        found[point_id(record)] = Confirmed(float(record[n.TEST_ACCURACY]), other)
    return found
