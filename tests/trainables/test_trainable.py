"""The Ray Tune trainables: without a cluster, and in a Tuner as a user would write it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.conftest import MakeProblem, digits_problem
from trainables.measuring import quiet, timing
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import MixedSchedule, Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.trainable import MixedTrainable, PruningTrainable, StructuredTrainable, UnstructuredTrainable, gain_metric
from trainables.tree import Tree, walk


@pytest.fixture(autouse=True)
def _short_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measure latency briefly, under a lock of this test's own."""
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.01)
    monkeypatch.setattr(timing, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(quiet.tempfile, "gettempdir", lambda: str(tmp_path))


def direct(kind: type[PruningTrainable], folder: Path, config: dict[str, Any], **given: Any) -> PruningTrainable:
    """A trainable outside of any cluster; ``tune.with_parameters`` would hand it the same."""
    trial = kind.__new__(kind)
    trial.setup(config, **{"problem": digits_problem(), "folder": str(folder), **given})
    return trial


def steps_of(trial: PruningTrainable, most: int = 10) -> list[dict[str, Any]]:
    results = []
    for _ in range(most):
        results.append(trial.step())
        if results[-1]["done"]:
            return results
    raise AssertionError("never done")


@pytest.mark.parametrize(
    ("kind", "config", "schedule"),
    [
        (UnstructuredTrainable, {}, UnstructuredSchedule(step_ratio=0.5, steps=2)),
        (StructuredTrainable, {}, StructuredSchedule(step_ratio=0.5, steps=2)),
        (PruningTrainable, {}, UnstructuredSchedule(step_ratio=0.5, steps=2)),
        (PruningTrainable, {"family": "structured"}, StructuredSchedule(step_ratio=0.5, steps=2)),
        (MixedTrainable, {"channel_ratio": 0.4}, MixedSchedule(step_ratio=0.5, steps=2, channel_ratio=0.4)),
        (UnstructuredTrainable, {"family": "structured"}, UnstructuredSchedule(step_ratio=0.5, steps=2)),
    ],
)
def test_each_step_is_a_point_of_the_schedule_with_its_gains(
    kind: type[PruningTrainable], config: dict[str, Any], schedule: Schedule, tmp_path: Path, problem: MakeProblem
) -> None:
    folder = tmp_path / "steps"
    results = steps_of(direct(kind, folder, {"step_ratio": 0.5, "steps": 2, n.TRIAL: 7, **config}))
    tree = Tree(problem(), Store(folder))
    points = list(walk(schedule, tree))
    assert tree.epochs == 0
    same = (n.STEP, n.STEP_ID, n.FAMILY, n.ACCURACY, n.COMPRESSION, n.SPARSITY)
    assert [[result[key] for key in same] for result in results] == [[point[key] for key in same] for point in points]
    assert [result["done"] for result in results] == [False, True]
    for result in results:
        assert set(n.POINT_COLUMNS) <= set(result)
        assert result[n.TRIAL] == 7
        assert result[gain_metric("accuracy")] == result[n.ACCURACY]
        assert 2 ** result[gain_metric("compression")] == pytest.approx(result[n.COMPRESSION])


def test_another_schedule_is_served_with_the_same_data_and_store(tmp_path: Path) -> None:
    trial = direct(UnstructuredTrainable, tmp_path / "steps", {"step_ratio": 0.5, "steps": 1})
    first = steps_of(trial)
    assert trial.reset_config({"step_ratio": 0.5, "steps": 3, "importance": "magnitude", n.TRIAL: 2})
    second = steps_of(trial)
    assert [result[n.STEP] for result in second] == [1, 2, 3]
    assert [result[n.REUSED] for result in second] == [True, False, False]
    assert second[0][n.STEP_ID] == first[0][n.STEP_ID]
    assert (first[0][n.TRIAL], second[0][n.TRIAL]) == (None, 2)
    assert [result[n.EPOCHS] for result in first + second] == [1, 0, 1, 1]  # those of the dense network are its own


def test_a_trial_that_starts_again_finds_its_steps(tmp_path: Path) -> None:
    config = {"step_ratio": 0.5, "steps": 2}
    before = direct(UnstructuredTrainable, tmp_path / "steps", config)
    first = before.step()
    again = steps_of(direct(UnstructuredTrainable, tmp_path / "steps", config))
    assert [result[n.REUSED] for result in again] == [True, False]
    assert again[0][n.ACCURACY] == first[n.ACCURACY]


def test_latency_is_measured_where_it_is_an_objective(tmp_path: Path) -> None:
    objectives = ("accuracy", "latency")
    config = {"step_ratio": 0.5, "steps": 1, "fine_tune_epochs": 0}
    (result,) = steps_of(direct(StructuredTrainable, tmp_path / "steps", config, objectives=objectives))
    assert result[n.LATENCY] > 0
    assert result[n.LATENCY_LARGE] > 0
    assert isinstance(result[gain_metric("latency")], float)
    (masked,) = steps_of(direct(UnstructuredTrainable, tmp_path / "steps", config, objectives=objectives))
    assert masked[gain_metric("latency")] == 0
    (without,) = steps_of(direct(UnstructuredTrainable, tmp_path / "steps", config))
    assert without[n.LATENCY] is None


@pytest.mark.parametrize(
    "config",
    [
        {"step_ratio": 2.0},
        {"step_ratio": 0.5, "unknown": 1},
        {"step_ratio": 0.5, "retrain": "lr_rewind", "fine_tune_epochs": 9},
        {},
    ],
)
def test_what_cannot_be_scheduled_is_refused_before_anything_is_trained(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        direct(UnstructuredTrainable, tmp_path / "steps", config)
    assert not (tmp_path / "steps").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray  # noqa: PLC0415 - it takes seconds, which the other tests need not spend

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AIR_NEW_OUTPUT", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("kind", [UnstructuredTrainable, StructuredTrainable])
def test_a_users_own_tuner(kind: type[PruningTrainable], cluster: None, tmp_path: Path) -> None:
    from ray import tune  # noqa: PLC0415 - the same

    folder = tmp_path / "mine" / "steps"
    trainable = tune.with_parameters(kind, problem=digits_problem(), folder=str(folder))
    tuner = tune.Tuner(
        trainable,
        param_space={"step_ratio": 0.5, "steps": tune.grid_search([1, 2, 3]), "fine_tune_epochs": 1},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "ray"), name="own", verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    by_steps = {result.config["steps"]: result.metrics_dataframe for result in results}
    assert {steps: list(frame[n.STEP]) for steps, frame in by_steps.items()} == {1: [1], 2: [1, 2], 3: [1, 2, 3]}
    assert sum(int(frame[n.EPOCHS].sum()) for frame in by_steps.values()) == 3  # those of the dense network are its own
    longest = list(by_steps[3][n.STEP_ID])
    assert list(by_steps[2][n.STEP_ID]) == longest[:2]
    assert set(longest) < set(Store(folder).ids())
    assert all(frame[gain_metric("compression")].is_monotonic_increasing for frame in by_steps.values())
