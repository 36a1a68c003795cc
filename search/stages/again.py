"""The front's members again, on fresh seeds: a sweep of their schedules and of their controls, inside the study's folder.

It is a study like any other, so its steps are shared, stored and resumed as all are. Each fresh seed trains its own dense
network; one that was given keeps its weights, and only what follows is drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console

from search.algorithm import run
from search.records.ledger import Ledger
from search.records.opened import Opened
from search.records.recovery import lost_trials
from search.records.snapshots import fetch
from search.sampling.candidates import epochs_ahead
from search.session import steps_of
from search.study import Study, load_study
from search.tune.display import clock
from trainables.node import Node
from trainables.problem import Problem
from trainables.pruning.levels import PARTS_PER_MILLION
from trainables.records import names as n
from trainables.records.confirmation import AGAIN, CONTROL
from trainables.records.files import write_atomically
from trainables.records.jsonl import Row
from trainables.records.names import InputError
from trainables.records.words import counted
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import to_json
from trainables.training.retraining import RATES, takes, takes_epochs
from trainables.tree import Tree


@dataclass(frozen=True)
class Again:
    """What is to run again of a study's front, on so many fresh seeds."""

    opened: Opened
    problem: Problem
    ledger: Ledger
    """of the search"""
    seeds: int

    @cached_property
    def members(self) -> Mapping[str, tuple[Schedule, Schedule | None]]:
        """A member's step -> the schedule that ends with it, and its control; None where that is the dense network."""
        tree = Tree(self.problem, steps_of(self.opened.study, self.opened.folder))
        trials, found = lost_trials(tree, self.ledger), dict[str, tuple[Schedule, Schedule | None]]()
        for row in self.ledger.members():
            if row[n.TRIAL] not in trials:
                raise InputError(
                    f"{self.opened.folder / n.TRIALS_FILE}: has no schedule of trial {row[n.TRIAL]}, which made "
                    f"{row[n.STEP_ID]} of the front; run the study again, which writes it"
                )
            schedule = until(trials[row[n.TRIAL]], row[n.STEP])
            found[row[n.STEP_ID]] = schedule, control_of(schedule, self.problem)
        return found

    @property
    def study(self) -> Study:
        """The sweep of all of them, behind what ran before: a sweep may grow at its end."""
        first, folder = 1 + max(self.ledger.dense, default=0), self.opened.folder
        written = folder / n.CONFIRMATION_FOLDER / n.STUDY_FILE
        before = load_study(written, trusted=self.opened.study.trusted) if written.exists() else None
        sweep, known = (list(before.sweep or ()), {*before.schedules()}) if before else ([], set[Schedule]())
        for schedule in dict.fromkeys(one for both in self.members.values() for one in both if one is not None):
            seeds = range(first, first + self.seeds)
            fresh = [seed for seed in seeds if schedule.model_copy(update={n.SEED: seed}) not in known]
            sweep += [{**schedule.model_dump(mode="json", exclude_none=True), n.SEED: fresh}] if fresh else []
        return self.opened.study.beside(folder, n.CONFIRMATION_FOLDER, sweep)

    def cost(self, study: Study) -> str:
        """What the sweep costs, in words: networks, epochs that aren't in the store, and the time that those may take."""
        tree, schedules = Tree(self.problem, steps_of(study, study.folder)), study.schedules()
        ahead = epochs_ahead(schedules, tree)
        roots = [self.problem.root(seed) for seed in sorted({schedule.seed for schedule in schedules})]
        dense = sum(tree.epochs_of(root) for root in roots if tree.known(root.id) is None)
        told = f"{len(ahead)} steps, {sum(ahead.values())} epochs, and {dense} of dense networks"
        seconds = self._seconds_an_epoch * (sum(ahead.values()) + dense)
        return f"{told}; up to {clock(seconds)} of one trial at a time" if seconds else told

    @property
    def _seconds_an_epoch(self) -> float:
        """What an epoch of the search took, with all that a step does besides; 0 where none was trained."""
        rows = [row for row in [*self.ledger.points] if row[n.EPOCHS]]
        epochs = sum(row[n.EPOCHS] for row in rows)
        return sum(row.get(n.SECONDS) or 0.0 for row in rows) / epochs if epochs else 0.0

    def run(self, console: Console, address: str | None = None) -> Opened:
        """Run what is missing of it, and put on record which network is whose; the sweep, to be opened."""
        folder = self.opened.folder
        # What ran before, maybe on another host: a sweep may grow at its end alone.
        fetch(folder / n.CONFIRMATION_FOLDER, f"{self.opened.study.place_of(folder)}/{n.CONFIRMATION_FOLDER}")
        study = self.study
        networks = counted(len(self.members), "network")
        console.print(
            f"Again on {self.seeds} fresh seeds: {networks} of the front, and beside them the dense network trained for as "
            f"many more epochs. To compute: {self.cost(study)}."
        )
        ledger = run(study, console, address=address)
        tree = Tree(self.problem, steps_of(study, study.folder))
        write_atomically(study.folder / n.AGAIN_FILE, b"".join(to_json(row) for row in self._plan(tree, ledger)))
        return Opened(study.folder, study, self.opened.writable)

    def _plan(self, tree: Tree, ledger: Ledger) -> Iterator[Row]:
        """Whose each network is, on every seed that has been run, now or before."""
        for seed, dense in sorted(ledger.dense.items()):
            root = Node(None, tree.record_of(tree.node(dense[n.STEP_ID]))["settings"])
            for step_id, both in self.members.items():
                again, control = (one and tree.problem.chain(one, root)[-1].id for one in both)
                yield {n.STEP_ID: step_id, n.SEED: seed, AGAIN: again, CONTROL: control}


def until(schedule: Schedule, step: int) -> Schedule:
    """The schedule broken off after a step, with the same addresses."""
    before = schedule.steps - schedule.own_steps
    if step == schedule.steps:
        return schedule
    if step <= before:
        return schedule.parts[0].model_copy(update={"steps": step})
    shorter = schedule.model_copy(update={"steps": step})
    if schedule.levels is None and shorter.targets() == schedule.targets()[:step]:
        return shorter
    levels = [target / PARTS_PER_MILLION for target in schedule.parts[-1].targets()[: step - before]]
    fields = schedule.model_dump(exclude={n.SCHEDULE, n.STEP_RATIO, "sparsity", "levels"}, exclude_none=True)
    return type(schedule)(**{**fields, "levels": levels, "steps": step})


def control_of(schedule: Schedule, problem: Problem) -> Schedule | None:
    """The dense network retrained as often and as long, with nothing removed; None where nothing is trained.

    The epochs of a regularised training count as retraining, where that may last as long as a schedule says.
    """
    epochs = schedule.fine_tune_epochs
    if takes(schedule.retrain, n.FINE_TUNE_LR):
        epochs += getattr(schedule, n.SPARSE_EPOCHS, 0)
    if not epochs and takes_epochs(schedule.retrain):
        return None
    fields = {name: getattr(schedule, name) for name in (n.RETRAIN, *RATES)}
    kind = StructuredSchedule if problem.refuse(n.UNSTRUCTURED) else UnstructuredSchedule
    return kind(levels=(0.0,) * schedule.steps, fine_tune_epochs=epochs, **fields)
