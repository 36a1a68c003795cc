"""Records of steps in one file: everything is read as before, whenever packing is cut off, and what is damaged is told."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest

from tests import ROOT
from trainables.records import names as n
from trainables.records.jsonl import packed
from trainables.records.names import InputError
from trainables.schedule import UnstructuredSchedule
from trainables.storage.base import is_url
from trainables.storage.folder import Folder
from trainables.storage.store import Store, to_json
from trainables.tree import Tree, walk

SCHEDULE = UnstructuredSchedule(step_ratio=0.5, steps=2, fine_tune_epochs=1)


def test_packed_steps_are_read_as_before_and_gone_on_from(stored: Tree) -> None:
    points, store = list(walk(SCHEDULE, stored)), stored.store
    records = {step_id: store.record(step_id) for step_id in store.ids()}
    store.discard_weights(points[0][n.STEP_ID])
    assert store.pack() == 3
    assert store.storage.folders_with(n.STEP_FILE) == []
    for afresh in (store, Store(store.place), pickle.loads(pickle.dumps(store))):  # noqa: S301 - our own
        assert afresh.ids() == afresh.own_ids() == sorted(records)
        assert {step_id: afresh.record(step_id) for step_id in records} == records
    content = store.storage.read(n.PACKED_FILE)
    assert store.pack() == 3 and store.storage.read(n.PACKED_FILE) == content

    tree = Tree(stored.problem, Store(store.place))
    longer = SCHEDULE.model_copy(update={"steps": 3})
    again = list(walk(longer, tree))
    found = [{**point, n.STEPS: 2} for point in again[:2]]
    assert [point[n.ACCURACY] for point in found] == [point[n.ACCURACY] for point in points]
    assert [point[n.EPOCHS] for point in again] == [0, 0, 1]
    assert len(tree.store.storage.folders_with(n.STEP_FILE)) == 1 and len(tree.store.ids()) == 4
    assert tree.store.pack() == 4 and Store(store.place).record(again[2][n.STEP_ID])[n.ACCURACY] == again[2][n.ACCURACY]
    if not is_url(store.place):
        assert sorted(path.name for path in Path(store.place).iterdir() if path.is_dir()) == sorted(
            tree.store.storage.folders_with(n.WEIGHTS_FILE)
        )


def test_another_study_reads_them_and_a_later_record_comes_first(tree: Tree, tmp_path: Path) -> None:
    step_id = next(walk(SCHEDULE, tree))[n.STEP_ID]
    tree.store.pack()
    other = Store(tmp_path / "others", reuse=(tree.store.place,))
    assert other.record(step_id)[n.ACCURACY] == tree.store.record(step_id)[n.ACCURACY] and step_id in other.ids()
    changed = tree.store.amend(tree.store.record(step_id), {"largest": 3})
    assert Store(tree.store.place).record(step_id) == changed
    assert tree.store.pack() == 2 and Store(tree.store.place).record(step_id) == changed


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_packing_that_is_cut_off_loses_nothing(calls: int, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    list(walk(SCHEDULE, tree))
    records = {step_id: tree.store.record(step_id) for step_id in tree.store.ids()}
    left = iter(range(calls))

    def killed(self: Folder, key: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        (self.path / key).unlink()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Folder, "delete", killed)
        tree.store.pack()
    afresh = Store(tree.store.place)
    assert {step_id: afresh.record(step_id) for step_id in afresh.ids()} == records
    assert afresh.pack() == 3 and {step_id: afresh.record(step_id) for step_id in afresh.ids()} == records


@pytest.mark.parametrize(
    "content",
    [b"no gzip", packed({"a": b"{}\n"}), packed({"a": b'{"id": "../a"}\n'}), packed({"a": b'{"id": "a"}\n'})[:-9]],
)
def test_a_damaged_file_is_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / n.PACKED_FILE).write_bytes(content)
    with pytest.raises(InputError, match=n.PACKED_FILE):
        Store(tmp_path).ids()


def test_one_that_asks_for_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.records.jsonl.LARGEST", 1000)
    (tmp_path / n.PACKED_FILE).write_bytes(gzip.compress(b" " * 10**6))
    with pytest.raises(InputError, match="larger than records can be"):
        Store(tmp_path).record("a")


def test_the_committed_steps_have_the_same_records_packed(tmp_path: Path) -> None:
    committed = Store(ROOT / "results" / "cifar10_subset" / n.STEPS_FOLDER)
    some = {step_id: committed.record(step_id) for step_id in committed.ids()[:50]}
    assert all(some.values())
    Folder(tmp_path).write(n.PACKED_FILE, packed({step_id: to_json(record) for step_id, record in some.items()}))
    assert {step_id: Store(tmp_path).record(step_id) for step_id in some} == some
