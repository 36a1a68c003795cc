"""Where a study stands, told from outside."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from search.__main__ import main
from search.records.driver import only_driver
from search.records.snapshots import Snapshots
from search.status import status
from tests.made_up import dense, end, point, write_study
from tests.search_helpers import refusal, tree_of
from trainables.records import names as n


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of three steps in two trials of ten, of which one is stopped, that began ten minutes ago with one."""
    rows = [
        dense(total_epochs=0, epochs=0),
        point(trial=0, step_id="a1", total_epochs=1),
        point(trial=0, step=2, step_id="a2", accuracy=0.88, compression=4.0, epochs=3, total_epochs=4),
        point(trial=1, step=1, step_id="a1", epochs=0, reused=True, total_epochs=1),
    ]
    folder = write_study(
        tmp_path / "made-up", rows, trials=[end(0, "complete"), end(1, "stopped")],
        settings={"search": {"trials": 10}, "sweep": None, "space": {"unstructured": {}}},
    )  # fmt: skip
    began = {"at": (datetime.now(UTC) - timedelta(minutes=10)).isoformat(), "trials": 1, "epochs": 1}
    told = {"first_run": began["at"], "runs": 1, "hours": 0.0, n.BEGAN: began, "nodes": {"b": {}, "a": {}}}
    (folder / n.PROVENANCE_FILE).write_text(json.dumps(told))
    return folder


def test_it_tells_what_is_on_record_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree_of(folder)
    assert main(["status", str(folder)]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["study"] == "made-up, not running"
    assert told["trials"] == "2 of 10, 1 stopped"
    assert told["steps"] == "2 computed, 1 cached"
    assert told["front"].startswith("2 of 4 points, hypervolume 0.0")
    assert told["epochs"] == "4 computed, 1 saved by sharing"
    assert told["nodes"] == "a, b"
    assert status(str(folder))["last point"].startswith("trial 1, step 1, unstructured: accuracy 90.00%, compression 2.00×")
    # One trial in ten minutes, and eight are left.
    left = told["time"].split("about ")[1]
    assert left.startswith(("1:20:", "1:19:")) and left.endswith("left until 10 trials at the pace of this run")
    assert tree_of(folder) == before


def test_it_tells_who_runs_it(folder: Path) -> None:
    with only_driver(folder):
        assert status(str(folder))["study"].startswith("made-up, running (process ")
    (folder / n.LOCK_FILE).write_text("process 1 on another-host")
    assert "last run by process 1 on another-host" in status(str(folder))["study"]


def test_a_study_in_an_object_store_is_told_from_anywhere(folder: Path, bucket: str) -> None:
    place = f"{bucket}/made-up"
    with Snapshots(folder, place, lambda: True):
        pass
    told, here = status(place), status(str(folder))
    assert told.pop("time").split(" ago, about")[1].split(":")[0] == here.pop("time").split(" ago, about")[1].split(":")[0]
    assert told == here


def test_what_holds_no_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no study" in refusal(["status", str(tmp_path)], capsys)
