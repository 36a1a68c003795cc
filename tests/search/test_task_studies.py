"""A study of another task through the command line: run, stopped early, confirmed, exported and reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from analysis.__main__ import main as analyse
from search.__main__ import main
from tests import ROOT
from tests.search_helpers import UNSTRUCTURED_SPACE, raw_study, rows, write
from tests.task_helpers import NETS, write_masks
from trainables.export import load
from trainables.records import names as n

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]
MODULE = "nets_of_masks_for_tests"


def test_a_segmentation_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    (tmp_path / f"{MODULE}.py").write_text(NETS)
    raw = raw_study(
        tmp_path, data={"dataset": "folder", "root": str(write_masks(tmp_path / "masks")), "validation_fraction": 0.3},
        task={"name": "segmentation"}, model={"name": f"{MODULE}:maps"}, space={"unstructured": UNSTRUCTURED_SPACE},
        dense={"epochs": 6, "batch_size": 8, "threads": 1}, search={"trials": 2, "stop": "front"},
        storage_forms=["fp32", "int8"],
    )  # fmt: skip
    assert main(["run", str(write(tmp_path, raw)), "--allow-code"]) == 0
    shown, folder = capsys.readouterr().out, tmp_path / "results" / "tiny"
    points = rows(folder / n.POINTS_FILE)
    assert "validation mean IoU" in shown and all(0.1 < row["mean_iou"] <= 1 for row in points)
    assert all(row[n.ACCURACY] is None and row["mean_iou_error"] > 0 for row in points)
    assert main(["confirm", str(folder), "--allow-code", "--set", f"data.root={tmp_path / 'masks'}"]) == 0
    assert all(0 < row["test_mean_iou"] <= 1 for row in rows(folder / n.CONFIRMED_FILE))
    point = next(row[n.STEP_ID] for row in points if row[n.STEP] == 1)
    assert main(["export", str(folder), "--point", point, "--to", "net.safetensors", "--allow-code"]) == 0
    exported = load("net.safetensors", allow_code=True)
    assert exported.model(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    assert analyse(["report", str(folder)]) == 0
    assert "Mean_iou against compression" in (folder / n.REPORT_FOLDER / "index.html").read_text()
