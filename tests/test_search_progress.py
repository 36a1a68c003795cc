"""What the driver makes of trials whose workers die."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from search.ledger import Ledger
from search.progress import Progress
from search.study import SearchSettings
from tests.search_helpers import rows
from trainables import names as n
from trainables.names import StoppedError


class Told:
    """Stands in for the searcher."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.again: list[str] = []

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
    progress.on_trial_result(0, [], trial(2, True), {n.STEP: 1, n.REUSED: False})
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
    progress.on_trial_result(0, [], found, {n.STEP: 1, n.REUSED: True})  # found, not computed: no sign of health
    assert found.run_metadata.num_failures == 2
    with pytest.raises(StoppedError, match="workers die one after another"):
        progress.on_trial_error(0, [], trial(3, False))
    assert told.failed == []
    assert not (tmp_path / n.TRIALS_FILE).exists()
