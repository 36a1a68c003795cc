"""A study whose measure is to be minimised through the command line: run, confirmed, exported and reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import search
from analysis.__main__ import main as analyse
from search.__main__ import main
from tests.search_helpers import UNSTRUCTURED_SPACE, raw_study, rows, write
from tests.task_helpers import write_numbers
from trainables.export import load
from trainables.records import names as n
from trainables.records.points import point_id

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]


def test_a_regression_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_numbers(tmp_path / "numbers")
    data = {"dataset": "csv", "root": str(root), "label_columns": ["red", "green"], "validation_fraction": 0.4, "crop": 0}
    raw = raw_study(
        tmp_path, data=data, task={"name": "regression", "measured_by": "mae"}, reference={"drop": 0.3},
        dense={"epochs": 6, "batch_size": 8, "threads": 1}, space={"unstructured": UNSTRUCTURED_SPACE},
        search={"trials": 2, "stop": "front"}, storage_forms=["fp32", "int8"], limits={"max_drop": 0.2},
    )  # fmt: skip
    assert main(["run", str(write(tmp_path, raw))]) == 0
    shown, folder = capsys.readouterr().out, tmp_path / "results" / "tiny"
    points = rows(folder / n.POINTS_FILE)
    assert "validation mean absolute error" in shown and all(0 < row["mae"] < 2 and row["mae_error"] > 0 for row in points)
    assert all(row[n.ACCURACY] is None and row["mae_before"] is not None for row in points)
    assert main(["status", str(folder)]) == 0 and "mae" in capsys.readouterr().out
    assert main(["confirm", str(folder), "--set", f"data.root={root}"]) == 0
    assert all(row["test_mae"] > 0 for row in rows(folder / n.CONFIRMED_FILE))
    check_fresh_seeds(folder, root, capsys)
    point, target = next(row[n.STEP_ID] for row in points if row[n.STEP] == 1), tmp_path / "net.safetensors"
    assert main(["export", str(folder), "--point", point, "--to", str(target)]) == 0
    assert load(target).model(torch.zeros(1, 3, 16, 16)).shape == (1, 2)
    capsys.readouterr()
    assert analyse(["best", str(folder)]) == 0 and "Limits: mae at most" in capsys.readouterr().out
    assert analyse(["report", str(folder)]) == 0
    page = (folder / n.REPORT_FOLDER / "index.html").read_text()
    assert "Mae against compression" in page and "What the test data said" in page and "± " in page


def check_fresh_seeds(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The front again on two seeds, in its stored forms; the same command computes and opens nothing more."""
    again, place = ["confirm", str(folder), "--seeds", "2", "--set", f"data.root={root}"], folder / n.CONFIRMATION_FOLDER
    assert main(again) == 0
    out = capsys.readouterr().out
    assert "Again on 2 fresh seeds" in out and "The front on fresh seeds (test): mae" in out
    front = search.load(folder)
    members = front.again
    assert [one.point for one in members] == [point_id(row) for row in front._ledger.members()]
    assert all([seen.seed for seen in one.seen] == [1, 2] for one in members)
    dense = {
        row[n.SEED]: row["test_mae"] for row in rows(place / n.CONFIRMED_FILE) if row[n.STORED_FORMAT] == n.SAFETENSORS
    }
    for one in members:  # less is better: what is larger than the dense network's was lost
        assert all(seen.lost == pytest.approx(seen.value - dense[seen.seed]) for seen in one.seen)
        assert all(seen.to_control is not None for seen in one.seen) and 0 <= one.on_front <= 1
    card = folder.parent / "again.compact.md"  # of a stored form, too
    front.export(members[0].point, card.with_suffix(""), form=n.COMPACT)
    assert members[0].told(search.load(folder).study.measure) in card.read_text()
    before = (rows(place / n.POINTS_FILE), rows(place / n.CONFIRMED_FILE), rows(folder / n.OPENINGS_FILE))
    assert len({row[n.STEP_ID] for row in before[1] if row[n.SEED] == 1}) > 2 and len(before[2]) == 2
    assert main(again) == 0
    assert (rows(place / n.POINTS_FILE), rows(place / n.CONFIRMED_FILE), rows(folder / n.OPENINGS_FILE)) == before
