"""``optuna.journal``: a study's rows as Optuna stores them, for optuna-dashboard and optuna.visualization.

It is written, and nothing reads it. Only where there is no ``asked.jsonl``, because an earlier version ran the study or the
file was lost, it tells what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FixedTrial

from search.records.asked import ATTRIBUTES, MADE_FOR, header, line
from search.records.ledger import Ledger, append, drop_torn_line
from search.sampling.space import Space, read
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.records.names import InputError
from trainables.schedule import Schedule
from trainables.settings import one_line

NAME = "pruning"
"""What Optuna's study is called in the journal."""
# User attributes of its rows: of a step told beside its trial's own row, which trial's; why a row has no values, in words
# that begin so where its trial failed, or its last step was told before; and the step at which a trial was given up.
ADDED, REASON, GIVEN_UP = "added", "reason", "given_up"
FAILED, KNOWN = "failed: ", "known: "

GIVEN = "fixed_params", "constraints"
"""What system attributes begin with that are given to a row, and not noted by a sampler."""


class View:
    """The rows of a study that have ended, in the order in which they did: written anew, and then appended to."""

    def __init__(self, folder: Path, study: optuna.Study) -> None:
        self._file, self._study, self._shown = folder / n.OPTUNA_FILE, study, set[int]()
        self._file.unlink(missing_ok=True)
        self.update()

    def update(self) -> None:
        """Append what has ended since."""
        logs = _Logs()
        copy = optuna.create_study(storage=JournalStorage(logs), study_name=NAME, directions=self._study.directions)
        there = len(logs.all) if self._file.exists() else 0
        ended = [row for row in self._study.get_trials(deepcopy=False) if row.state.is_finished()]
        copy.add_trials(row for row in ended if row.number not in self._shown)
        append(self._file, *logs.all[there:])
        self._shown |= {row.number for row in ended}


class _Logs(BaseJournalBackend):
    """What Optuna would write to its file, kept in memory."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.all[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.all += logs


def lines_of(folder: Path, ledger: Ledger, schedules: Mapping[int, Schedule], space: Space) -> Iterator[Row]:
    """The lines of ``asked.jsonl`` that tell what a journal does, if there is one; ``schedules`` are the trials' own.

    InputError if it is damaged.
    """
    told = _read(folder / n.OPTUNA_FILE)
    if told is None:
        return
    yield header(told.user_attrs.get(MADE_FOR))
    points = {row[n.STEP_ID]: index for index, row in reversed([*enumerate(ledger.points, start=1)])}
    before = 0
    for row in told.get_trials(deepcopy=False):
        trial = row.user_attrs.get(n.TRIAL)
        if ADDED in row.user_attrs:
            before = max(before, points.get(row.user_attrs.get(n.STEP_ID), 0))
        elif trial is not None or row.state.is_finished():  # or it was lost in the middle of being asked for
            schedule = (None if trial is None else schedules.get(trial)) or read(space, FixedTrial(row.params))
            noted = {key: value for key, value in row.system_attrs.items() if not key.startswith(GIVEN)}
            if trial is None or schedule is not None:
                yield line(before, trial, schedule, row.params, row.user_attrs.get(REASON), **{ATTRIBUTES: noted})


def _read(file: Path) -> optuna.Study | None:
    if not file.exists():
        return None
    drop_torn_line(file)
    try:
        storage = JournalStorage(JournalFileBackend(str(file)))
        names = optuna.get_all_study_names(storage)  # none, if a driver was killed before it made the study
        return optuna.load_study(study_name=NAME, storage=storage) if NAME in names else None
    except Exception as error:  # what Optuna raises on a damaged line can be anything
        raise InputError(
            f"{file}: cannot be read ({one_line(error)}); move it away, finished steps are found again in the store"
        ) from error
