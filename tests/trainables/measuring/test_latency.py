"""Latency: measured once for a host and a shape, and never while something of ours computes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import ROOT
from trainables.measuring import latency
from trainables.measuring.latency import LatencyTable, measure
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.tree import Point, Tree, walk

COLUMNS = {n.LATENCY, n.LATENCY_LARGE}


@pytest.fixture(autouse=True)
def _short_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measure briefly, under a lock of this test's own."""
    monkeypatch.setattr(latency, "MIN_SECONDS", 0.01)
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(latency.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.fixture
def table(tree: Tree) -> LatencyTable:
    return LatencyTable(Path(tree.store.place).parent, 1)


def masked(tree: Tree) -> Point:
    return next(walk(UnstructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), tree))


def files(tree: Tree) -> list[Path]:
    return sorted((Path(tree.store.place).parent / n.LATENCY_FOLDER).iterdir())


def forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(latency, "measure", fail)


@pytest.mark.parametrize("kind", ["another user's", "writable", "link", "file"])
def test_a_lock_s_folder_that_others_can_write_is_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    for _ in range(2):
        LatencyTable(tmp_path / "study", 1)
    [own] = tmp_path.glob("pruning-front-*")
    if kind == "another user's":
        monkeypatch.setattr(latency.os, "getuid", lambda: own.stat().st_uid + 1)
    elif kind == "writable":
        own.chmod(0o777)
    else:
        shutil.rmtree(own)
        (own.symlink_to(tmp_path) if kind == "link" else own.touch())
    with pytest.raises(InputError, match=f"^latency: {own} can be written by others; remove it") as told:
        LatencyTable(tmp_path / "study", 1)
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
        self.weight, self._calls = nn.Parameter(torch.zeros(1)), 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        time.sleep(0.0005 * self._calls)
        return inputs


def test_what_is_unsteady_is_measured_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MAX_SECONDS", 2.0)
    took = {}
    for spread in (0.0, math.inf):
        monkeypatch.setattr(latency, "SPREAD", spread)
        began = time.monotonic()
        assert measure(Unsteady(), (1, 1, 1), 1, 1).iqr_ms > 0
        took[spread] = time.monotonic() - began
    assert took[0.0] > max(2.0, took[math.inf])


def test_a_shape_is_measured_once(tree: Tree, table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    point = tree.dense_point(0)
    assert table.find(point) is None
    first = table.of(point, tree)
    assert set(first) == COLUMNS
    assert all(math.isfinite(value) and value > 0 for value in first.values())
    forbid_measuring(monkeypatch)
    assert table.of(point, tree) == table.find(point) == first
    assert LatencyTable(Path(tree.store.place).parent, 1).of(point, tree) == first
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


def test_each_host_measures_for_itself(tree: Tree, table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    point = tree.dense_point(0)
    table.of(point, tree)
    monkeypatch.setattr(latency.platform, "node", lambda: "elsewhere")
    assert table.find(point) is None
    table.of(point, tree)
    assert {json.loads(file.read_bytes())["host"] for file in files(tree)} > {"elsewhere"}


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
import pathlib, sys
from trainables.measuring.latency import LatencyTable
with LatencyTable(pathlib.Path(sys.argv[1]), 1).computing():
    print("computing", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_that_computes(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes, as soon as it may and until its input is closed."""
    pipe = subprocess.PIPE
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPUTING, str(tmp_path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment) as other:  # noqa: S603 - our own
        yield other


def computes(other: subprocess.Popen[bytes]) -> bool:
    assert other.stdout is not None
    return other.stdout.readline() == b"computing\n"


def let_end(other: subprocess.Popen[bytes]) -> None:
    assert other.stdin is not None
    other.stdin.close()


@pytest.mark.slow
def test_a_measurement_waits_for_what_computes_and_nothing_begins_meanwhile(
    tree: Tree, table: LatencyTable, tmp_path: Path
) -> None:
    point, order = tree.dense_point(0), list[str]()

    def measure_it() -> None:
        table.of(point, tree)
        order.append("measured")

    def begin() -> None:
        assert computes(late)
        order.append("computes")

    with another_that_computes(tmp_path) as first:
        assert computes(first)
        measuring = threading.Thread(target=measure_it, daemon=True)
        measuring.start()
        with another_that_computes(tmp_path) as late:
            beginning = threading.Thread(target=begin, daemon=True)
            beginning.start()
            beginning.join(8)  # it imports torch before it asks
            assert order == []
            let_end(first)
            measuring.join(100)
            beginning.join(100)
            assert order == ["measured", "computes"]
            let_end(late)
