"""Latency: measured once for a host and a shape, and never while something of ours computes."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from analysis.columns import frame
from analysis.comparison.told import SPEED_UP_LARGE, values
from analysis.pareto import excess
from tests import ROOT
from trainables import steps
from trainables.measuring import context, latency, quiet, targets, timing
from trainables.measuring.latency import LatencyTable
from trainables.measuring.timing import measure
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.objectives import gains
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.training.loop import evaluate, judge
from trainables.tree import Point, Tree, walk

pytestmark = pytest.mark.usefixtures("short_and_alone")

COLUMNS = {n.LATENCY, n.LATENCY_LARGE}
DENSE_COLUMNS = {n.LATENCY_DENSE, n.LATENCY_LARGE_DENSE}


@pytest.fixture
def table(tree: Tree) -> LatencyTable:
    return LatencyTable(Path(tree.store.place).parent, tree.problem)


def masked(tree: Tree) -> Point:
    return next(walk(UnstructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), tree))


def files(tree: Tree) -> list[Path]:
    return sorted((Path(tree.store.place).parent / n.LATENCY_FOLDER).iterdir())


def forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(context, "measure", fail)


@pytest.mark.parametrize("kind", ["another user's", "writable", "link", "file"])
def test_a_lock_s_folder_that_others_can_write_is_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    for _ in range(2):
        with quiet.computing():
            pass
    [own] = tmp_path.glob("pruning-front-*")
    if kind == "another user's":
        monkeypatch.setattr(quiet.os, "getuid", lambda: own.stat().st_uid + 1)
    elif kind == "writable":
        own.chmod(0o777)
    else:
        shutil.rmtree(own)
        (own.symlink_to(tmp_path) if kind == "link" else own.touch())
    with pytest.raises(InputError, match=f"^latency: {own} can be written by others; remove it") as told, quiet.computing():
        pass
    assert "\n" not in str(told.value)


def test_times_are_positive_and_finite_and_a_large_batch_takes_longer(tree: Tree) -> None:
    model, shape = tree.problem.build(), tree.problem.data.shape
    small, large = measure(model, shape, 1, 1), measure(model, shape, 256, 1)
    assert 0 < small.median_ms < large.median_ms < 10_000
    assert all(math.isfinite(found.iqr_ms) and found.iqr_ms >= 0 for found in (small, large))
    assert (small.batch, large.batch, small.threads) == (1, 256, 1)


class Unsteady(nn.Module):
    """Takes half a millisecond longer each time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.zeros(1)), 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        time.sleep(0.0005 * self.calls)
        return inputs


class Tiny(nn.Module):
    """Computes with a number below those that fp32 holds in full, and remembers whether it was 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.flushed = nn.Parameter(torch.full((1,), 1e-38)), set[bool]()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.flushed.add(not bool((self.weight * 1e-3).any()))
        return inputs


def test_tiny_numbers_are_0_while_something_is_timed_and_only_then() -> None:
    model = Tiny()
    measure(model, (1, 1, 1), 1, 1)
    assert model.flushed == {True}
    model(torch.zeros(1))
    assert model.flushed == {True, False}


def test_what_is_unsteady_is_measured_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_SECONDS", 2.0)
    runs, took, found = {}, {}, {}
    for spread in (0.0, math.inf):
        monkeypatch.setattr(timing, "SPREAD", spread)
        model, began = Unsteady(), time.monotonic()
        found[spread] = measure(model, (1, 1, 1), 1, 1)
        runs[spread], took[spread] = model.calls, time.monotonic() - began
    assert took[0.0] > 2.0 and found[0.0].iqr_ms > 0
    assert runs[0.0] > runs[math.inf]


def test_a_shape_is_measured_once(tree: Tree, table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    point = tree.dense_point(0)
    assert table.find(point) is None
    first = table.of(point, tree)
    assert set(first) == COLUMNS
    assert all(math.isfinite(value) and value > 0 for value in first.values())
    forbid_measuring(monkeypatch)
    assert table.of(point, tree) == table.find(point) == first
    assert LatencyTable(Path(tree.store.place).parent, tree.problem).of(point, tree) == first
    assert len(files(tree)) == 1


def test_masked_networks_share_the_dense_measurement_and_structured_ones_do_not(
    tree: Tree, table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = table.of(tree.dense_point(0), tree)
    narrow = next(walk(StructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), tree))
    assert table.find(narrow) is None
    table.of(narrow, tree)
    assert len(files(tree)) == 2
    forbid_measuring(monkeypatch)
    assert table.of(masked(tree), tree) == dense


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "processor", lambda: "another")


OTHER: dict[str, Callable[[Problem], dict[str, Any]]] = {
    "threads": lambda problem: {"threads": problem.threads + 1},
    "images": lambda problem: {
        "data": replace(problem.data, validation_images=problem.data.validation_images.repeat(6, axis=2))
    },
    "device": lambda _: {"device": "cuda"},
}


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER)
def test_what_was_measured_under_other_conditions_is_not_found(
    changes: Callable[[Problem], dict[str, Any]], tree: Tree, table: LatencyTable
) -> None:
    point = tree.dense_point(0)
    table.of(point, tree)
    assert LatencyTable(Path(tree.store.place).parent, replace(tree.problem, **changes(tree.problem))).find(point) is None


@pytest.mark.parametrize("what", ["processor", "features", "version"])
def test_another_processor_or_version_measures_for_itself(
    what: str, tree: Tree, table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tree.dense_point(0)
    table.of(point, tree)
    if what == "version":
        monkeypatch.setattr(targets.torch, "__version__", "3.0")
    else:
        monkeypatch.setattr(targets, what, lambda: "another")
    assert table.find(point) is None
    table.of(point, tree)
    assert len(files(tree)) == 2


def test_a_host_s_name_is_no_condition(tree: Tree, table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    point = tree.dense_point(0)
    found = table.of(point, tree)
    monkeypatch.setattr(latency.platform, "node", lambda: "elsewhere")
    assert table.find(point) == found


def test_a_ratio_is_taken_under_one_condition(tree: Tree, table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that goes on elsewhere compares with the dense network measured there, not with the one on record."""
    root = tree.dense_point(0)
    here = {**root, **table.beside(root, root, tree)}
    elsewhere(monkeypatch)
    monkeypatch.setattr(context, "measure", lambda *_: timing.Timing(1, 1e6, 0.0, 1))
    narrow = next(walk(StructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), tree))
    there = {**narrow, **table.beside(narrow, root, tree)}
    assert {key for key in there if there[key] == 1e6} == COLUMNS | DENSE_COLUMNS
    assert gains(there, here, ["latency"]) == [0.0]
    assert gains({**there, n.LATENCY_DENSE: None}, here, ["latency"]) != [0.0]
    times = frame([{**row, n.SCHEDULE: None, n.EMPTY_LAYERS: None} for row in (here, there)])
    assert excess(times[1:], ["latency"], times[:1]) == [[0.0]]
    assert list(values(times[1:], SPEED_UP_LARGE, n.ACCURACY)) == [1.0]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"latency_ms": 3}'])
def test_a_damaged_file_is_measured_again(content: bytes, tree: Tree, table: LatencyTable) -> None:
    point = tree.dense_point(0)
    table.of(point, tree)
    files(tree)[0].write_bytes(content)
    assert table.find(point) is None
    assert set(table.of(point, tree)) == COLUMNS
    assert table.find(point) is not None


def test_a_step_whose_weights_are_gone_can_still_be_measured(tree: Tree, table: LatencyTable) -> None:
    point = masked(tree)
    for step_id in tree.store.ids():
        tree.store.discard_weights(step_id)
    assert set(table.of(point, tree)) == COLUMNS


COMPUTING = """
import sys
from trainables.measuring import quiet
with quiet.computing():
    print("computing", flush=True)
    for line in sys.stdin:
        quiet.pause()
        print("paused", flush=True)
"""


@contextmanager
def another_that_computes(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes, as soon as it may and until its input is closed."""
    pipe = subprocess.PIPE
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPUTING]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment) as other:  # noqa: S603 - our own
        yield other


def computes(other: subprocess.Popen[bytes]) -> bool:
    assert other.stdout is not None
    return other.stdout.readline() == b"computing\n"


def let_end(other: subprocess.Popen[bytes]) -> None:
    assert other.stdin is not None
    other.stdin.close()


def wait_until_one_stands_in_the_door() -> None:
    """However long a thread takes to get there beside other programs."""
    until = time.monotonic() + 100
    with (quiet.folder() / quiet.DOOR_FILE).open("ab") as door:
        while time.monotonic() < until:
            try:
                fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(door, fcntl.LOCK_UN)
            time.sleep(0.01)
    raise AssertionError("nobody came")


def test_a_measurement_waits_for_what_computes_and_nothing_begins_meanwhile(
    tree: Tree, table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, order = tree.dense_point(0), list[str]()

    def noted(*_: Any) -> timing.Timing:
        order.append("measured")
        return timing.Timing(1, 1.0, 0.0, 1)

    monkeypatch.setattr(context, "measure", noted)

    def measure_it() -> None:
        table.of(point, tree)

    def begin() -> None:
        assert computes(late)
        order.append("computes")

    with another_that_computes(tmp_path) as first:
        assert computes(first)
        measuring = threading.Thread(target=measure_it, daemon=True)
        measuring.start()
        wait_until_one_stands_in_the_door()
        with another_that_computes(tmp_path) as late:
            beginning = threading.Thread(target=begin, daemon=True)
            beginning.start()
            beginning.join(1.5)
            assert order == []
            let_end(first)
            measuring.join(100)
            beginning.join(100)
            assert order == ["measured", "measured", "computes"]
            let_end(late)


def tell(other: subprocess.Popen[bytes], line: bytes = b"epoch\n") -> None:
    assert other.stdin is not None
    other.stdin.write(line)
    other.stdin.flush()


def test_a_measurement_waits_for_an_epoch_and_not_for_a_training(tmp_path: Path) -> None:
    with another_that_computes(tmp_path) as training:
        assert computes(training)
        measured, go_on = threading.Event(), threading.Event()

        def measure_it() -> None:
            with quiet.quiet():
                measured.set()
                go_on.wait(20)

        measuring = threading.Thread(target=measure_it, daemon=True)
        measuring.start()
        wait_until_one_stands_in_the_door()
        assert not measured.is_set()
        tell(training)  # its epoch has ended
        assert measured.wait(20)
        assert training.stdout is not None
        go_on.set()
        assert training.stdout.readline() == b"paused\n"
        measuring.join(20)
        let_end(training)


def test_a_measurement_gives_way_where_an_epoch_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits behind it begins all the same; and it gets its turn in the end."""
    monkeypatch.setattr(quiet, "PATIENCE", 0.3)
    monkeypatch.setattr(quiet, "ASIDE", 0.3)
    measured = threading.Event()

    def measure_it() -> None:
        with quiet.quiet():
            measured.set()

    with another_that_computes(tmp_path) as long:
        assert computes(long)
        measuring = threading.Thread(target=measure_it, daemon=True)
        measuring.start()
        wait_until_one_stands_in_the_door()
        with another_that_computes(tmp_path) as other:
            assert computes(other)  # though the first still computes, and the measurement waits
            assert not measured.is_set()
            let_end(other)
        let_end(long)
        assert measured.wait(20)
        measuring.join(20)


def test_who_is_killed_holds_up_nobody(tmp_path: Path) -> None:
    with another_that_computes(tmp_path) as other:
        assert computes(other)
        other.kill()
        other.wait(20)
    with quiet.quiet(), quiet.quiet(), quiet.computing():  # nested, it is the same
        assert quiet.pause() == 0.0


def test_what_computes_is_not_mistaken_for_quiet() -> None:
    with quiet.computing(), quiet.computing(), pytest.raises(RuntimeError, match="can't wait"), quiet.quiet():
        pass


def test_a_training_pauses_after_each_epoch_and_scores_and_evaluates_under_the_lock(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for it: the dense network, a step of a trial, and weights that are computed again."""
    held, pauses = [], []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            held.append(bool(quiet._held.depth))
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(steps, "evaluate", noted(evaluate))
    monkeypatch.setattr(context, "judge", noted(judge))
    monkeypatch.setattr(quiet, "pause", lambda: pauses.append(1) or 0.0)
    node = tree.chain(UnstructuredSchedule(step_ratio=0.5, fine_tune_epochs=3))[0]
    tree.content(node)
    assert len(pauses) == tree.problem.dense.epochs + 3
    tree.store.discard_weights(node.id)
    tree.content(node)
    assert len(pauses) == tree.problem.dense.epochs + 6
    assert held and all(held)


def test_who_waits_for_a_step_of_another_keeps_no_measurement_waiting(tree: Tree) -> None:
    root = tree.problem.root(0)
    with tree.store.claim(root.id):
        waiting = threading.Thread(
            target=lambda: tree.record(tree.chain(UnstructuredSchedule(step_ratio=0.5))[0]), daemon=True
        )
        waiting.start()
        time.sleep(0.3)
        with quiet.quiet():
            pass
    waiting.join(60)
    assert not waiting.is_alive()
