"""What the driver makes of trials whose workers die."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from search.records.ledger import Ledger
from search.sampling.candidates import epochs_ahead
from search.stages.dense import described
from search.stages.waiting import shown
from search.study import SearchSettings
from search.tune.display import Progress, epochs_until_stalled
from tests.search_helpers import DENSE_POINT, point, rows
from trainables.records import names as n
from trainables.records.names import StoppedError
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.tree import Tree, walk


class Told:
    """Stands in for the searcher."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.again: list[str] = []
        self.spent = 0.0

    def fail(self, trial_id: str, _reason: str) -> None:
        self.failed.append(trial_id)

    def run_again(self, trial_id: str) -> None:
        self.again.append(trial_id)


class Seen(Ledger):
    """A ledger that takes any point."""

    def add(self, point: Any) -> None:
        pass


def trial(number: int, may_recover: bool) -> Any:
    metadata = SimpleNamespace(num_failures=2, metric_analysis={}, metric_n_steps={})
    return SimpleNamespace(
        trial_id=str(number), config={n.TRIAL: number}, error_file=None, run_metadata=metadata,
        should_recover=lambda: may_recover,
    )  # fmt: skip


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def progress(told: Told, tmp_path: Path) -> Progress:
    ledger = Seen(tmp_path, ("accuracy", "compression"), 0.1)
    return Progress(ledger, told, SearchSettings(), 4, Console(quiet=True), {})  # type: ignore[arg-type]


def test_a_trial_whose_worker_dies_again_and_again_fails(progress: Progress, told: Told, tmp_path: Path) -> None:
    progress.on_trial_recover(0, [], trial(1, True))
    progress.on_trial_result(0, [], trial(2, True), {n.STEP: 1, n.STEP_ID: "a1", n.REUSED: False})
    progress.on_trial_recover(0, [], trial(3, True))
    progress.on_trial_error(0, [], trial(3, False))
    assert told.failed == ["3"]
    assert [row[n.STATE] for row in rows(tmp_path / n.TRIALS_FILE)] == [n.FAILED]


def test_a_worker_that_died_between_two_trials_costs_none(progress: Progress, told: Told, tmp_path: Path) -> None:
    progress.on_trial_error(0, [], trial(1, True))
    assert (told.failed, told.again) == ([], ["1"])
    assert not (tmp_path / n.TRIALS_FILE).exists()


def test_workers_that_die_under_several_trials_stop_the_study(progress: Progress, told: Told, tmp_path: Path) -> None:
    progress.on_trial_recover(0, [], trial(1, True))
    found = trial(2, True)
    progress.on_trial_result(
        0, [], found, {n.STEP: 1, n.STEP_ID: "a1", n.REUSED: True}
    )  # found, not computed: no sign of health
    assert found.run_metadata.num_failures == 2
    with pytest.raises(StoppedError, match="workers die one after another"):
        progress.on_trial_error(0, [], trial(3, False))
    assert told.failed == []
    assert not (tmp_path / n.TRIALS_FILE).exists()


class Measured:
    """A ledger that holds so many trials and epochs, and whose hypervolume grew last a while ago."""

    def __init__(self, trials: int = 0, epochs: int = 0, last_growth: int = 0) -> None:
        self.trials, self.epochs_computed, self.last_growth = [{}] * trials, epochs, last_growth

    def growth(self, epochs: int) -> float:
        since = self.epochs_computed - epochs
        return math.inf if since < 0 else 0.5 if since < self.last_growth else 0.001


def left(
    monkeypatch: pytest.MonkeyPatch, now: Measured, elapsed: float = 100.0, trained: float = 0.0, **budgets: Any
) -> str:
    """What is said ``elapsed`` seconds after the trials began, which was ``trained`` seconds after the budget's clock."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("search.tune.display.time.monotonic", lambda: clock.now)
    searcher: Any = SimpleNamespace(spent=trained + elapsed)
    begun: Any = Measured()
    settings = SearchSettings(**{"trials": None} | budgets)
    shown = Progress(begun, searcher, settings, settings.trials, Console(quiet=True), {})
    shown._ledger, clock.now = now, elapsed  # type: ignore[assignment]
    return shown._left()


def test_the_first_budget_to_be_spent_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Measured(trials=10, epochs=50)
    assert left(monkeypatch, now, trials=40, epochs=300) == "about 0:05:00 left until 40 trials"
    assert left(monkeypatch, now, trials=40, epochs=60) == "about 0:00:20 left until 60 epochs"
    assert left(monkeypatch, Measured(), trials=40) == "time left unknown yet"


def test_a_sweep_ends_with_the_last_of_its_steps_whatever_its_trials_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("search.tune.display.time.monotonic", lambda: clock.now)
    ahead, searcher = {"cheap": 10, "dear": 90, "free": 0}, Told()
    shown = Progress(Seen(tmp_path, ("accuracy",), 0.1), searcher, SearchSettings(), 4, Console(quiet=True), {}, ahead)  # type: ignore[arg-type]

    def told(step_id: str, seconds: float) -> str:
        clock.now += seconds
        shown.on_trial_result(0, [], trial(1, True), {n.STEP: 1, n.STEP_ID: step_id, n.REUSED: False})
        return shown._left()

    assert shown._left() == told("free", 10) == told("found in the store", 10) == "time left unknown yet"
    assert told("cheap", 20) == told("cheap", 0) == "about 0:06:00 left until 4 trials"
    assert told("dear", 400) == "about 0:00:00 left until 4 trials"


def test_a_sweep_s_epochs_ahead_are_those_that_it_then_computes(tree: Tree) -> None:
    regularised = {"pruner": "group_norm", "sparse_epochs": 2, "fine_tune_epochs": 1}
    schedules: list[Schedule] = [
        UnstructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=2),
        UnstructuredSchedule(step_ratio=0.5, steps=2, fine_tune_epochs=2),
        StructuredSchedule(step_ratio=0.3, steps=1, **regularised),
        StructuredSchedule(step_ratio=0.5, steps=1, **regularised),
    ]
    ahead = epochs_ahead(schedules, tree)
    for schedule in schedules:
        points = list(walk(schedule, tree))
        assert sum(point[n.EPOCHS] for point in points) == sum(ahead.pop(point[n.STEP_ID], 0) for point in points) > 0
        assert epochs_ahead(schedules, tree) == ahead
    assert not ahead


def test_minutes_are_counted_from_when_the_budget_s_clock_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs while the dense network is trained; the pace of trials is that of the trials alone."""
    assert left(monkeypatch, Measured(), trained=200, minutes=10) == "about 0:05:00 left until 10 minutes"
    assert left(monkeypatch, Measured(trials=10), trained=200, trials=20) == "about 0:01:40 left until 20 trials"


def test_how_long_a_front_that_stalls_has_left_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Measured(trials=10, epochs=50, last_growth=30)
    stalled = "10 epochs (about 0:00:20) left if the front grows no more"
    assert left(monkeypatch, now, stall_epochs=30) == stalled
    assert left(monkeypatch, now, stall_epochs=30, trials=40) == f"about 0:05:00 left until 40 trials; {stalled}"
    assert left(monkeypatch, now, stall_epochs=30, trials=11) == "about 0:00:10 left until 11 trials"
    assert left(monkeypatch, Measured(), stall_epochs=30) == "30 epochs left if the front grows no more"


def test_the_window_ends_when_the_ledger_says_that_it_does(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, ("accuracy", "compression"), 0.1)
    ledger.add_dense({**DENSE_POINT, n.SEED: 0})
    for number, compression in enumerate((2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)):
        ahead = epochs_until_stalled(ledger, 4, 0.01)
        assert (ahead == 0) == (ledger.growth(4) < 0.01)
        if number > 2:
            assert ahead == max(0, 6 - number)  # the last growth came with the second epoch
        ledger.add(point(f"s{number}", 0.85, compression, **{n.TRIAL: number}))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_dense_training_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("search.stages.waiting.time.monotonic", lambda: clock.now)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with shown(console, described(2, 60), 60) as show:
        for clock.now, done in ((1.0, 0), (20.0, 5), (25.0, 6), (40.0, 6), (60.0, 15)):  # a pace from the first epochs on
            show(done)
        told = "Training 2 dense networks: 15 of 60 epochs, about 0:03:00 left"
        written = drawn(console, told)  # on a terminal by the spinner's own thread
    if not terminal:
        assert written.count("\n") == 2 and "5 of 60 epochs\n" in written


def test_a_checkpoint_is_not_trained() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with shown(console, described(1, 0), 0) as show:
        show(0)
    assert "Measuring the dense network" in console.file.getvalue()  # type: ignore[attr-defined]


def test_on_a_terminal_the_clock_goes_on_between_two_results(told: Told, tmp_path: Path) -> None:
    told.spent = 61.0
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = Progress(Ledger(tmp_path, ("accuracy", "compression"), 0.1), told, SearchSettings(), 4, console, {})  # type: ignore[arg-type]
    progress.setup()
    try:
        assert "0:01:01, " in drawn(console, "0:01:01")
        told.spent = 125.0
        assert "0 of 4, 0 running" in drawn(console, "0:02:05")
    finally:
        progress.stop()


def drawn(console: Console, text: str) -> str:
    """All that was written, once ``text`` is in it."""
    end = time.monotonic() + 20
    while text not in (written := str(console.file.getvalue())):  # type: ignore[attr-defined]
        assert time.monotonic() < end, written
        time.sleep(0.05)
    return written
