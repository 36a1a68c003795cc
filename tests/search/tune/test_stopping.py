"""Trials that are stopped, in whole studies through Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.__main__ import main
from search.records.journal import REASON
from tests.search_helpers import optuna_rows, raw_study, rows, write
from trainables.records import names as n

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

# Cut at random and not retrained, the network knows nothing any more after the first step.
HOPELESS = {
    "importance": ["random"], "scope": ["global"], "retrain": ["fine_tune"], "step_ratio": [0.8, 0.85], "max_steps": 2,
    "fine_tune_epochs": [0],
}  # fmt: skip
DENSE = {"epochs": 8, "learning_rate": 0.1, "batch_size": 32, "threads": 1}


def study(tmp_path: Path, **changes: Any) -> Path:
    search = {"trials": 4, "sampler": "random", "starting_points": False, "stop": "front"}
    return write(
        tmp_path, raw_study(tmp_path, **{"space": {"unstructured": HOPELESS}, "search": search, "dense": DENSE} | changes)
    )


def run(file: Path, *overrides: str) -> Path:
    assert main(["run", str(file), *(word for override in overrides for word in ("--set", override))]) == 0
    return file.parent / "results" / "tiny"


def test_a_hopeless_trial_is_stopped_for_good(tmp_path: Path) -> None:
    file = study(tmp_path)
    folder = run(file)
    points = [row for row in rows(folder / n.POINTS_FILE) if row[n.TRIAL] is not None]
    trials = rows(folder / n.TRIALS_FILE)
    stopped = [row for row in trials if row[n.STATE] == n.STOPPED]
    assert {row[n.SCHEDULE][n.STEPS] for row in trials if row not in stopped} <= {1}
    assert stopped
    for row in stopped:
        assert row[n.SCHEDULE][n.STEPS] == 2
        assert row[n.REASON].startswith("after step 1 of 2")
        assert [point[n.STEP] for point in points if point[n.TRIAL] == row[n.TRIAL]] == [1]
    pruned = [row for row in optuna_rows(folder) if row.state == TrialState.PRUNED]
    assert {row.user_attrs[n.TRIAL] for row in pruned} == {row[n.TRIAL] for row in stopped}
    assert all(row.user_attrs[REASON] == "stopped after step 1 of 2" for row in pruned)
    told = {row.user_attrs[n.STEP_ID] for row in optuna_rows(folder) if row.state == TrialState.COMPLETE}
    assert told == {point[n.STEP_ID] for point in points}

    run(file, "search.trials=9")  # goes on, and ends because nothing else is left
    again = rows(folder / n.TRIALS_FILE)
    assert again[: len(trials)] == trials
    given_up = [row[n.SCHEDULE] for row in stopped]
    assert not any(row[n.SCHEDULE] in given_up for row in again[len(trials) :])
    assert len({row[n.STEP_ID] for row in rows(folder / n.POINTS_FILE)}) <= 3  # dense, and one step of each ratio


def test_a_sweep_is_never_stopped(tmp_path: Path) -> None:
    sweep = [{"importance": "random", "step_ratio": 0.8, "steps": 2, "fine_tune_epochs": 0, "seed": [0, 1]}]
    folder = run(study(tmp_path, sweep=sweep, space=None))
    assert {row[n.STATE] for row in rows(folder / n.TRIALS_FILE)} == {n.COMPLETE}
    assert [row[n.STEP] for row in rows(folder / n.POINTS_FILE) if row[n.TRIAL] == 0] == [1, 2]
