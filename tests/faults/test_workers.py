"""Workers that run out of memory, and workers that are killed by the kernel."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError

from search.__main__ import main
from search.cluster.interrupts import STOPPED
from tests.faults.driver import Driver
from tests.faults.storm import outcome
from tests.search_helpers import one_line, optuna_rows, raw_study, rows, write
from trainables.records import names as n

pytestmark = [pytest.mark.slow, pytest.mark.ray]

FACTORY = "greedy_network_for_tests"
GREEDY = '''
"""A network that asks for too much memory when little is left of it, and is killed when hardly anything is."""
import os, resource, signal, sys
import torch
from torch import nn

class Greedy(nn.Sequential):
    def forward(self, x):
        if not sys.argv[0].endswith("default_worker.py"):  # what looks at it before any trial sees a network like others
            return super().forward(x)
        left = (self[0].weight != 0).float().mean().item()
        if left < 0.4:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does
        if left < 0.6:
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            pages = int(open("/proc/self/statm").read().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, hard))
            try:
                torch.ones(2**30)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return super().forward(x)

def greedy():
    return Greedy(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
'''


def test_a_worker_without_memory_fails_its_trial_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / f"{FACTORY}.py").write_text(GREEDY)
    sweep = [{"step_ratio": ratio, "scope": "layerwise", "steps": 1} for ratio in (0.2, 0.5, 0.7, 0.1)]
    sweep += [{"levels": [0.5, 0.55], "scope": "layerwise"}, {"step_ratio": 0.05, "scope": "layerwise"}]
    raw = raw_study(tmp_path, sweep=sweep, model={"name": f"{FACTORY}:greedy", "arguments": {}})
    study, folder = write(tmp_path, raw), tmp_path / "results" / "tiny"
    driver = Driver(study, "--allow-code", said=tmp_path / "said", environment={"PYTHONPATH": str(tmp_path)})
    try:
        assert driver.wait() == 0, driver.said.read_text()
    finally:
        driver.end()
    trials = {row[n.SCHEDULE].get("step_ratio"): row for row in rows(folder / n.TRIALS_FILE)}
    assert {ratio for ratio, row in trials.items() if row[n.STATE] == n.COMPLETE} == {0.2, 0.1, 0.05}
    assert "allocate" in trials[0.5][n.REASON]
    assert "worker" in trials[0.7][n.REASON] or "died" in trials[0.7][n.REASON]
    assert {row.state.name for row in optuna_rows(folder)} == {"COMPLETE", "FAIL"}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is only forgotten when Python happens to collect it is kept for ever, with the cores that it holds."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector", "one_core")
def test_workers_that_ray_kills_for_want_of_memory_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls, go_on = itertools.count(), RayActorManager.next

    def out_of_memory(manager: RayActorManager, *arguments: Any, **options: Any) -> bool:
        if next(calls) in times:
            raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("3 workers were killed\nand so on")
        return bool(go_on(manager, *arguments, **options))

    monkeypatch.setattr(RayActorManager, "next", out_of_memory)
    study = write(tmp_path, raw_study(tmp_path, sweep=[{"step_ratio": 0.3, "steps": 3}, {"step_ratio": 0.5, "steps": 3}]))
    times = range(10**9)
    assert main(["run", str(study)]) == STOPPED
    assert "error: ray: 3 workers were killed; free memory" in one_line(capsys.readouterr().err)
    calls, times = itertools.count(), range(20, 22)
    assert main(["run", str(study)]) == 0
    assert len(outcome(study)["steps"]) == 6
