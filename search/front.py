"""What a study has found, to look at and to go on with: the points, the front, test accuracies and files of networks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from torch import nn

from search.cluster.interrupts import handlers_kept
from search.records.ledger import Ledger
from search.records.opened import Opened, open_study
from search.study import Overrides, Study
from search.tables import again_table, front_table
from trainables.records import names as n
from trainables.records.confirmation import Member, Optimism, Terms, members_again, optimism
from trainables.records.jsonl import Row, read_rows
from trainables.records.objectives import columns_of
from trainables.records.points import NUMBERS, WHOLE, point_id

if TYPE_CHECKING:
    from ray.tune import Callback

logging.getLogger("ray.widgets").setLevel(logging.WARNING)  # in a notebook it misses a package as soon as it is imported


class Front:
    """A study's points as they stood when it was made, and what can be done with them."""

    def __init__(self, opened: Opened, ledger: Ledger | None = None) -> None:
        self._opened = opened
        if ledger is not None:
            self._ledger = ledger

    @cached_property
    def _ledger(self) -> Ledger:
        study = self.study
        return Ledger(self.folder, study.goals, study.drop, study.storage_forms, measure=study.measure, mend=False)

    @property
    def study(self) -> Study:
        """The study as it ran."""
        return self._opened.study

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return self._opened.folder

    @property
    def points(self) -> pd.DataFrame:
        """Every step of every trial, with the columns of ``points.jsonl``; the dense networks have no trial."""
        return _frame(self._ledger.points, self._columns)

    @property
    def members(self) -> pd.DataFrame:
        """The networks above the reference that no other beats on every objective, smallest reduction first."""
        return _frame(self._ledger.members(), self._columns)

    @property
    def hypervolume(self) -> float:
        """What the front dominates above the study's fixed reference."""
        return self._ledger.hypervolume

    @property
    def confirmed(self) -> pd.DataFrame:
        """What ``confirm`` has measured so far: the points' columns and ``test_accuracy``, or of another measure."""
        rows = [row for _, row in read_rows(self.folder / n.CONFIRMED_FILE)]
        measure = self.study.measure
        return _frame(rows, (*self._columns, measure.test, measure.test_paired, measure.retrained))

    @property
    def _columns(self) -> tuple[str, ...]:
        return columns_of((self.study.measure, *self.study.goals))

    def confirm(self, *, stored_only: bool = False, seeds: int | None = None, address: str | None = None) -> pd.DataFrame:
        """Open the test split for the front of a search, or the schedules of a sweep, and return what is ``confirmed``.

        What was confirmed before is not opened again. Networks whose weights are gone are trained again, or passed over if
        ``stored_only``. With ``seeds``, 2 or more, the front's members are first pruned and retrained on so many fresh ones
        (on the Ray cluster at ``address``, or here): ``again`` has what came of it. The same call resumes after an
        interrupt. InputError if it can't be done.
        """
        from search.confirm import confirm  # noqa: PLC0415 - Ray takes seconds to import

        with _at_work(self.study):
            confirm(self._opened, console_here(), stored_only=stored_only, seeds=seeds, address=address)
        return self.confirmed

    def sensitivity(self, shares: Sequence[float] = ()) -> pd.DataFrame:
        """The measure with a share of each layer's weights, or of each group's channels, cut alone; nothing is retrained.

        What was measured before is read from the store. InputError if the study has no dense network yet.
        """
        from search.sensitivity import sensitivity  # noqa: PLC0415 - the same

        with _at_work(self.study):
            return pd.DataFrame(sensitivity(self._opened, console_here(), shares))

    @property
    def again(self) -> list[Member]:
        """The front's members on fresh seeds, on the test images, as far as ``confirm`` has run and opened them."""
        return members_again(self.folder, self._ledger.members(), self._terms)

    @property
    def _terms(self) -> Terms:
        return Terms(self.study.goals, self.study.measure, self.study.drop)

    @property
    def optimism(self) -> Optimism | None:
        """By how much validation flattered the front, as far as it is confirmed."""
        test, names = self.study.measure.test, {point_id(row) for row in self._ledger.members()}
        opened = {point_id(row): row for _, row in read_rows(self.folder / n.CONFIRMED_FILE) if row.get(test) is not None}
        dense = [opened[row[n.STEP_ID]] for row in self._ledger.dense.values() if row[n.STEP_ID] in opened]
        return optimism([row for name, row in opened.items() if name in names], dense, self._terms)

    def told_confirmed(self) -> list[Table | str]:
        """What ``confirm`` found of a search, for a terminal: its optimism, and its members on fresh seeds."""
        again, found, measure = self.again, self.optimism if self.study.sweep is None else None, self.study.measure
        tested = {point_id(row): row.get(measure.test) for _, row in read_rows(self.folder / n.CONFIRMED_FILE)}
        told: list[Table | str] = [again_table(again, tested, measure)] if again else []
        return told + ([found.told(measure)] if found else [])

    def export(
        self, point: str, path: str | Path, *, form: str | None = None, options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> str:  # fmt: skip
        """Write the network of a point, ``step_id[:form]`` or the beginning of the id, to a file; the whole point.

        ``form`` is a format's name; without it, fp32 is written as safetensors and any other stored form as compact.
        ``options`` are settings of the format, such as ``{"fold": True}``. Beside the file is its model card. A file that
        is there is replaced only with ``force``. InputError if there is no such point, or the file can't be written.
        """
        from search.export import Request, export_point  # noqa: PLC0415 - the same

        request = Request(point, Path(path), form, options or {}, force)
        with _at_work(self.study):
            return export_point(self._opened, request, console_here())

    def pack(self) -> str:
        """Put the records of a finished study's steps into one compressed file, and return which; it can still go on."""
        from search.records.packing import pack  # noqa: PLC0415 - needs what starts studies

        return pack(self._opened)

    def table(self) -> Table:
        """The front, one row a point, for a terminal; what is below the hypervolume's reference counts for nothing."""
        return front_table(self._ledger.members(), self.study.goals, self.study.measure)

    def summary(self) -> str:
        """What it took to find it, in a line."""
        ledger = self._ledger
        return (
            f"{len(ledger.trials)} trials ({ledger.stopped} stopped, {ledger.failed} failed), {ledger.steps_computed} "
            f"steps computed and {ledger.steps_found} found, {ledger.epochs_computed} epochs computed and "
            f"{ledger.epochs_saved} saved by sharing, hypervolume {ledger.hypervolume:.4f}"
        )

    def __repr__(self) -> str:
        return f"<Front of {self.folder}: {len(self._ledger.members())} networks. {self.summary()}>"


def run_study(study: Study, model: nn.Module | None, callbacks: Sequence[Callback], address: str | None) -> Front:
    """``search.run``."""
    from search.algorithm import run  # noqa: PLC0415 - Ray takes seconds to import, and a mistake is told before that

    whole = study.of(model)
    with _at_work(whole):
        ledger = run(whole, console_here(), address=address, callbacks=callbacks)
    return Front(Opened(whole.folder, whole), ledger)


def open_dense(study: Study) -> Front:
    """A study with its dense network, and no more, if it hasn't been run."""
    from search.sensitivity import dense_network  # noqa: PLC0415 - the same

    with _at_work(study):
        return Front(dense_network(study, console_here()))


def open_front(place: str | Path, model: nn.Module | None, overrides: Overrides, *, trusted: bool) -> Front:
    """``search.load``."""
    return Front(open_study(str(place), overrides, trusted=trusted, model=model))


@contextmanager
def _at_work(study: Study) -> Iterator[None]:
    """Around what may start Ray and compute with it."""
    from search.cluster.shipping import shipped  # noqa: PLC0415 - Ray takes seconds to import

    with handlers_kept(), shipped(study.model.given):
        yield


def console_here() -> Console:
    """Where a run is told: a terminal that can be drawn on, or plain lines, as in a notebook."""
    notebook = Console().is_jupyter  # where kernels ask for colours as if it was a terminal
    width = None if sys.stdout.isatty() else 140
    return Console(width=width, force_jupyter=False, force_terminal=False if notebook else None)


def _frame(rows: Sequence[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Rows with whole numbers, floats, and text or truth values as they are."""
    frame = pd.DataFrame(list(rows), columns=list(columns))
    text = set(n.POINT_COLUMNS) - NUMBERS
    kinds = {name: "Int64" if name in WHOLE else "float64" for name in columns if name not in text}
    return frame.astype(kinds)
