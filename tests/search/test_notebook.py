"""A study in a notebook: its network is written in a cell, and after an interrupt nothing is left but what goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.search_helpers import raw_study, rows
from trainables.records import names as n

pytestmark = [pytest.mark.slow, pytest.mark.ray]

FORKS = "search.Front; from tests.forks.ray_forks import ray_forks_workers; ray_forks_workers()"
"""As in the test's own process, whose environment a kernel has."""
SWEEP = [{"schedule": "linear", "sparsity": 0.9, "steps": 6, "fine_tune_epochs": 2}]

BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
import psutil
sys.path.insert(0, {root!r})
import search
import torch
from torch import nn
{forks}

def activation(x):
    return torch.relu(x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 10)

    def forward(self, x):
        return self.head(activation(self.convolution(x)).mean((2, 3)))

torch.manual_seed(0)
net = Net()
study = search.Study(**{raw!r})
points = study.folder / "points.jsonl"
mine = psutil.Popen(["sleep", "300"])  # of the notebook's own
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
"""
INTERRUPT = """
def interrupt():
    while not points.exists() or points.read_bytes().count(b"\\n") < 3:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)  # as the kernel does

threading.Thread(target=interrupt).start()
try:
    search.run(study, model=net)
    raise AssertionError("it wasn't interrupted")
except KeyboardInterrupt:
    print("interrupted")
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers
left = [one.cmdline() for one in psutil.Process().children(recursive=True) if one != mine]
assert not left, left
assert mine.is_running()
"""
GO_ON = """
front = search.run(study, model=net)
front.members
"""


def test_interrupted_and_gone_on_with_in_a_notebook(tmp_path: Path) -> None:
    import nbclient  # noqa: PLC0415
    import nbformat  # noqa: PLC0415

    raw = raw_study(tmp_path, sweep=SWEEP, model=None)
    cells = [BEGIN.format(root=str(ROOT), raw=raw, forks=FORKS), INTERRUPT, GO_ON, "mine.kill()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, interrupted, ended, _ = notebook.cells
    assert "interrupted" in text_of(interrupted)
    assert "Dense network, seed 0" in text_of(interrupted) and "Ended after the whole sweep of 1" in text_of(ended)
    assert "\x1b" not in text_of(interrupted) + text_of(ended)
    assert [one for cell in notebook.cells for one in cell.outputs if one.get("name") == "stderr"] == []
    assert "<table" in ended.outputs[-1]["data"]["text/html"]
    written = rows(tmp_path / "results" / "tiny" / n.POINTS_FILE)
    assert [row[n.EPOCHS] for row in written if row[n.STEP]] == [2] * 6  # none twice


def test_the_notebook_that_launches_a_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient  # noqa: PLC0415
    import nbformat  # noqa: PLC0415

    notebook = nbformat.read(ROOT / "analysis" / "launch.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is committed without outputs"
    monkeypatch.setenv("PRUNING_STORAGE", str(tmp_path))
    notebook.cells.insert(3, nbformat.v4.new_code_cell(FORKS))  # once the first cell has found the packages
    place = {"metadata": {"path": str(ROOT / "analysis")}}
    nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()
    told = "".join(text_of(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert "Ended after 3 trials" in told and "Ended after 6 trials" in told and "hypervolume" in told
    written = rows(tmp_path / "launched" / n.POINTS_FILE)
    computed = [row[n.STEP_ID] for row in written if row[n.STEP] and not row[n.REUSED]]
    assert len(computed) == len(set(computed)) >= 4 and (tmp_path / "launched" / "pruned.safetensors").stat().st_size > 0


def text_of(cell: Any) -> str:
    return "".join(one.text for one in cell.outputs if one.output_type == "stream")
