"""Latency elsewhere than in PyTorch: by onnxruntime, and by a function of the user's own that is given an ONNX file."""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from search.study import Study
from tests import ROOT
from trainables import own
from trainables.measuring import runtimes
from trainables.measuring.chosen import objective
from trainables.measuring.latency import LatencyTable
from trainables.measuring.runtimes import TARGETS, Own, target_of
from trainables.records.methods import objective_of
from trainables.records.names import InputError
from trainables.records.objectives import LATENCY, LatencyOn, Objective, columns_of
from trainables.records.points import fault_of
from trainables.schedule import UnstructuredSchedule
from trainables.tree import Tree, walk

pytestmark = pytest.mark.usefixtures("short_and_alone")

BOARD = '''
"""A board of the user's own."""
import os
import subprocess
from pathlib import Path


def measure(path):
    print("some words of a driver")
    return os.path.getsize(path) / 1000


def hangs(path):
    child = subprocess.Popen(["sleep", "60"])
    Path("child").write_text(str(child.pid))
    child.wait()


def fails(path):
    raise RuntimeError("no route to host")


def nothing(path):
    return 0


def leaves(path):
    os._exit(3)
'''
NAME = "boards_for_tests:measure"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    (tmp_path / "boards_for_tests.py").write_text(BOARD)
    sys.modules.pop("boards_for_tests", None)
    own.cached_hash.cache_clear()
    return tmp_path


def table(tree: Tree, name: str, **settings: Any) -> LatencyTable:
    problem = replace(tree.problem, latency=settings)
    return LatencyTable(Path(tree.store.place).parent, problem, objective(name, trusted=True))


def refused(tree: Tree, function: str, **settings: Any) -> str:
    with pytest.raises(InputError) as told:
        table(tree, f"latency.boards_for_tests:{function}", **settings).of(tree.dense_point(0), tree)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_onnxruntime_times_a_shape_once_for_its_threads(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree.dense_point(0)
    one = table(tree, "latency.onnx")
    found = one.beside(root, root, tree)
    assert found.keys() == {"latency_onnx_ms", "latency_onnx_dense_ms"} and 0 < found["latency_onnx_ms"] < 1e4
    assert LatencyTable(Path(tree.store.place).parent, tree.problem).find(root) is None  # PyTorch's is another
    assert table(tree, "latency.onnx", threads=2).find(root) is None
    monkeypatch.setattr(runtimes, "Onnx", None)  # nothing is exported again
    masked = next(walk(UnstructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), tree))
    assert one.of(masked, tree) == {"latency_onnx_ms": found["latency_onnx_ms"]}
    monkeypatch.setattr(runtimes.importlib.metadata, "version", lambda _: "9")
    assert one.find(root) is None


def test_a_function_of_one_s_own_is_given_each_network_s_file(tree: Tree, board: Path) -> None:
    root, one = tree.dense_point(0), table(tree, f"latency.{NAME}")
    found = one.of(root, tree)
    [column] = found
    assert column == "latency_boards_for_tests_measure_ms" and found[column] > 1  # a thousand bytes at least
    masked = next(walk(UnstructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), tree))
    assert one.find(masked) is None  # what it runs on may save zeros
    (board / "boards_for_tests.py").write_text(BOARD + "\n# another source\n")
    own.cached_hash.cache_clear()
    assert one.find(root) is None


def test_its_failures_are_one_line(tree: Tree, board: Path) -> None:
    assert "'latency.boards_for_tests:fails' failed (RuntimeError: no route to host)" in refused(tree, "fails")
    assert "returned 0, which is no time in milliseconds" in refused(tree, "nothing")
    assert "failed (exit status 3)" in refused(tree, "leaves")
    began = time.monotonic()
    assert "gave no answer within 3 s; correct it, or raise latency.seconds" in refused(tree, "hangs", seconds=3)
    assert time.monotonic() - began < 30
    child = int((board / "child").read_text())
    deadline = time.monotonic() + 5
    while runs(child):  # what it had started goes with it
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(number: int) -> bool:
    """Whether a process does more than wait for somebody who asks how it ended."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("latency.onx", "did you mean 'latency.onnx'? valid: latency, latency.onnx, latency.package.module:measure"),
        ("latency.torch", "'latency.torch' is called 'latency'; name it so"),
        (f"latency.{NAME}", "would run code of yours; add --allow-code"),
    ],
)
def test_a_target_that_cannot_be_is_one_line(name: str, told: str) -> None:
    with pytest.raises(InputError, match=r"objectives: ") as refusal:
        objective(name, trusted=False)
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


def test_without_onnxruntime_the_extra_is_named(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name))
    with pytest.raises(InputError, match=r"latency.onnx needs onnxruntime, which isn't .*; pip install .*extra onnx"):
        target_of(LatencyOn("onnx"), tree.problem).check()


@pytest.mark.parametrize("one", [LatencyOn("onnx"), LatencyOn(NAME)], ids=str)
def test_a_latency_says_everything_of_itself_by_its_name(one: Objective, tmp_path: Path) -> None:
    assert objective_of(one.name, {}, tmp_path) == one or repr(objective_of(one.name, {}, tmp_path)) == repr(one)
    columns = columns_of([one])
    assert set(columns) - set(columns_of()) == {one.column, one.dense_columns[one.column]}
    assert one.gain(1.0, 2.0) == LATENCY.gain(1.0, 2.0) == 1.0 and one.axis != LATENCY.axis
    assert one.dense_value({one.dense_columns[one.column]: 4.0}, {one.column: 2.0}) == 4.0
    assert "no finite number" in str(fault_of({one.dense_columns[one.column]: "x"}, (), [one], measure=None))


def test_the_targets_are_methods_with_settings() -> None:
    assert TARGETS.make(Own.name, {"function": NAME}, {"seconds": 5.0}).model_dump() == {"seconds": 5.0, "function": NAME}
    settings: dict[str, Any] = {
        "name": "x",
        "space": {"unstructured": {}},
        "data": {"dataset": "digits"},
        "latency": {"threads": 2},
    }
    study = Study(**settings, objectives=["accuracy", "latency.onnx"], limits={"max_latency": {"onnx": "2ms"}})
    assert [one.name for one in study.goals] == ["accuracy", "latency.onnx"] and study.latency.threads == 2  # type: ignore[attr-defined]
    assert study.limits.given == {"max_latency.onnx": 2.0} and not study.own_code()
    with pytest.raises(InputError, match=r"nothing that max_latency limits; add it to objectives"):
        Study(**settings, objectives=["accuracy", "latency.onnx"], limits={"max_latency": "2ms"})
