"""The driver's own files, points.jsonl and trials.jsonl, and what they add up to so far."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from trainables import names as n
from trainables.names import InputError, gains, reference
from trainables.store import to_json, write_atomically

Row = dict[str, Any]


class Ledger:
    """Points and trials of one study: appended to as they come, read back when the study is run again."""

    def __init__(self, folder: Path, objectives: Sequence[str], accuracy_drop: float) -> None:
        self._folder = folder
        self._objectives = tuple(objectives)
        self._accuracy_drop = accuracy_drop
        self.trials: list[Row] = list(read_rows(folder / n.TRIALS_FILE))
        self.points: list[Row] = []
        self.dense: dict[int, Row] = {}
        self.epochs_computed = 0
        self.steps_computed = 0
        self.steps_found = 0
        self._seen: set[tuple[int | None, str]] = set()
        self._totals: dict[int, int] = {}
        self._front: dict[str, list[float]] = {}
        self._history: list[tuple[int, float]] = []
        for row in read_rows(folder / n.POINTS_FILE):
            self._count(row)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Ledger:
        return self  # Tune copies its callbacks; the files stay the same

    def add_dense(self, point: Row) -> None:
        """Put a dense network on record, once."""
        self.add({**point, n.TRIAL: None})

    def add(self, point: Mapping[str, Any]) -> None:
        """Append one step of one trial; a step that a resumed trial reports again is not written twice."""
        row = {name: point.get(name) for name in n.POINT_COLUMNS}
        if (row[n.TRIAL], row[n.STEP_ID]) not in self._seen:
            append(self._folder / n.POINTS_FILE, row)
            self._count(row)

    def add_trial(self, trial: int, state: str, schedule: Mapping[str, Any], reason: str | None = None) -> None:
        """Append how a trial ended."""
        row = {n.TRIAL: trial, n.STATE: state, n.REASON: reason, n.SCHEDULE: dict(schedule)}
        self.trials.append(row)
        append(self._folder / n.TRIALS_FILE, row)

    def rewrite(self, columns: Mapping[str, Mapping[str, Any]]) -> None:
        """Fill in columns of points by step id (latencies, which are measured after the trials)."""
        for row in self.points:
            row.update(columns.get(row[n.STEP_ID], {}))
        write_atomically(self._folder / n.POINTS_FILE, b"".join(to_json(row) for row in self.points))

    def _count(self, row: Row) -> None:
        self.points.append(row)
        self._seen.add((row[n.TRIAL], row[n.STEP_ID]))
        if row[n.TRIAL] is None:
            self.dense[row[n.SEED]] = row
            return
        self.epochs_computed += row[n.EPOCHS]
        self.steps_found += bool(row[n.REUSED])
        self.steps_computed += not row[n.REUSED]
        self._totals[row[n.TRIAL]] = row[n.TOTAL_EPOCHS]
        self._update_front(row)
        if row[n.EPOCHS]:
            self._history.append((self.epochs_computed, self.hypervolume))

    def _update_front(self, row: Row) -> None:
        self._front[row[n.STEP_ID]] = self.above_reference(row)
        ids, values = list(self._front), np.array(list(self._front.values()))
        # The dense network competes, because what it beats is no pruning worth having; it is never listed.
        unpruned = [[self._accuracy_drop if name == "accuracy" else 0.0 for name in self._objectives]]
        keep = moocore.is_nondominated(np.vstack([values, unpruned]), maximise=True)[:-1]
        self._front = {step_id: self._front[step_id] for step_id, kept in zip(ids, keep, strict=True) if kept}

    @property
    def reference(self) -> list[float] | None:
        """The hypervolume's reference in the gains of seed 0; None before its dense network is on record."""
        return self.reference_of(0) if 0 in self.dense else None

    def reference_of(self, seed: int) -> list[float]:
        """The hypervolume's reference in the gains of a seed whose dense network is on record."""
        return reference(self.dense[seed], self._objectives, self._accuracy_drop)

    def above_reference(self, row: Row) -> list[float]:
        """A point's gains above the reference: accuracies of different seeds relative to their own dense network's."""
        told = gains(row, self.dense[row[n.SEED]], self._objectives)
        return [gain - origin for gain, origin in zip(told, self.reference_of(row[n.SEED]), strict=True)]

    @property
    def front(self) -> list[str]:
        """The addresses of the steps that no other step beats on every objective."""
        return list(self._front)

    @property
    def hypervolume(self) -> float:
        """Hypervolume of the front above the fixed reference."""
        values = np.array([value for value in self._front.values() if min(value) > 0])
        if not len(values):
            return 0.0
        return float(moocore.hypervolume(values, ref=[0.0] * len(self._objectives), maximise=True))

    @property
    def epochs_saved(self) -> int:
        """What the trials' schedules would have cost one by one, less what was trained."""
        return max(0, sum(self._totals.values()) - self.epochs_computed)

    def growth(self, epochs: int) -> float:
        """By what share the hypervolume grew over the last so many computed epochs; infinite before there are as many."""
        since = bisect.bisect_right(self._history, (self.epochs_computed - epochs, math.inf)) - 1
        if since < 0:
            return math.inf
        before, now = self._history[since][1], self._history[-1][1]
        return now / before - 1 if before > 0 else math.inf if now > 0 else 0.0

    @property
    def failed(self) -> int:
        """Trials that failed."""
        return sum(row[n.STATE] == n.FAILED for row in self.trials)

    @property
    def stopped(self) -> int:
        """Trials that were ended before their last step."""
        return sum(row[n.STATE] == n.STOPPED for row in self.trials)

    def front_rows(self) -> list[Row]:
        """One row for each member of the front, smallest reduction first."""
        by_id = {row[n.STEP_ID]: row for row in self.points if row[n.STEP] and row[n.STEP_ID] in self._front}
        return sorted(by_id.values(), key=lambda row: self._front[row[n.STEP_ID]][-1])


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON-lines file; a last line that a crash cut off is removed from the file."""
    if not path.exists():
        return
    drop_torn_line(path)
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            raise InputError(
                f"{path}, line {number}: is not JSON; remove the line, its steps are found again in the store"
            ) from None


def drop_torn_line(path: Path) -> None:
    """Remove from the file a last line that a crash cut off, or the next line would be appended to its rest."""
    whole, end, rest = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
    if rest:
        write_atomically(path, whole + end)


def append(path: Path, row: Row) -> None:
    """Add one row to a JSON-lines file."""
    with path.open("ab") as file:
        file.write(to_json(row))
