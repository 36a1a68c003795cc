"""One study under kills at random moments, held against the same study left in peace."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from optuna.trial import TrialState

from search.cluster.interrupts import STOPPED
from search.records.ledger import Ledger, rows_of
from search.study import load_study
from tests.faults.driver import Driver
from tests.search_helpers import Raw, optuna_rows, write
from trainables.records import names as n
from trainables.records.files import write_atomically

DRIVER, WORKER, RAYLET = "driver", "worker", "raylet"
KINDS = (DRIVER, WORKER, WORKER, RAYLET)
"""What is killed in any so many kills, one after the other, in an order drawn anew each time."""
PATIENCE = 600.0


@dataclass
class Storm:
    """Kills over one study; ``raw`` is its study file, ``folder`` where everything of the storm is kept."""

    study: Path
    folder: Path
    seed: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    lives: list[Driver] = field(default_factory=list)
    finished: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._next: list[str] = []
        self.results = load_study(self.study).folder
        self.log = self.folder / "computations.log"
        self.log.touch()
        self.clock = self.folder / "clock"
        self._set_the_clock_back()

    def rage(self, kills: int) -> None:
        """Kill until there were so many kills, or the study has ended, and then let it run to its end."""
        while sum(self.kills.values()) < kills:
            driver = self._start()
            while driver.running and sum(self.kills.values()) < kills:
                self._wait_for_a_moment(driver)
                self._kill(driver)
                self._look()
            if driver.running or driver.process.returncode == 0:  # the last kill was a worker's, or nothing is left to kill
                break
        driver = self.lives[-1] if self.lives and self.lives[-1].running else self._start()
        assert driver.wait(PATIENCE) == 0, driver.said.read_text()
        self._look()
        for life in self.lives:
            life.nobody_is_left()

    def _start(self) -> Driver:
        said = self.folder / f"life{len(self.lives)}.err"
        self.lives.append(Driver(self.study, said=said, environment=self._environment()))
        for life in self.lives[-6:-1]:
            if life.ended and time.monotonic() > life.ended + 25:
                life.nobody_is_left()
        return self.lives[-1]

    def _environment(self) -> dict[str, str]:
        return {"FAULTS_LOG": str(self.log), "FAULTS_CLOCK": str(self.clock)}

    def _set_the_clock_back(self) -> None:
        """By more than a day with each kill, while processes run."""
        write_atomically(self.clock, b"%d" % (-100_000 * self.kills.total()))

    def _lines(self) -> int:
        file = self.results / n.POINTS_FILE
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def _wait_for_a_moment(self, driver: Driver) -> None:
        """Mostly until a few more points are there, and a little longer; sometimes into the start of a driver."""
        more, little = self._random.randint(0, 2), self._random.uniform(0, 1.5)
        if self._random.random() < 0.15:
            more, little = 0, self._random.uniform(0, 10)
        enough, deadline = self._lines() + more, time.monotonic() + 90
        while driver.running and self._lines() < enough and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(little)

    def _kind(self) -> str:
        """What is to be killed now; the same until it has been."""
        self._next = self._next or self._random.sample(KINDS, len(KINDS))
        return self._next[-1]

    def _kill(self, driver: Driver) -> None:
        if not driver.running:
            assert driver.process.returncode == 0, driver.said.read_text()
            return
        kind = self._kind()
        chosen = {WORKER: driver.workers, RAYLET: driver.raylets}.get(kind, list)()
        if kind != DRIVER and not chosen:
            return  # not there yet; the next moment will do
        victim = self._random.choice(chosen) if chosen else driver.process
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return
        self.kills[self._next.pop()] += 1
        self._set_the_clock_back()
        if kind != WORKER:
            status = driver.wait(60)
            self.statuses[status] += 1
            # Ray that loses its raylet while it starts ends the driver itself, with a line of its own.
            said = driver.said.read_text()
            assert kind == DRIVER or status == STOPPED or "Failed to register worker to Raylet" in said, said

    def _look(self) -> None:
        """A finished step stays as it is for ever."""
        for step, identity in steps_of(self.results).items():
            assert self.finished.setdefault(step, identity) == identity, f"{step} was written again"

    def computations(self) -> tuple[int, int]:
        """(computations begun, those of them for a step that had been begun before); none begins after the step's end."""
        begun: Counter[str] = Counter()
        complete: set[str] = set()
        for line in self.log.read_text().splitlines():
            what, step = line.split()
            assert step not in complete, f"{step}: {what} after its end"
            begun[step] += what == "start"
            complete |= {step} if what == "end" else set()
        return begun.total(), begun.total() - len(begun)

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        for life in self.lives:
            life.end()


def steps_of(results: Path) -> Mapping[str, tuple[int, int]]:
    """The finished steps: what the file system knows their records by."""
    files = ((file, file.stat()) for file in (results / n.STEPS_FOLDER).glob(f"*/{n.STEP_FILE}"))
    return {file.parent.name: (status.st_ino, status.st_mtime_ns) for file, status in files}


def under_kills(raw: Raw, folder: Path, kills: int, seed: int = 0) -> Storm:
    """A study under kills, as many as it lives for, which must come to what it comes to if left in peace."""
    study = write(folder, raw)
    fury = Storm(study, folder, seed)
    peace = Driver(study, "--set", "name=peace", said=folder / "peace.err")
    try:
        assert peace.wait(10 * PATIENCE) == 0, peace.said.read_text()
        fury.rage(kills)
    finally:
        peace.end()
        fury.end()
    assert set(fury.kills) == set(KINDS) or fury.kills.total() < len(KINDS)
    assert fury.computations()[1] <= fury.kills.total() * (os.cpu_count() or 1), "more was lost than was under way"
    assert outcome(study) == outcome(study, "name=peace")
    return fury


def outcome(study: Path, *overrides: str) -> dict[str, Any]:
    """What a study amounts to, whatever happened on the way; asserts that its files agree with each other."""
    settings = load_study(study, overrides)
    folder = settings.folder
    ledger = Ledger(folder, settings.objectives, settings.reference.accuracy_drop)
    points = [row for row in ledger.points if row[n.TRIAL] is not None]
    trials = list(rows_of(folder / n.TRIALS_FILE))
    rows = optuna_rows(folder)
    told = Counter(row.user_attrs[n.STEP_ID] for row in rows if row.state == TrialState.COMPLETE)
    assert {row.state for row in rows} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert told == Counter({row[n.STEP_ID] for row in points}), "a step was told twice, or not at all"
    assert max(Counter((row[n.TRIAL], row[n.STEP]) for row in points).values()) == 1
    assert sorted(row[n.TRIAL] for row in trials) == list(range(len(trials)))
    assert {row[n.STATE] for row in trials} == {n.COMPLETE}, [row for row in trials if row[n.STATE] != n.COMPLETE]
    computed = [row for row in points if not row[n.REUSED]]
    assert max(Counter(row[n.STEP_ID] for row in computed).values()) == 1
    assert [file for file in folder.rglob(".*") if file.name != ".gitignore"] == [], "something was left behind"
    return {
        "steps": {row[n.STEP_ID]: row[n.ACCURACY] for row in points},
        "trials": {row[n.TRIAL]: row[n.SCHEDULE] for row in trials},
        "points": {(row[n.TRIAL], row[n.STEP]): row[n.STEP_ID] for row in points},
        "front": set(ledger.front), "hypervolume": ledger.hypervolume,
        "computed": {row[n.STEP_ID] for row in computed}, "epochs": ledger.epochs_computed,
    }  # fmt: skip
