"""What the trials came to, points.jsonl and trials.jsonl, and what it adds up to so far."""

from __future__ import annotations

import bisect
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.records.fronts import nondominated, volume
from trainables.records.jsonl import Row, read_rows
from trainables.records.objectives import ACCURACY, LOG2, Objective, Quality, columns_of, gains, objectives_of, reference
from trainables.records.points import REQUIRED, fault_of, format_of, point_id, stored_format
from trainables.records.untrusted import read
from trainables.storage.store import to_json

ROUNDING = 1e-9
REMEDY = "remove the line, its steps are found again in the store"


class Ledger:
    """Points and trials of one study: appended to as they come, read back when the study is run again.

    Of ``objectives``, ours may be given by name; ``measure`` is what quality is measured by, and ``accuracy_drop`` in its
    unit. Points of ``forms`` compete, in their format: what the file holds in
    another one stays there. Lines that a crash cut off are removed, unless it is only to be looked at (``mend``): another
    driver may be writing.
    """

    def __init__(
        self,
        folder: Path,
        objectives: Iterable[str | Objective],
        accuracy_drop: float,
        forms: Sequence[str] = (n.FP32,),
        *,
        measure: Quality = ACCURACY,
        mend: bool = True,
    ) -> None:
        self._folder = folder
        self.objectives, self.measure = objectives_of(objectives), measure
        self._columns = columns_of((measure, *self.objectives))
        self._accuracy_drop = accuracy_drop
        self._format = format_of(forms)
        self.trials: list[Row] = list(rows_of(folder / n.TRIALS_FILE, _trial_fault, mend=mend))
        self._ended = {row[n.TRIAL] for row in self.trials}
        self.failed = sum(row[n.STATE] == n.FAILED for row in self.trials)
        self.points: list[Row] = []
        self.dense: dict[int, Row] = {}
        """The dense network of each seed in its own file, which points are compared with."""
        self.dense_forms: list[Row] = []
        """The dense networks in stored forms, which compete."""
        self.epochs_computed = 0
        self.steps_computed = 0
        self.steps_found = 0
        self._seen: set[tuple[int | None, str, str]] = set()
        self._steps: set[tuple[int, str]] = set()
        self._totals: dict[int, int] = {}
        self._alone = 0
        self._front: dict[str, list[float]] = {}
        self._history: list[tuple[int, float]] = []
        for row in rows_of(folder / n.POINTS_FILE, self._point_fault, mend=mend):
            self._count({name: row.get(name) for name in self._columns})

    def __deepcopy__(self, _memo: dict[int, Any]) -> Ledger:
        return self  # Tune copies its callbacks; the files stay the same

    def add_dense(self, point: Row) -> None:
        """Put a dense network on record, once."""
        self.add({**point, n.TRIAL: None})

    def has(self, trial: int | None, step_id: str, forms: Iterable[str] = (n.FP32,)) -> bool:
        """Whether this step of this trial is on record in all of these forms."""
        names = ({n.STEP_ID: step_id, n.FORM: form} for form in forms)
        return all((trial, point_id(name), self._format) in self._seen for name in names)

    def add(self, *points: Mapping[str, Any]) -> None:
        """Append one step of one trial, in all its forms; what a resumed trial reports again is not written twice."""
        rows: list[Row] = [{name: point.get(name) for name in self._columns} for point in points]
        rows = [row for row in rows if _key(row) not in self._seen]
        if not rows:
            return
        append(self._folder / n.POINTS_FILE, *rows)
        for row in rows:
            self._count(row)

    def add_trial(self, trial: int, state: str, schedule: Mapping[str, Any], reason: str | None = None) -> None:
        """Append how a trial ended; what is on record already is not written twice."""
        if trial in self._ended:
            return
        done = sum(one == trial for one, _ in self._steps)
        row = {n.TRIAL: trial, n.STATE: state, n.STEP: done, n.REASON: reason, n.SCHEDULE: dict(schedule)}
        append(self._folder / n.TRIALS_FILE, row)
        self._ended.add(trial)
        self.trials.append(row)
        self.failed += state == n.FAILED

    def rewrite(self, columns: Mapping[str, Mapping[str, Any]], key: Callable[[Row], str] = itemgetter(n.STEP_ID)) -> None:
        """Fill in columns of points by step id, or another ``key``: what is measured after the trials, or anew."""
        for row in self.points:
            row.update(columns.get(key(row), {}))
        self._front = {}
        for row in self.points:
            if row[n.TRIAL] is not None:
                self._update_front(row)
        write_atomically(self._folder / n.POINTS_FILE, b"".join(to_json(row) for row in self.points))

    def _point_fault(self, row: Row) -> str | None:
        """Why a row of points.jsonl can't be counted, or None if it can."""
        if fault := fault_of(row, (*REQUIRED, n.EPOCHS, n.TOTAL_EPOCHS), self.objectives, self.measure):
            return fault
        if none := next((one.column for one in self.objectives if one.scale == LOG2 and row.get(one.column) == 0), None):
            return f"{none} is 0, and an objective"
        if row.get(n.TRIAL) is not None and row[n.SEED] not in self.dense:
            return f"the dense network of seed {row[n.SEED]} doesn't come before it"
        return None

    def _count(self, row: Row) -> None:
        self.points.append(row)
        self._seen.add(_key(row))
        if row[n.TRIAL] is None:
            if stored_format(row) == n.SAFETENSORS:
                self.dense[row[n.SEED]] = row
            else:
                self.dense_forms.append(row)
            return
        step = (row[n.TRIAL], row[n.STEP_ID])
        if step in self._steps:  # in another form, which costs nothing
            self._update_front(row)
            if self._history:
                self._history[-1] = (self.epochs_computed, self.hypervolume)
            return
        self._steps.add(step)
        self.epochs_computed += row[n.EPOCHS]
        self.steps_found += bool(row[n.REUSED])
        self.steps_computed += not row[n.REUSED]
        self._alone += row[n.TOTAL_EPOCHS] - self._totals.get(row[n.TRIAL], 0)
        self._totals[row[n.TRIAL]] = row[n.TOTAL_EPOCHS]
        self._update_front(row)
        if row[n.EPOCHS]:
            self._history.append((self.epochs_computed, self.hypervolume))

    def _update_front(self, row: Row) -> None:
        if not self.measured(row):
            return
        self._front[point_id(row)] = self.above_reference(row)
        # The dense network competes, because what it beats is no pruning worth having; it is never listed.
        unpruned = [[one.margin(self._accuracy_drop) for one in self.objectives]]
        unpruned += [self.above_reference(dense) for dense in self.dense_forms if self.measured(dense)]
        keep = nondominated([*self._front.values(), *unpruned])[: len(self._front)]
        self._front = {point: self._front[point] for point, kept in zip(list(self._front), keep, strict=True) if kept}

    @property
    def reference(self) -> list[float] | None:
        """The hypervolume's reference in the gains of seed 0; None before its dense network is on record."""
        return self.reference_of(0) if 0 in self.dense else None

    def reference_of(self, seed: int) -> list[float]:
        """The hypervolume's reference in the gains of a seed whose dense network is on record."""
        return reference(self.dense[seed], self.objectives, self._accuracy_drop)

    def above_reference(self, row: Row) -> list[float]:
        """A point's gains above the reference: accuracies of different seeds relative to their own dense network's."""
        return [gain - origin for gain, origin in zip(self.gains(row), self.reference_of(row[n.SEED]), strict=True)]

    def gains(self, row: Mapping[str, Any]) -> list[float]:
        """A point's gains on the study's objectives, each of which was ``measured``."""
        return gains(row, self.dense[row[n.SEED]], self.objectives)

    def measured(self, row: Mapping[str, Any]) -> bool:
        """Whether every objective was measured of a point and of its dense network: one may be named only later.

        Of a point in a file of another format than the study's, none was.
        """
        if row is not self.dense.get(row[n.SEED]) and stored_format(row) != self._format:
            return False
        needed = [one.column for one in self.objectives]
        return all(one[name] is not None for one in (row, self.dense[row[n.SEED]]) for name in needed)

    @property
    def front(self) -> list[str]:
        """The points, named by ``point_id``, that no other beats on every objective."""
        return list(self._front)

    @property
    def hypervolume(self) -> float:
        """Hypervolume of the front above the fixed reference."""
        return volume(list(self._front.values()))

    @property
    def epochs_saved(self) -> int:
        """What the trials' schedules would have cost one by one, less what was trained."""
        return max(0, self._alone - self.epochs_computed)

    def growth(self, epochs: int) -> float:
        """By what share the hypervolume grew over the last so many computed epochs; infinite before there are as many."""
        since = bisect.bisect_right(self._history, (self.epochs_computed - epochs, math.inf)) - 1
        if since < 0:
            return math.inf
        before, now = self._history[since][1], self._history[-1][1]
        return now / before - 1 if before > 0 else math.inf if now > 0 else 0.0

    @property
    def trial_numbers(self) -> set[int]:
        """The numbers of the trials on record."""
        return self._ended | {trial for trial, *_ in self._seen if trial is not None}

    @property
    def stopped(self) -> int:
        """Trials that were ended before their last step."""
        return sum(row[n.STATE] == n.STOPPED for row in self.trials)

    def looked_at(self, *, search: bool) -> list[Row]:
        """The points that conclusions rest on: of a search the dense networks and the front, of a sweep all."""
        return [*self.dense.values(), *self.dense_forms, *self.front_rows()] if search else self.points

    def family_fronts(self) -> list[Row]:
        """Of each family one row for each network that no other of that family beats on every objective.

        Every member of the front is among them.
        """
        families: defaultdict[str, dict[str, Row]] = defaultdict(dict)
        for row in self.points:
            if row[n.STEP] and self.measured(row):
                families[row[n.FAMILY]][point_id(row)] = row
        found = []
        for rows in families.values():
            keep = nondominated([self.above_reference(row) for row in rows.values()])
            found += [row for row, kept in zip(rows.values(), keep, strict=True) if kept]
        return found

    def members(self) -> list[Row]:
        """The rows of the front but for what lies below the hypervolume's reference, and so counts for nothing."""
        return [row for row in self.front_rows() if min(self.above_reference(row)) >= -ROUNDING]

    def front_rows(self) -> list[Row]:
        """One row for each member of the front, smallest reduction first."""
        ours = (row for row in self.points if row[n.STEP] and stored_format(row) == self._format)
        by_id = {point_id(row): row for row in ours if point_id(row) in self._front}
        return sorted(by_id.values(), key=lambda row: self._front[point_id(row)][-1])


def _key(row: Row) -> tuple[int | None, str, str]:
    return row[n.TRIAL], point_id(row), stored_format(row)


def _trial_fault(row: Row) -> str | None:
    whole = type(row.get(n.TRIAL)) is int and isinstance(row.get(n.SCHEDULE), dict)
    whole = whole and row.get(n.STATE) in (n.COMPLETE, n.FAILED, n.STOPPED)
    return None if whole else "is no trial with its number, state and schedule"


def rows_of(path: Path, fault_of_row: Callable[[Row], str | None] = lambda _: None, *, mend: bool = True) -> Iterator[Row]:
    """The rows of a file of the driver's own; a last line that a crash cut off is left out, and removed to ``mend`` it."""
    if mend:
        drop_torn_line(path)
    return (row for _, row in read_rows(path, fault_of_row, REMEDY))


def drop_torn_line(path: Path) -> None:
    """Remove from the file a last line that a crash cut off, or the next line would be appended to its rest."""
    whole, end, rest = _content(path).rpartition(b"\n")
    if rest:
        os.truncate(path, len(whole + end))  # needs no room, which there may be none of


def _content(path: Path) -> bytes:
    try:
        return read(path)
    except FileNotFoundError:
        return b""


def append(path: Path, *rows: Row) -> None:
    """Add rows to a JSON-lines file."""
    with path.open("ab") as file:
        file.write(b"".join(map(to_json, rows)))
