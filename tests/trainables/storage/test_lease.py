"""A lease has one holder; it passes on when its holder dies or is cut off; and no answer lost on the way changes that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from trainables.records.names import InputError
from trainables.storage import lease as module
from trainables.storage.base import HeldError, this_process
from trainables.storage.lease import lease, look
from trainables.storage.object_store import ObjectStore

PATIENCE = 60.0


class Objects:
    """Versions in memory. A cut-off one reaches nothing; one that loses answers writes, and says that it didn't."""

    def __init__(self, shared: dict[str, tuple[bytes, int]] | None = None) -> None:
        self.shared = {} if shared is None else shared
        self.cut_off = self.loses_answers = self.breaks = False

    def read_version(self, key: str) -> tuple[bytes, dict[str, str]] | None:
        self._reach()
        found = self.shared.get(key)
        return found and (found[0], {"e_tag": str(found[1])})

    def write_if(self, key: str, content: bytes, before: dict[str, str] | None) -> dict[str, str] | None:
        self._reach()
        with LOCK:
            there = self.shared.get(key)
            if (before and before["e_tag"]) != (there and str(there[1])):
                return None
            self.shared[key] = content, (there[1] if there else 0) + 1
        return None if self.loses_answers else {"e_tag": str(self.shared[key][1])}

    def _reach(self) -> None:
        if self.cut_off:
            raise InputError("storage: can't be reached")
        if self.breaks:
            raise RuntimeError("what nobody thought of")


LOCK = threading.Lock()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW", 0.05)
    monkeypatch.setattr(module, "EXPIRY", 1.0)
    monkeypatch.setattr(module, "POLL", 0.02)


def until(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Iterator[Objects | ObjectStore]:
    yield Objects() if request.param == "memory" else ObjectStore(request.getfixturevalue("bucket"))


def test_of_many_one_holds_it(store: Objects | ObjectStore) -> None:
    inside, most, times = [], [], []

    def take() -> None:
        for _ in range(3):
            with lease(store, "key") as held:
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.03)
                times.append(held())
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert times == [True] * 12
    assert set(most) == {1}


def test_without_waiting_the_living_holder_is_named_and_a_free_one_is_had_at_once(store: Objects | ObjectStore) -> None:
    with lease(store, "key"):
        for _ in range(2):
            with pytest.raises(HeldError, match=r"process \d+ on "), lease(store, "key", wait=False):
                pass
        with lease(store, "another", wait=False):
            pass
    with lease(store, "key", wait=False) as held:
        assert held()
    assert not held()


def test_a_holder_that_is_cut_off_loses_it_and_harms_its_successor_in_nothing() -> None:
    mine = Objects()
    other = Objects(mine.shared)
    with lease(mine, "key") as held:
        mine.cut_off = True
        with lease(other, "key", wait=False) as held_by_other:
            mine.cut_off = False
            until(lambda: not held())
            assert held_by_other()
            time.sleep(0.2)
            assert held_by_other()
    with lease(other, "key", wait=False):  # released by its last holder alone
        pass


def test_a_holder_that_can_t_renew_gives_it_up_before_another_has_it() -> None:
    mine = Objects()
    other = Objects(mine.shared)
    with lease(mine, "key") as held:
        mine.cut_off = True
        with lease(other, "key", wait=False):
            assert not held()


def test_who_holds_it_is_told_by_its_own_account() -> None:
    store = Objects()
    assert look(store, "key")[0] is None
    with lease(store, "key"):
        assert look(store, "key")[0] == this_process()
    assert look(store, "key")[0] is None
    store.shared["key"] = b'{"holder": "' + b"x" * 1000 + b'"}', 1
    assert len(look(store, "key")[0] or "") < 200


def test_once_held_it_is_renewed_by_the_client_that_gives_up_quickly() -> None:
    slow = Objects()
    quick = Objects(slow.shared)
    with lease(slow, "key", quick=quick) as held:
        slow.cut_off = True
        before = slow.shared["key"][1]
        until(lambda: slow.shared["key"][1] > before)
        assert held()
    assert look(quick, "key")[0] is None


@pytest.mark.parametrize("trouble", ["cut_off", "breaks"])
def test_a_short_outage_costs_nothing(trouble: str) -> None:
    store = Objects()
    with lease(store, "key") as held:
        setattr(store, trouble, True)
        time.sleep(0.2)
        setattr(store, trouble, False)
        before = store.shared["key"][1]
        until(lambda: store.shared["key"][1] > before)
        assert held()


def test_answers_lost_on_the_way_change_nothing() -> None:
    store = Objects()
    store.loses_answers = True
    with lease(store, "key", wait=False) as held:
        until(lambda: store.shared["key"][1] > 3)
        assert held()
    with lease(Objects(store.shared), "key", wait=False):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"no JSON"])
def test_a_damaged_lease_is_nobody_s(content: bytes) -> None:
    store = Objects({"key": (content, 1)})
    with lease(store, "key", wait=False) as held:
        assert held()


def test_it_is_given_back_when_what_it_was_held_for_fails() -> None:
    store = Objects()
    with pytest.raises(ZeroDivisionError), lease(store, "key"):
        raise ZeroDivisionError
    with lease(store, "key", wait=False):
        pass
