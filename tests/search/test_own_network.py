"""A network of the user's own, from a folder of the user's own: Ray's workers have to find it there."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
from optuna.trial import TrialState

from search.__main__ import main
from tests import ROOT
from tests.search_helpers import FACTORY, NETS, optuna_rows, raw_study, rows, write
from trainables.records import names as n

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_core")]


@pytest.fixture
def cluttered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a network of its user's own and weights for it."""
    (tmp_path / f"{FACTORY}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that the workers find this program from here, as if it was installed
    small = importlib.import_module(FACTORY).small(width=6)
    safetensors.torch.save_file(small.state_dict(), tmp_path / "weights.safetensors")
    yield tmp_path
    sys.modules.pop(FACTORY, None)


def test_own_network_and_weights_three_objectives_and_a_trial_that_fails(cluttered: Path) -> None:
    sweep = [
        {"step_ratio": 0.5, "steps": 2},
        {"family": "structured", "step_ratio": 0.5, "round_to": 64},
        {"family": "structured", "step_ratio": 0.3},
    ]
    model = {"name": f"{FACTORY}:small", "arguments": {"width": 6}, "checkpoint": "weights.safetensors"}
    objectives = ["accuracy", "compression", "latency"]
    raw = raw_study(cluttered, sweep=sweep, model=model, objectives=objectives, storage="results")
    assert main(["run", str(write(cluttered, raw)), "--allow-code"]) == 0
    folder = cluttered / "results" / "tiny"
    trials = {row[n.TRIAL]: row for row in rows(folder / n.TRIALS_FILE)}
    assert [trials[i][n.STATE] for i in range(3)] == [n.COMPLETE, n.FAILED, n.COMPLETE]
    assert "no channel could be removed at 50 % (local, round_to 64)" in trials[1][n.REASON]
    assert trials[1][n.SCHEDULE]["round_to"] == 64
    dense, *points = rows(folder / n.POINTS_FILE)
    assert (dense[n.EPOCHS], dense[n.LATENCY] > 0) == (0, True)
    assert len(points) == 3
    assert all(row[n.LATENCY] > 0 for row in points)
    assert {len(row.values) for row in optuna_rows(folder) if row.values} == {3}
    told = (row for row in optuna_rows(folder) if row.state == TrialState.COMPLETE)
    assert Counter(row.user_attrs[n.STEP_ID] for row in told) == Counter(row[n.STEP_ID] for row in points)
