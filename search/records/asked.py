"""``asked.jsonl``: what the sampler proposed, one line an ask. With the points and the trials' ends it is all of a search.

A line is written before its trial begins, or says why none did. Other lines tell what the asks after them are made for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search.records.ledger import append, rows_of
from search.study import Study
from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.records.jsonl import Row
from trainables.records.points import format_of
from trainables.schedule import Schedule
from trainables.storage.store import to_json

POINTS = "points"
"""How many rows ``points.jsonl`` had."""
PARAMS = "params"
"""Optuna's names and values; None of a trial that only its steps, or its points, tell of."""
NUMBER, ATTRIBUTES, OF_STUDY = "number", "system_attrs", "study_attrs"
"""The number of Optuna's row, and what its samplers have noted of the row and, since the last ask, of the study."""
OF_OTHERS: Row = {NUMBER: None, ATTRIBUTES: {}, OF_STUDY: {}}
"""What these are of asks that were made for another space or other objectives."""
MADE_FOR = "made_for"
"""The space and the objectives of the asks that follow, and, as ``stopped``, the trials that were stopped under others."""


class Asks:
    """The asks of a study so far: read from the file, if there is one, and appended to it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = folder / n.ASKED_FILE if folder else None
        self.anew = self._file is None or not self._file.exists()
        """Whether there was no file."""
        self.lines: list[Row] = []
        """In order; those that became no trial are left out if they were made for another space or other objectives."""
        self.count = 0
        self.made_for: Any = None
        self.reopened: frozenset[int] = frozenset()
        """Trials that were stopped for other objectives, or in another space: they may be worth going on with now."""
        self._take(rows_of(self._file, _fault) if self._file else ())

    @property
    def trials(self) -> set[int]:
        """The numbers of the trials that were asked for."""
        return {line[n.TRIAL] for line in self.lines if line[n.TRIAL] is not None}

    def add(self, *rows: Row) -> None:
        """Put asks on record."""
        if self._file and self._file.exists():
            append(self._file, *rows)
        elif self._file and rows:
            write_atomically(self._file, b"".join(map(to_json, rows)))
        self._take(rows)

    def _take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if MADE_FOR in row:
                self.made_for, self.reopened = row[MADE_FOR], frozenset(row[n.STOPPED])
                self.lines = [one | OF_OTHERS for one in self.lines if one[n.TRIAL] is not None]
            else:
                self.lines.append(row)
                self.count += 1


def header(made_for: Any, stopped: Iterable[int] = ()) -> Row:
    """The line before asks that are made for this."""
    return {MADE_FOR: made_for, n.STOPPED: list(stopped)}


def line(
    points: int, trial: int | None, schedule: Schedule | None, params: Mapping[str, Any] | None = None,
    reason: str | None = None, **noted: Any,
) -> Row:  # fmt: skip
    """The line of an ask; of one that became no trial, ``reason`` says why. ``noted`` is Optuna's number and attributes."""
    fields = schedule and schedule.model_dump(mode="json", exclude_none=True)
    return {POINTS: points, n.TRIAL: trial, n.SCHEDULE: fields, PARAMS: params, n.REASON: reason, **noted}


def wanted(study: Study) -> dict[str, Any]:
    """What the asks of a study are made for."""
    plain = study.model_dump(mode="json")
    sources = {one.name: one.source for one in study.goals if one.source is not None}
    forms = {"storage_forms": plain["storage_forms"]} if format_of(study.storage_forms) == n.COMPACT else {}
    limits = {"limits": study.limits.given} if study.limits.given else {}
    return {key: plain[key] for key in ("objectives", "space")} | ({"sources": sources} if sources else {}) | forms | limits


def _fault(row: Row) -> str | None:
    if MADE_FOR in row:
        stopped = row.get(n.STOPPED)
        return None if isinstance(stopped, list) and all(type(one) is int for one in stopped) else "is no list of trials"
    kinds = ((n.SCHEDULE, dict), (PARAMS, dict), (n.REASON, str), (n.TRIAL, int))
    whole = all(row.get(key) is None or type(row[key]) is kind for key, kind in kinds) and type(row.get(POINTS)) is int
    whole = whole and all(isinstance(row.get(key, {}), dict) for key in (ATTRIBUTES, OF_STUDY))
    return None if whole and n.TRIAL in row else "is no ask with its trial, schedule and parameters"
