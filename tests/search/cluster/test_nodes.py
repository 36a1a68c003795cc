"""What is decided about a cluster's nodes, without one; and the Ray that is started on this machine alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
import torch
from rich.console import Console

from search.cluster import connection as ray_cluster
from search.cluster import nodes
from search.cluster.interrupts import GO_ON, STOPPED
from search.cluster.node_checks import Cluster
from search.cluster.nodes import Machine, Node, Terms, dense_cores, difference, this_machine, unfit
from search.records.ledger import Ledger
from search.session import prepare
from search.stages.tasks import dense_task
from search.study import ResourceSettings, SearchSettings, load_study
from search.tune.display import Progress
from search.tune.searcher import FrontSearch
from search.tune.trial import UNFIT, StudyTrainable
from tests import ROOT
from tests.conftest import digits_problem
from tests.search_helpers import raw_study, refusal, write
from trainables.measuring import quiet
from trainables.own import cached_hash, source_hash
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.storage.store import Store
from trainables.tree import Tree


@pytest.mark.parametrize(
    ("cpu", "gpu", "takes", "room"),
    [
        (8, 0, {"cpu": 1}, 8),
        (8, 0, {"cpu": 3}, 2),
        (0.3, 0, {"cpu": 0.1}, 3),
        (8, 2, {"cpu": 1, "gpu": 0.5}, 4),
        (3, 2, {"cpu": 1, "gpu": 0.5}, 3),
        (8, 0, {"cpu": 1, "gpu": 0.5}, 0),
        (0, 4, {"cpu": 1, "gpu": 1}, 0),
        (4, 3, {"cpu": 1, "gpu": 2}, 1),
    ],
)
def test_a_trial_fits_on_one_node_or_not_at_all(cpu: float, gpu: float, takes: Mapping[str, float], room: int) -> None:
    assert Node("", "", cpu, gpu).room(ResourceSettings(**takes)) == room


@pytest.mark.parametrize(
    ("cores", "takes", "threads", "given"),
    [([2, 8], 1, 4, 4), ([2, 3], 1, 4, 3), ([2, 8], 4, 1, 4), ([0.5], 1, 4, 1), ([], 2, 4, 2)],
)
def test_a_dense_network_gets_cores_of_a_node_that_a_trial_fits_on_or_waits_for_one(
    cores: list[float], takes: float, threads: int, given: float
) -> None:
    assert dense_cores([Node("", "", cpu, 0) for cpu in cores], ResourceSettings(cpu=takes), threads) == given


HERE = this_machine("cpu")


def test_a_node_with_other_versions_or_code_is_told_apart() -> None:
    assert difference(HERE, HERE) is None
    assert difference(replace(HERE, processor="another", fastest="fp32", gpu="one"), HERE) is None
    for name in HERE.versions:
        other = replace(HERE, versions={**HERE.versions, name: "0.1"})
        assert str(difference(other, HERE)).startswith(f"has {name} 0.1, and this machine has {HERE.versions[name]}; ")
    assert "another version of this program" in str(difference(replace(HERE, code="0"), HERE))


def test_auto_means_what_is_fast_on_every_node() -> None:
    slow, fast = replace(HERE, fastest="fp32"), replace(HERE, fastest="bf16", processor="another")
    one, two = Node("1", "one", 1, 0), Node("2", "two", 1, 0)
    assert Cluster({one: fast, two: fast}).fastest == "bf16"
    assert Cluster({one: fast, two: slow}).fastest == "fp32"
    assert len(Cluster({one: fast, two: slow}).kinds) == 2


def test_a_driver_without_a_gpu_prepares_a_study_for_nodes_with_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    study = load_study(write(tmp_path, raw_study(tmp_path, resources={"cpu": 4, "gpu": 0.5}, precision="auto")))
    problem = prepare(study, fastest="bf16").tree.problem
    assert (problem.device, problem.precision, problem.threads) == ("cuda", "bf16", 4)
    with pytest.raises(InputError, match="this machine has"):
        prepare(study)


@pytest.fixture
def terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terms:
    """Terms that this machine fulfils."""
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "node"))
    (tmp_path / nodes.PROBE).mkdir()
    (tmp_path / nodes.PROBE / nodes.DRIVER).write_text("secret")
    return Terms(HERE, "cpu", None, tmp_path, "secret")


def test_a_node_shows_that_it_sees_the_same_files(terms: Terms, tmp_path: Path) -> None:
    assert unfit(terms) is None
    assert (tmp_path / nodes.PROBE / "node").read_text() == "secret"
    (tmp_path / nodes.PROBE / nodes.DRIVER).write_text("another driver's")
    assert "doesn't see the same files" in str(unfit(terms))
    assert f"the same files in {tmp_path / 'other'} " in str(unfit(replace(terms, place=tmp_path / "other")))


def test_a_node_sees_the_studies_whose_steps_are_read(terms: Terms, tmp_path: Path) -> None:
    other = tmp_path / "other"
    reading = replace(terms, reuse=(str(other / n.STEPS_FOLDER),))
    assert f"doesn't see the study in {other}; " in str(unfit(reading))
    other.mkdir()
    (other / n.STUDY_FILE).touch()
    assert unfit(reading) is None


def test_a_node_must_be_as_fast_as_what_was_chosen(terms: Terms) -> None:
    other = {"bf16": "fp32", "fp32": "bf16"}[HERE.fastest]
    assert unfit(replace(terms, fastest=HERE.fastest)) is None
    assert f"precision auto chose {other} for the others" in str(unfit(replace(terms, fastest=other)))
    if not torch.cuda.is_available():
        assert "torch finds no GPU" in str(unfit(replace(terms, device="cuda")))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A lock of the test's own, so that no study on this machine is waited for."""
    monkeypatch.setattr(quiet.tempfile, "gettempdir", lambda: str(tmp_path))


def trial_of(tmp_path: Path, terms: Terms | None) -> StudyTrainable:
    trial = StudyTrainable.__new__(StudyTrainable)
    trial.setup({"step_ratio": 0.5, n.TRIAL: 3}, problem=digits_problem(), folder=str(tmp_path / "steps"), terms=terms)
    return trial


def test_the_error_of_a_step_is_a_result_and_that_of_a_gpu_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_of(tmp_path, None)

    def raises(error: Exception) -> None:
        def point(*_: Any) -> None:
            raise error

        monkeypatch.setattr(Tree, "point", point)

    raises(ValueError("no\nchannel"))
    assert trial.step() == {n.REASON: "ValueError: no channel", "done": True}
    raises(torch.AcceleratorError("device-side assert"))
    trial = trial_of(tmp_path, None)
    with pytest.raises(torch.AcceleratorError):
        trial.step()


def progress_of(ledger: Ledger, seen: dict[str, Any]) -> Progress:
    """A display whose trials' ends nobody hears of."""
    return Progress(ledger, cast(FrontSearch, None), SearchSettings(), 1, Console(), seen)


def test_a_late_node_that_is_unfit_computes_nothing_and_stops_the_study(tmp_path: Path, terms: Terms) -> None:
    other = replace(terms, here=replace(HERE, code="0"))
    result = trial_of(tmp_path, other).step()
    assert set(result) == {UNFIT, "done"}
    assert not list((tmp_path / "steps").glob("*"))
    progress = progress_of(Ledger(tmp_path, ("accuracy", "compression"), 0.1), {})
    with pytest.raises(InputError, match="another version of this program"):
        progress.on_trial_result(0, [], None, result)


def test_no_dense_network_is_trained_on_a_late_node_that_is_unfit(tmp_path: Path, terms: Terms) -> None:
    other = replace(terms, here=replace(HERE, code="0"))
    with pytest.raises(InputError, match=r"^--address: node .* runs another version of this program"):
        dense_task(digits_problem(), Store(tmp_path / "steps"), 0, other)
    assert not list((tmp_path / "steps").glob("*"))
    for fit in (terms, None):
        dense_task(digits_problem(), Store(tmp_path / "steps"), 0, fit)
    assert list((tmp_path / "steps").glob("*"))


def test_what_a_trial_ran_on_is_kept(tmp_path: Path, terms: Terms) -> None:
    seen: dict[str, Any] = {}
    dense = digits_problem()
    ledger = Ledger(tmp_path, ("accuracy", "compression"), 0.1)
    trial = trial_of(tmp_path, terms)
    result = trial.step()
    ledger.add_dense(trial._tree.dense_point(0))
    progress = progress_of(ledger, seen)
    task = SimpleNamespace(run_metadata=SimpleNamespace(num_failures=4))
    progress.on_trial_result(0, [], task, result)
    assert list(seen.values()) == [{"processor": HERE.processor, "gpu": None}]
    assert dense.device == "cpu"
    assert task.run_metadata.num_failures == 0, "a step was finished, so what was lost before is forgiven"
    task.run_metadata.num_failures = 4
    progress.on_trial_result(0, [], task, {**result, n.REUSED: True})
    assert task.run_metadata.num_failures == 4


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nonsense", "is neither HOST:PORT nor auto"),
        ("ray://127.0.0.1:10001", "is neither HOST:PORT nor auto"),
        ("127.0.0.1:1", "no Ray cluster can be reached at 127.0.0.1:1 ("),
        ("127.0.0.1:99999", "no Ray cluster can be reached at 127.0.0.1:99999 ("),
    ],
)
def test_an_address_that_leads_nowhere_is_told_in_one_line(
    address: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(["run", str(write(tmp_path, raw_study(tmp_path))), "--address", address], capsys)
    assert line.startswith("error: --address: ")
    assert told in line
    assert not (tmp_path / "results").exists()


LISTENING = """
import psutil, ray
from search.cluster.connection import local
with local():
    ray.get(ray.remote(lambda: 0).remote())
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                print(connection.laddr.ip)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}])
def test_ray_here_alone_listens_to_nobody_else(environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-c", LISTENING]
    done = subprocess.run(  # noqa: S603 - our own command
        command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert done.stdout


WATCHED = """
import time, psutil, ray
from search.cluster.daemon import daemon_watched
ray.init(address="local", log_to_driver=False, include_dashboard=False, num_cpus=1)
with daemon_watched(lambda: print("tidied", flush=True)):
    time.sleep(2)
    [raylet] = [process for process in psutil.Process().children() if process.name() == "raylet"]
    print(f"raylet {raylet.pid}", flush=True)
    raylet.kill()
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_the_death_of_the_daemon_that_a_driver_is_connected_to_ends_it_in_one_line() -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", WATCHED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == STOPPED
    number = next(line for line in done.stdout.splitlines() if line.startswith("raylet ")).removeprefix("raylet ")
    assert "tidied" in done.stdout.splitlines()
    assert done.stderr.splitlines()[-1] == f"error: ray: its process {number} on this machine died. {GO_ON}"


@pytest.mark.parametrize("folder", ["", "/proc/nowhere"])
def test_ray_that_can_t_start_is_told_in_one_line(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(InputError, match=r"^ray: .*RAY_TMPDIR") as refused, ray_cluster.local():
        pass
    assert "\n" not in str(refused.value)


def test_a_machine_s_hardware_is_told_without_a_gpu_too() -> None:
    assert isinstance(HERE, Machine)
    assert this_machine("cuda").gpu is None or torch.cuda.is_available()


def test_a_node_with_other_code_of_the_user_s_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code_of_a_users_own.py").write_text("def net(): pass\n")
    monkeypatch.chdir(tmp_path)
    cached_hash.cache_clear()
    here = this_machine("cpu")
    same = Terms(here, "cpu", None, tmp_path, "secret", {"code_of_a_users_own:net": source_hash("code_of_a_users_own:net")})
    other = replace(same, sources={"code_of_a_users_own:net": "0" * 64})
    monkeypatch.setattr("search.cluster.nodes._unshared", lambda _: None)
    assert unfit(same) is None
    assert "has another code_of_a_users_own:net than this machine" in str(unfit(other))
