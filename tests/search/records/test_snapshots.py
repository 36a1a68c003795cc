"""The driver's files as snapshots: whoever goes on has the newest, and nobody who has lost his hold stores older ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.records import snapshots as module
from search.records.snapshots import FILES, Snapshots, local_folder
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.storage.places import open_storage

Host = Callable[[str], Snapshots]


@pytest.fixture
def url(bucket: str) -> str:
    return f"{bucket}/results/tiny"


@pytest.fixture
def host(tmp_path: Path, url: str) -> Host:
    return lambda name: Snapshots(tmp_path / name, url, lambda: True)


def fill(folder: Path, content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (n.ASKED_FILE, n.POINTS_FILE):
        (folder / name).write_text(content)


def told(folder: Path) -> str:
    assert (folder / n.POINTS_FILE).read_text() == (folder / n.ASKED_FILE).read_text()
    return (folder / n.POINTS_FILE).read_text()


def test_a_study_in_a_folder_has_none(tmp_path: Path) -> None:
    fill(tmp_path, "points")
    with Snapshots(tmp_path, tmp_path, lambda: True) as shots:
        shots.store()
    assert sorted(path.name for path in tmp_path.iterdir()) == [n.ASKED_FILE, n.POINTS_FILE]


def test_each_host_goes_on_from_the_newest(tmp_path: Path, host: Host) -> None:
    with host("a"):
        fill(tmp_path / "a", "one")
    with host("b"):
        assert told(tmp_path / "b") == "one"
        fill(tmp_path / "b", "one two")
    fill(tmp_path / "a", "one, and what was lost with the host")
    with host("a"):
        assert told(tmp_path / "a") == "one two"
    fill(tmp_path / "a", "one two three")  # killed before it was stored
    with host("a"):
        assert told(tmp_path / "a") == "one two three"
    with host("b"):
        assert told(tmp_path / "b") == "one two three"


@pytest.mark.parametrize("name", [n.POINTS_FILE, n.ASKED_FILE])
def test_a_file_that_is_missing_is_fetched_with_those_it_belongs_to(name: str, tmp_path: Path, host: Host) -> None:
    with host("a"):
        fill(tmp_path / "a", "one")
    fill(tmp_path / "a", "one two")
    (tmp_path / "a" / name).unlink()
    with host("a"):
        assert told(tmp_path / "a") == "one"


def test_what_has_not_changed_is_not_stored_again(tmp_path: Path, host: Host, url: str) -> None:
    fill(tmp_path / "a", "one")
    with host("a") as shots:
        shots.store()
        count = open_storage(url).read(n.SNAPSHOT_FILE)
        shots.store()
    assert count is not None
    assert open_storage(url).read(n.SNAPSHOT_FILE) == count


def test_one_who_has_lost_his_hold_stores_nothing(tmp_path: Path, url: str) -> None:
    fill(tmp_path, "one")
    with Snapshots(tmp_path, url, lambda: False) as shots:
        shots.store()
    assert [open_storage(url).read(name) for name in FILES] == [None] * len(FILES)


def test_one_who_loses_his_hold_while_he_stores_stores_no_more(tmp_path: Path, url: str) -> None:
    fill(tmp_path, "one")
    answers = iter([True, True, False])
    Snapshots(tmp_path, url, lambda: next(answers)).store()
    assert open_storage(url).read(n.ASKED_FILE) == b"one"
    assert [open_storage(url).read(name) for name in (n.POINTS_FILE, n.SNAPSHOT_FILE)] == [None, None]


def test_snapshots_are_some_time_apart(tmp_path: Path, host: Host, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shots = host("a")
    for content in ("one", "two"):
        fill(tmp_path / "a", content)
        shots.store_if_due()
    assert open_storage(url).read(n.POINTS_FILE) == b"one"
    monkeypatch.setattr(module, "INTERVAL", 0)
    monkeypatch.setattr(module, "SHARE", 0)
    shots = host("a")
    for content in ("three", "four"):
        fill(tmp_path / "a", content)
        shots.store_if_due()
    assert open_storage(url).read(n.POINTS_FILE) == b"four"


def test_what_goes_wrong_in_a_study_is_told_rather_than_that_it_can_t_be_stored(tmp_path: Path, url: str) -> None:
    with pytest.raises(ZeroDivisionError), Snapshots(tmp_path, url, unreachable):
        raise ZeroDivisionError
    with pytest.raises(InputError), Snapshots(tmp_path, url, unreachable):
        pass


def unreachable() -> bool:
    raise InputError("storage: can't be reached")


def test_a_study_given_by_its_url_is_fetched_once(
    tmp_path: Path, host: Host, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host("a"):
        fill(tmp_path / "a", "one")
        (tmp_path / "a" / n.STUDY_FILE).write_text("name: tiny\n")
    monkeypatch.chdir(tmp_path)
    folder = local_folder(f"{url}/")
    assert folder == Path("results/tiny")
    assert told(folder) == "one"
    fill(folder, "one two")
    assert told(local_folder(url)) == "one two"
    assert local_folder("elsewhere/tiny") == Path("elsewhere/tiny")
