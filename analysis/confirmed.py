"""The test accuracies that ``confirmed.jsonl`` holds."""

from __future__ import annotations

from pathlib import Path

import trainables.names as n
from analysis.jsonl import read_records
from trainables.points import share_problem


def load_confirmed(folder: Path) -> dict[str, float]:
    """step_id -> test accuracy; empty where the test split has not been opened."""
    path = folder / n.CONFIRMED_FILE
    found: dict[str, float] = {}
    for number, record in read_records(path) if path.is_file() else ():
        if not isinstance(record.get(n.STEP_ID), str):
            raise n.InputError(f"{path}, line {number}: {n.STEP_ID} is missing; repair or remove the line")
        if problem := share_problem(record.get(n.TEST_ACCURACY)):
            raise n.InputError(f"{path}, line {number}: {n.TEST_ACCURACY} {problem}; repair or remove the line")
        found[record[n.STEP_ID]] = float(record[n.TEST_ACCURACY])
    return found
