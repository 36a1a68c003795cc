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

from tests import ROOT
from tests.conftest import MakeProblem, digits_problem
from trainables.records import files
from trainables.records import names as n
from trainables.records.files import remove_temporaries, write_atomically
from trainables.schedule import UnstructuredSchedule
from trainables.storage import lease
from trainables.storage.base import HeldError, Place, Storage
from trainables.storage.store import Store, to_json
from trainables.tree import Tree, walk

SCHEDULE = UnstructuredSchedule(step_ratio=0.5, steps=2, fine_tune_epochs=1)
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["trainables.tree", "torch._dynamo", "sklearn.model_selection"])  # seconds of imports, once
PATIENCE = 200.0
CLAIM = f"a/{n.CLAIM_FILE}"


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
        patch.setattr(files.os, call, fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert files_of(tmp_path) == {"file"}


def test_what_a_killed_writer_leaves_is_removed(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    killed = "import os, sys, pathlib, trainables.records.files as f; f.os.fsync = lambda _: os._exit(9)"
    killed += "; f.write_atomically(pathlib.Path(sys.argv[1]), b'new')"
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "file")], check=False)  # noqa: S603
    assert done.returncode == 9
    (tmp_path / ".gitignore").touch()
    assert len(files_of(tmp_path)) == 3
    remove_temporaries(tmp_path, tmp_path / "missing")
    assert files_of(tmp_path) == {"file", ".gitignore"}
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_step_is_complete_only_with_its_record(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Store(place)
    write = type(steps.storage).write

    def die_at_the_record(self: Any, key: str, content: bytes) -> None:
        if key.endswith(n.STEP_FILE):
            raise KeyboardInterrupt
        write(self, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(type(steps.storage), "write", die_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            steps.write({"id": "a"}, {n.WEIGHTS_FILE: b"weights"})
    assert steps.record("a") is None
    assert steps.ids() == []
    stored = steps.write({"id": "a"}, {n.WEIGHTS_FILE: b"weights"})
    assert steps.record("a") == stored
    assert steps.weights(stored) == b"weights"
    assert steps.ids() == ["a"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_json_is_an_error_and_completes_nothing(value: float, place: Place) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"accuracy": value})
    with pytest.raises(ValueError, match="JSON"):
        Store(place).write({"id": "a", "accuracy": value}, {})
    assert Store(place).record("a") is None


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
def test_records_of_something_else_count_as_none(content: bytes, place: Place) -> None:
    Store(place).storage.write(f"a/{n.STEP_FILE}", content)
    assert Store(place).record("a") is None


def flip_a_byte(storage: Storage, key: str) -> None:
    content = bytearray(storage.read(key) or b"")
    content[len(content) // 2] ^= 1
    storage.write(key, bytes(content))


@pytest.mark.parametrize("name", [n.STEP_FILE, n.WEIGHTS_FILE])
def test_a_damaged_step_is_computed_again_bit_for_bit(name: str, stored: Tree) -> None:
    list(walk(SCHEDULE, stored))
    node = stored.chain(SCHEDULE)[0]
    record, content = stored.record_of(node), stored.content(node)
    flip_a_byte(stored.store.storage, f"{node.id}/{name}")
    again = Tree(stored.problem, stored.store)
    assert again.content(node) == content
    assert told(again.record(node)) == told(record)
    assert again.epochs == 1


def test_a_damaged_dense_network_is_trained_again_when_a_step_needs_it(stored: Tree) -> None:
    points = list(walk(SCHEDULE, stored))
    root = stored.problem.root(0)
    flip_a_byte(stored.store.storage, f"{root.id}/{n.WEIGHTS_FILE}")
    longer = UnstructuredSchedule(levels=(0.3,))
    again = Tree(stored.problem, stored.store)
    list(walk(longer, again))
    assert again.epochs == 2 + 1
    assert [point["step_id"] for point in walk(SCHEDULE, again)] == [point["step_id"] for point in points]
    assert again.epochs == 3


def test_discarded_weights_leave_the_record(stored: Tree) -> None:
    list(walk(SCHEDULE, stored))
    node = stored.chain(SCHEDULE)[0]
    record = stored.record_of(node)
    stored.store.discard_weights(node.id)
    stored.store.discard_weights(node.id)
    assert stored.store.record(node.id) == record
    assert stored.store.weights(record) is None
    assert node.id in stored.store.ids()


def test_weights_in_memory_serve_without_the_file(stored: Tree) -> None:
    root = stored.problem.root(0)
    content = stored.content(root)
    stored.store.discard_weights(root.id)
    shared = Tree(stored.problem, Store(stored.store.place, {root.id: content}))
    list(walk(SCHEDULE, shared))
    assert shared.epochs == 2


HOLDER = """
import signal, sys
from trainables.storage import lease
from trainables.storage.store import Store
lease.RENEW = 0.2
with Store(sys.argv[1]).claim("a"):
    print("held", flush=True)
    signal.pause()
"""


def test_a_claim_excludes_other_processes_and_passes_on_when_its_holder_dies(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY", 3.0)
    monkeypatch.setattr(lease, "POLL", 0.1)
    claimed = threading.Event()

    def claim() -> None:
        with Store(place).claim("a"):
            claimed.set()

    command = [sys.executable, "-c", HOLDER, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:  # noqa: S603
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with Store(place).claim("b"):
                pass
            with pytest.raises(HeldError, match=f"process {holder.pid} on "), Store(place).storage.claim(CLAIM, wait=False):
                pass
            waiting = threading.Thread(target=claim, daemon=True)
            waiting.start()
            assert not claimed.wait(0.5)
            os.kill(holder.pid, signal.SIGKILL)
            assert claimed.wait(PATIENCE)
            waiting.join(PATIENCE)
        finally:
            holder.kill()


def work(place: Place, environment: dict[str, str], ready: Any, results: Queue[tuple[int, list[dict[str, Any]]]]) -> None:
    os.environ.update(environment)  # the server that forks has that of its own start
    torch.set_num_threads(1)
    mine = Tree(digits_problem(), Store(place))
    ready.wait(PATIENCE)
    points = list(walk(SCHEDULE, mine))
    results.put(
        (mine.epochs, [{key: point[key] for key in ("step_id", "accuracy", "epochs", "reused")} for point in points])
    )


@pytest.mark.slow
def test_four_processes_that_need_the_same_steps_compute_them_once(
    place: Place, problem: MakeProblem, tmp_path: Path
) -> None:
    ready, results = FORK.Barrier(4), FORK.Queue()
    processes = [FORK.Process(target=work, args=(place, dict(os.environ), ready, results), daemon=True) for _ in range(4)]
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
    shared = Tree(problem(), Store(place))
    assert all(shared.content(node) == alone.content(node) for node in alone.chain(SCHEDULE))
