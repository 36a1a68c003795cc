"""Whole studies through Ray, on the digits and networks four channels wide."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
from optuna.trial import TrialState

from search.__main__ import main
from search.cluster.interrupts import GO_ON
from search.records.ledger import Ledger
from search.session import prepare
from search.stages import waiting as working
from search.stages.dense import lost_seeds
from search.study import load_study
from tests import ROOT
from tests.forks.process import python
from tests.search_helpers import (
    STRUCTURED_SPACE,
    UNSTRUCTURED_SPACE,
    Raw,
    check_made_again,
    optuna_rows,
    raw_study,
    refusal,
    rows,
    tree_of,
    write,
)
from trainables.data import dataset as data
from trainables.exporting.network_file import load
from trainables.records import names as n
from trainables.storage.store import Store
from trainables.training.loop import evaluate
from trainables.tree import walk

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]


def run(file: Path, *overrides: str) -> None:
    arguments = [word for override in overrides for word in ("--set", override)]
    assert main(["run", str(file), *arguments]) == 0


def weights(folder: Path) -> set[str]:
    """The steps whose weights are on disk."""
    return {file.parent.name for file in folder.glob(f"{n.STEPS_FOLDER}/*/{n.WEIGHTS_FILE}")}


def told(folder: Path) -> Counter[str]:
    """How often each step stands in Optuna's study with values."""
    done = (row for row in optuna_rows(folder) if row.state == TrialState.COMPLETE)
    return Counter(row.user_attrs[n.STEP_ID] for row in done)


def pruned(points: list[Raw]) -> list[Raw]:
    return [row for row in points if row[n.TRIAL] is not None]


@pytest.fixture(scope="module")
def study(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study of both families that has been run."""
    tmp = tmp_path_factory.mktemp("study")
    space = {"unstructured": {**UNSTRUCTURED_SPACE, "importance": ["magnitude"]}, "structured": STRUCTURED_SPACE}
    file = write(tmp, raw_study(tmp, space=space, search={"trials": 8, "sampler": "random"}))
    run(file)
    return file


@pytest.fixture(scope="module")
def folder(study: Path) -> Path:
    return load_study(study).folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A storage of its own with the finished study in it."""
    shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path


def test_the_files_are_there_and_points_have_every_column(study: Path, folder: Path) -> None:
    for name in (n.STUDY_FILE, n.PROVENANCE_FILE, n.ASKED_FILE, n.POINTS_FILE, n.TRIALS_FILE, n.OPTUNA_FILE):
        assert (folder / name).stat().st_size > 0
    assert load_study(folder / n.STUDY_FILE) == load_study(study)
    points = rows(folder / n.POINTS_FILE)
    assert all(tuple(row) == n.POINT_COLUMNS for row in points)
    dense, *others = points
    assert (dense[n.TRIAL], dense[n.FAMILY], dense[n.STEP]) == (None, n.DENSE, 0)
    assert others == pruned(others)
    assert {row[n.FAMILY] for row in others} == {n.UNSTRUCTURED, n.STRUCTURED}
    for row in others:
        assert row[n.ACCURACY_BEFORE] is not None
        assert 0 < row[n.SPARSITY] < 1
        assert row[n.COMPRESSION] > 1
        assert row[n.REUSED] == (row[n.EPOCHS] == 0)
    trials = rows(folder / n.TRIALS_FILE)
    assert all(tuple(row) == n.TRIAL_COLUMNS for row in trials)
    assert sorted(row[n.TRIAL] for row in trials) == list(range(8))
    assert {row[n.STATE] for row in trials} == {n.COMPLETE}
    assert {row[n.TRIAL] for row in others} == set(range(8))


def test_latencies_are_measured_of_a_family_that_has_nothing_on_the_front(study: Path, copy: Path, no_ray: None) -> None:
    folder = copy / "tiny"
    shutil.rmtree(folder / n.LATENCY_FOLDER)
    made_up = {n.ACCURACY: 1.0, n.COMPRESSION: 1000.0}
    unmeasured = [
        {**row, n.LATENCY: None, n.LATENCY_LARGE: None, **(made_up if row[n.FAMILY] == n.UNSTRUCTURED else {})}
        for row in rows(folder / n.POINTS_FILE)
    ]
    (folder / n.POINTS_FILE).write_text("".join(f"{json.dumps(row)}\n" for row in unmeasured))
    run(study, f"storage={copy}")
    dense, *points = rows(folder / n.POINTS_FILE)
    structured = [(row[n.ACCURACY], row[n.COMPRESSION], row[n.SHAPE_ID]) for row in points if row[n.FAMILY] == n.STRUCTURED]
    own_front = {
        shape for accuracy, compression, shape in structured
        if not any(a >= accuracy and c >= compression and (a, c) != (accuracy, compression) for a, c, _ in structured)
    }  # fmt: skip
    measured = {row[n.SHAPE_ID] for row in [dense, *points] if row[n.LATENCY] is not None}
    assert own_front
    assert measured == {dense[n.SHAPE_ID], *own_front}


def test_optuna_holds_every_point_once(folder: Path) -> None:
    points = pruned(rows(folder / n.POINTS_FILE))
    assert told(folder) == Counter({row[n.STEP_ID] for row in points})
    assert {row.state for row in optuna_rows(folder)} <= {TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING}
    accuracies = {row[n.STEP_ID]: row[n.ACCURACY] for row in points}
    for row in optuna_rows(folder):
        if row.state == TrialState.COMPLETE:
            assert row.values[0] == pytest.approx(accuracies[row.user_attrs[n.STEP_ID]])


def test_a_shared_beginning_is_computed_once(folder: Path) -> None:
    points = pruned(rows(folder / n.POINTS_FILE))
    computed = Counter(row[n.STEP_ID] for row in points if not row[n.REUSED])
    assert any(row[n.REUSED] for row in points)
    assert set(computed.values()) == {1}
    assert set(computed) == {row[n.STEP_ID] for row in points}


def test_running_again_computes_nothing(copy: Path, study: Path, no_ray: None) -> None:
    before = tree_of(copy / "tiny" / n.STEPS_FOLDER)
    kept = {name: (copy / "tiny" / name).read_bytes() for name in (n.ASKED_FILE, n.POINTS_FILE, n.TRIALS_FILE)}
    asked = len(optuna_rows(copy / "tiny"))
    run(study, f"storage={copy}")
    assert tree_of(copy / "tiny" / n.STEPS_FOLDER) == before
    assert {name: (copy / "tiny" / name).read_bytes() for name in kept} == kept
    assert len(optuna_rows(copy / "tiny")) == asked


def told_points(folder: Path) -> list[Raw]:
    """The points less the times that were taken, in an order that doesn't depend on which trial was faster."""
    times = (n.SECONDS, n.LATENCY, n.LATENCY_LARGE)
    found = [{key: value for key, value in row.items() if key not in times} for row in rows(folder / n.POINTS_FILE)]
    return sorted(found, key=lambda row: (row[n.TRIAL] is not None, row[n.TRIAL], row[n.STEP]))


DRIVER_S = (n.ASKED_FILE, n.POINTS_FILE, n.TRIALS_FILE, n.OPTUNA_FILE)


@pytest.mark.parametrize("lost", [DRIVER_S, (n.POINTS_FILE,), (n.ASKED_FILE,), (n.ASKED_FILE, n.OPTUNA_FILE)])
def test_the_driver_s_files_are_made_again_from_the_steps(lost: tuple[str, ...], copy: Path, study: Path) -> None:
    steps, points = finished_steps(copy / "tiny"), told_points(copy / "tiny")
    for name in lost:
        (copy / "tiny" / name).unlink()
    run(study, f"storage={copy}")
    again = told_points(copy / "tiny")
    if n.TRIALS_FILE in lost:
        check_made_again(points, again, trials=8)
        assert steps.items() <= finished_steps(copy / "tiny").items()
    else:
        assert again == points
        assert finished_steps(copy / "tiny") == steps
        assert sorted(row[n.TRIAL] for row in rows(copy / "tiny" / n.TRIALS_FILE)) == list(range(8))
    assert told(copy / "tiny") == Counter({row[n.STEP_ID] for row in pruned(again)})


def test_an_exported_point_classifies_as_recorded(
    copy: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = pruned(rows(copy / "tiny" / n.POINTS_FILE))
    settings = load_study(study)
    for family in (n.UNSTRUCTURED, n.STRUCTURED):
        row = next(row for row in points if row[n.FAMILY] == family and row[n.STEP] > 1)
        (copy / "tiny" / n.STEPS_FOLDER / row[n.STEP_ID] / n.WEIGHTS_FILE).unlink()  # made again from its parent
        file = tmp_path / f"{family}.safetensors"
        assert main(["export", str(copy / "tiny"), "--point", row[n.STEP_ID][:10], "--to", str(file)]) == 0
        assert row[n.STEP_ID] in capsys.readouterr().out
        assert evaluate(load(file).model, data.load(settings.data)) == pytest.approx(row[n.ACCURACY])


def front_of(file: Path, *overrides: str) -> set[str]:
    settings = load_study(file, overrides)
    return set(Ledger(settings.folder, settings.objectives, settings.reference.accuracy_drop).front)


def test_keep_front_gives_back_the_rest_and_the_study_goes_on(copy: Path, study: Path) -> None:
    changes = [f"storage={copy}", "keep=front"]
    dense = rows(copy / "tiny" / n.POINTS_FILE)[0][n.STEP_ID]
    run(study, *changes)
    assert weights(copy / "tiny") == {dense} | front_of(study, *changes)
    run(study, *changes, "search.trials=11")
    assert len(rows(copy / "tiny" / n.TRIALS_FILE)) == 11
    assert {row[n.STATE] for row in rows(copy / "tiny" / n.TRIALS_FILE)} == {n.COMPLETE}
    assert weights(copy / "tiny") == {dense} | front_of(study, *changes)


def test_keep_none_leaves_the_dense_network_alone_and_stays_so(copy: Path, study: Path, no_ray: None) -> None:
    dense = rows(copy / "tiny" / n.POINTS_FILE)[0][n.STEP_ID]
    run(study, f"storage={copy}", "keep=none")
    assert weights(copy / "tiny") == {dense}
    before = tree_of(copy / "tiny" / n.STEPS_FOLDER)
    run(study, f"storage={copy}", "keep=none")
    assert tree_of(copy / "tiny" / n.STEPS_FOLDER) == before


@pytest.mark.parametrize("same", [True, False])
def test_a_study_goes_on_where_no_weights_are_left_not_even_the_dense_ones(
    same: bool, copy: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, *before = rows(copy / "tiny" / n.POINTS_FILE)
    store = Store(copy / "tiny" / n.STEPS_FOLDER)
    if not same:  # as if another machine had trained it
        record = store.record(dense[n.STEP_ID])
        assert record is not None
        store.write({**record, n.ACCURACY: 0.125}, {n.WEIGHTS_FILE: b"other"})
    for file in (copy / "tiny" / n.STEPS_FOLDER).glob("*/*.safetensors"):
        file.unlink()
    capsys.readouterr()
    run(study, f"storage={copy}", "search.trials=11")
    said = " ".join(capsys.readouterr().out.split())
    assert ("Seed 0: trained again, the dense network came out different on this machine (12.50%, now" in said) != same
    assert Counter(row[n.STATE] for row in rows(copy / "tiny" / n.TRIALS_FILE)) == {n.COMPLETE: 11}
    after = rows(copy / "tiny" / n.POINTS_FILE)
    assert after[: len(before) + 1] == [dense, *before]
    assert {row[n.STEP_ID] for row in after[len(before) + 1 :]} | {dense[n.STEP_ID]} <= weights(copy / "tiny")


def test_dense_networks_are_trained_again_only_where_something_lies_ahead(tmp_path: Path) -> None:
    sweep = [{"family": "unstructured", "levels": [0.5], "seed": [0, 1, 2]}]
    session = prepare(load_study(write(tmp_path, raw_study(tmp_path, sweep=sweep))))
    tree = session.tree
    for schedule in session.study.schedules():
        tree.record(tree.problem.root(schedule.seed))
    assert lost_seeds(session) == []
    for seed in (0, 1):
        (Path(tree.store.place) / tree.problem.root(seed).id / n.WEIGHTS_FILE).unlink()
    assert lost_seeds(session) == [0, 1]
    list(walk(session.study.schedules()[0], tree))
    tree.store.discard_weights(tree.problem.root(0).id)
    assert lost_seeds(session) == [1]


def test_a_changed_start_is_refused(copy: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree_of(copy / "tiny")
    line = refusal(["run", str(study), "--set", f"storage={copy}", "--set", "resources.cpu=2"], capsys)
    assert line.startswith("error: resources.cpu: ")
    assert "threads 1, and now it is 2" in line
    after = tree_of(copy / "tiny")
    assert {name: state for name, state in after.items() if name != n.LOCK_FILE} == {
        name: state for name, state in before.items() if name != n.LOCK_FILE
    }


HOLD = """
import sys
from pathlib import Path
from search.records.driver import only_driver
with only_driver(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_driver_is_refused_and_a_dead_one_is_not_in_the_way(
    copy: Path, study: Path, capsys: pytest.CaptureFixture[str], no_ray: None
) -> None:
    holder = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", HOLD, str(copy / "tiny")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        for _ in range(2):  # asking doesn't wipe out the holder's number
            line = refusal(["run", str(study), "--set", f"storage={copy}"], capsys)
            assert f"{copy / 'tiny'} is being run by process {holder.pid} on {platform.node()};" in line
    finally:
        holder.kill()
        holder.communicate()
    run(study, f"storage={copy}")


def test_a_dense_training_that_diverges_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_study(tmp_path, dense={"epochs": 1, "learning_rate": 1e30, "batch_size": 32, "threads": 1})
    assert main(["run", str(write(tmp_path, raw))]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: dense: ")
    assert "lower the learning rate" in line
    assert line.count("\n") == 1


def finished_steps(folder: Path) -> Mapping[str, Any]:
    files = (folder / n.STEPS_FOLDER).glob(f"*/{n.STEP_FILE}")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


def test_an_interrupted_command_goes_on_and_computes_only_what_is_missing(tmp_path: Path) -> None:
    sweep = [{"importance": name, "schedule": "linear", "sparsity": 0.9, "steps": 8, "fine_tune_epochs": 2}
             for name in ("magnitude", "random")]  # fmt: skip
    raw = raw_study(tmp_path, sweep=sweep, resources={"cpu": 1})
    file, folder = write(tmp_path, raw), tmp_path / "results" / "tiny"
    said = tmp_path / "said"
    driver = python("-m", "search", "run", str(file), said=said, environment=os.environ)
    deadline = time.monotonic() + 240
    while not (folder / n.POINTS_FILE).exists() or (folder / n.POINTS_FILE).read_bytes().count(b"\n") < 4:
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    assert driver.wait(60) == 130
    assert said.read_text() == f"Interrupted. {GO_ON}\n"
    before, reported = finished_steps(folder), pruned(rows(folder / n.POINTS_FILE))
    assert len(before) < 17
    run(file)
    after, points = finished_steps(folder), pruned(rows(folder / n.POINTS_FILE))
    assert {step: after[step] for step in before} == before
    assert len(after) == 17
    assert points[: len(reported)] == [{**row, **latencies(points, row)} for row in reported]
    assert Counter((row[n.TRIAL], row[n.STEP]) for row in points) == Counter((i, k) for i in (0, 1) for k in range(1, 9))
    assert {row[n.STEP_ID] for row in points if not row[n.REUSED]} >= set(after) - set(before)
    assert told(folder) == Counter(row[n.STEP_ID] for row in points)
    assert TrialState.RUNNING not in {row.state for row in optuna_rows(folder)}
    assert sorted(row[n.TRIAL] for row in rows(folder / n.TRIALS_FILE)) == [0, 1]


def latencies(points: list[Raw], row: Raw) -> Raw:
    """The columns that are filled in at the end of a run."""
    same = next(point for point in points if point[n.STEP_ID] == row[n.STEP_ID])
    return {name: same[name] for name in (n.LATENCY, n.LATENCY_LARGE)}


@pytest.mark.parametrize("counter", ["there", "gone"])
def test_the_dense_training_is_shown_and_does_not_need_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, counter: str
) -> None:
    monkeypatch.setattr(working, "PLAIN_INTERVAL", 0.0)
    monkeypatch.setattr(working, "LOOK", 0.05)
    made = working.counter

    def gone() -> Any:
        actor = made()
        ray.kill(actor)
        return actor

    if counter == "gone":
        monkeypatch.setattr(working, "counter", gone)
    raw = raw_study(tmp_path, sweep=[{"family": "unstructured", "levels": [0.5], "fine_tune_epochs": 1, "seed": [0, 1]}])
    run(write(tmp_path, raw), f"dense.epochs={40 if counter == 'there' else 2}")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Training 2 dense networks:")]
    assert all(" of 80 epochs" in line for line in lines)
    assert bool(lines) == (counter == "there")
