"""The tree on disk: whole or not at all; damage is found and made good; a claim is exclusive, and dies with its holder."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeProblem, digits_problem
from trainables import names as n
from trainables import storage as storage_module
from trainables.schedule import UnstructuredSchedule
from trainables.storage import write_atomically
from trainables.store import Store, to_json
from trainables.walk import Tree, walk

SCHEDULE = UnstructuredSchedule(step_ratio=0.5, steps=2, fine_tune_epochs=1)
SPAWN = multiprocessing.get_context("spawn")
PATIENCE = 200.0


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def told(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs between two computations of the same step: the seconds, and so its checksum."""
    return {key: value for key, value in record.items() if key not in (n.SECONDS, "checksum")}


def test_writing_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert files_of(tmp_path) == {"folder/file"}


@pytest.mark.parametrize("call", ["fsync", "fdopen"])
def test_a_write_that_fails_leaves_the_old_file_and_no_partial_one(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    target = tmp_path / "file"
    write_atomically(target, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(storage_module.os, call, fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert files_of(tmp_path) == {"file"}


def test_a_step_is_complete_only_with_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Store(tmp_path)
    write = write_atomically

    def die_at_the_record(path: Path, content: bytes) -> None:
        if path.name == n.STEP_FILE:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage_module, "write_atomically", die_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            steps.write({"id": "a"}, {n.WEIGHTS_FILE: b"weights"})
    assert steps.record("a") is None
    assert steps.ids() == []
    stored = steps.write({"id": "a"}, {n.WEIGHTS_FILE: b"weights"})
    assert steps.record("a") == stored
    assert steps.weights(stored) == b"weights"
    assert steps.ids() == ["a"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_json_is_an_error_and_completes_nothing(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"accuracy": value})
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path).write({"id": "a", "accuracy": value}, {})
    assert Store(tmp_path).record("a") is None


def test_every_flipped_byte_of_a_record_is_noticed(tmp_path: Path) -> None:
    steps = Store(tmp_path)
    steps.write({"id": "a", "accuracy": 0.75, "layers": {"conv": [3, 4]}}, {n.WEIGHTS_FILE: b"weights"})
    whole = (tmp_path / "a" / n.STEP_FILE).read_bytes()
    original = steps.record("a")
    for place in range(len(whole)):
        for flip in (0x01, 0x80):
            damaged = whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]
            (tmp_path / "a" / n.STEP_FILE).write_bytes(damaged)
            assert steps.record("a") in (None, original)  # white space may differ
    for length in range(len(whole) - 1):
        (tmp_path / "a" / n.STEP_FILE).write_bytes(whole[:length])
        assert steps.record("a") is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff\xfe", b'{"id": "b"}', b'{"id": "a"}', b'{"id": "a", "x": NaN}']
)
def test_records_of_something_else_count_as_none(content: bytes, tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / n.STEP_FILE, content)
    assert Store(tmp_path).record("a") is None


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", [n.STEP_FILE, n.WEIGHTS_FILE])
def test_a_damaged_step_is_computed_again_bit_for_bit(name: str, tree: Tree) -> None:
    list(walk(SCHEDULE, tree))
    node = tree.chain(SCHEDULE)[0]
    record, content = tree.record_of(node), tree.content(node)
    flip_a_byte(Path(tree.store.place) / node.id / name)
    again = Tree(tree.problem, tree.store)
    assert again.content(node) == content
    assert told(again.record(node)) == told(record)
    assert again.epochs == 1


def test_a_damaged_dense_network_is_trained_again_when_a_step_needs_it(tree: Tree) -> None:
    points = list(walk(SCHEDULE, tree))
    root = tree.problem.root(0)
    flip_a_byte(Path(tree.store.place) / root.id / n.WEIGHTS_FILE)
    longer = UnstructuredSchedule(levels=(0.3,))
    again = Tree(tree.problem, tree.store)
    list(walk(longer, again))
    assert again.epochs == 2 + 1
    assert [point["step_id"] for point in walk(SCHEDULE, again)] == [point["step_id"] for point in points]
    assert again.epochs == 3


def test_discarded_weights_leave_the_record(tree: Tree) -> None:
    list(walk(SCHEDULE, tree))
    node = tree.chain(SCHEDULE)[0]
    record = tree.record_of(node)
    tree.store.discard_weights(node.id)
    tree.store.discard_weights(node.id)
    assert tree.store.record(node.id) == record
    assert tree.store.weights(record) is None
    assert node.id in tree.store.ids()


def test_weights_in_memory_serve_without_the_file(tree: Tree) -> None:
    root = tree.problem.root(0)
    content = tree.content(root)
    tree.store.discard_weights(root.id)
    shared = Tree(tree.problem, Store(tree.store.place, {root.id: content}))
    list(walk(SCHEDULE, shared))
    assert shared.epochs == 2


HOLDER = """
import pathlib, signal, sys
from trainables.store import Store
with Store(pathlib.Path(sys.argv[1])).claim("a"):
    print("held", flush=True)
    signal.pause()
"""


def test_a_claim_excludes_other_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    claimed = threading.Event()

    def claim() -> None:
        with Store(tmp_path).claim("a"):
            claimed.set()

    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as holder:  # noqa: S603
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with Store(tmp_path).claim("b"):
                pass
            waiting = threading.Thread(target=claim, daemon=True)
            waiting.start()
            assert not claimed.wait(0.5)
            os.kill(holder.pid, signal.SIGKILL)
            assert claimed.wait(PATIENCE)
            waiting.join(PATIENCE)
        finally:
            holder.kill()


def work(folder: str, ready: Any, results: Queue[tuple[int, list[dict[str, Any]]]]) -> None:
    torch.set_num_threads(1)
    mine = Tree(digits_problem(), Store(Path(folder)))
    ready.wait(PATIENCE)
    points = list(walk(SCHEDULE, mine))
    results.put(
        (mine.epochs, [{key: point[key] for key in ("step_id", "accuracy", "epochs", "reused")} for point in points])
    )


@pytest.mark.slow
def test_four_processes_that_need_the_same_steps_compute_them_once(tmp_path: Path, problem: MakeProblem) -> None:
    folder = tmp_path / "together"
    ready, results = SPAWN.Barrier(4), SPAWN.Queue()
    processes = [SPAWN.Process(target=work, args=(str(folder), ready, results), daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=PATIENCE) for _ in processes]
    finally:
        for process in processes:
            process.join(PATIENCE)
            process.kill()
    assert sum(epochs for epochs, _ in found) == 2 + 1 + 1
    assert len({json.dumps([(p["step_id"], p["accuracy"]) for p in points]) for _, points in found}) == 1
    alone = Tree(problem(), Store(tmp_path / "alone"))
    expected = list(walk(SCHEDULE, alone))
    assert [p["step_id"] for p in found[0][1]] == [p["step_id"] for p in expected]
    shared = Tree(problem(), Store(folder))
    assert all(shared.content(node) == alone.content(node) for node in alone.chain(SCHEDULE))
