"""A study in a bucket, through the command line: interrupted, lost, moved to another host, and driven by one at a time."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url
from optuna.trial import TrialState

import search
from search.__main__ import main
from search.cluster.interrupts import GO_ON
from search.records import snapshots
from tests import ROOT
from tests.conftest import ray_of_one_core
from tests.forks.process import Fork, python
from tests.s3_server import CREDENTIALS, S3
from tests.search_helpers import (
    UNSTRUCTURED_SPACE,
    Raw,
    check_made_again,
    one_line,
    optuna_rows,
    raw_study,
    refusal,
    rows,
    write,
)
from trainables.records import names as n
from trainables.storage import lease
from trainables.storage.places import open_storage

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SAID = "said"
LOST = (n.POINTS_FILE, n.TRIALS_FILE, n.OPTUNA_FILE)
TIMES = (n.SECONDS, n.LATENCY, n.LATENCY_LARGE)
"""Columns that say how long something took: of a report that is made again, the computing alone without the waiting."""


def points_of(folder: Path) -> list[Raw]:
    """The points, in an order that doesn't depend on which trial was faster."""
    found = [{key: value for key, value in row.items() if key not in TIMES} for row in rows(folder / n.POINTS_FILE)]
    return sorted(found, key=lambda row: (row[n.TRIAL] is not None, row[n.TRIAL], row[n.STEP]))


def steps_in(url: str) -> dict[str, str]:
    """The time of writing and the version of every finished step."""
    entries = [entry for page in obstore.list(from_url(url, client_options={"allow_http": True})) for entry in page]
    return {e["path"]: f"{e['last_modified']} {e['e_tag']}" for e in entries if e["path"].endswith(n.STEP_FILE)}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to a folder of one's own, as on another host; what it returns is where the driver keeps its files there."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def go(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        return Path("results") / "tiny"

    return go


@pytest.fixture(scope="module")
def one_ray(s3: S3) -> Iterator[None]:
    """One Ray, whose workers can reach the buckets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        with ray_of_one_core():
            yield


@pytest.fixture
def study(tmp_path: Path, bucket: str) -> Path:
    """The file of a study whose steps are in a bucket."""
    space = {"unstructured": {**UNSTRUCTURED_SPACE, "max_steps": 4}}
    return write(tmp_path, raw_study(tmp_path, storage=f"{bucket}/results", space=space, search={"trials": 6}))


def driver_of(file: Path) -> Fork | subprocess.Popen[bytes]:
    said = file.parent / SAID
    return python("-m", "search", "run", str(file), said=said, environment=os.environ, folder=Path.cwd())


def finish(driver: Fork | subprocess.Popen[bytes], study: Path, status: int) -> str:
    """Its last words."""
    assert driver.wait(300) == status
    return (study.parent / SAID).read_text()


def wait_for_points(driver: Fork | subprocess.Popen[bytes], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while not (folder / n.POINTS_FILE).exists() or (folder / n.POINTS_FILE).read_bytes().count(b"\n") < count:
        assert driver.poll() is None, "the driver ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


HOLD = """
import sys
from pathlib import Path
from search.records.driver import only_driver
with only_driver(Path("results/tiny"), sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_driver_is_refused_wherever_it_is(
    study: Path, bucket: str, elsewhere: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{bucket}/results/tiny"
    elsewhere("first")
    command = [sys.executable, "-c", HOLD, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # noqa: S603 - our own
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for host in ("first", "second"):
            elsewhere(host)
            line = refusal(["run", str(study)], capsys)
            assert f"{url} is being run by process {holder.pid} on {platform.node()};" in line
        assert not Path("results").exists()
        holder.communicate()


@pytest.mark.timeout(900)
def test_killed_continued_elsewhere_lost_and_made_again(
    one_ray: None, study: Path, bucket: str, elsewhere: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    url = f"{bucket}/results/tiny"
    folder = elsewhere("first")
    driver = driver_of(study)
    wait_for_points(driver, folder, 3)
    driver.kill()
    driver.wait(60)
    time.sleep(4)  # its workers end within three seconds
    before = steps_in(url)

    elsewhere("second")
    monkeypatch.setattr(lease, "RENEW", 1.0)
    monkeypatch.setattr(lease, "EXPIRY", 8.0)  # of this driver; its workers wait longer for a step that was under way
    assert main(["run", str(study)]) == 0
    steps, points = steps_in(url), points_of(folder)
    assert before.items() <= steps.items()
    assert {row[n.STEP_ID] for row in points} == {key.split("/")[1] for key in steps}
    assert sorted(row[n.TRIAL] for row in rows(folder / n.TRIALS_FILE)) == list(range(6))
    assert TrialState.RUNNING not in {row.state for row in optuna_rows(folder)}

    def started(**_: object) -> None:
        raise AssertionError("Ray was started with nothing left to do")

    with open_storage(url).claim(n.LOCK_FILE, wait=False) as held:  # given back
        assert held()

    elsewhere("third")
    with monkeypatch.context() as patch:
        patch.setattr("ray.is_initialized", lambda: False)
        patch.setattr("ray.init", started)
        assert main(["run", str(study)]) == 0
    assert points_of(folder) == points
    assert main(["export", url, "--point", points[-1][n.STEP_ID], "--to", "pruned.safetensors"]) == 0

    elsewhere("fourth")
    storage = open_storage(url)
    for name in (*snapshots.FILES, n.SNAPSHOT_FILE):
        storage.delete(name)
    assert main(["run", str(study)]) == 0
    check_made_again(points, points_of(folder), trials=6)
    assert steps.items() <= steps_in(url).items()

    elsewhere("fifth")
    assert main(["confirm", url]) == 0
    assert len(rows(folder / n.CONFIRMED_FILE)) > 0
    assert storage.read(n.CONFIRMED_FILE) == (folder / n.CONFIRMED_FILE).read_bytes()
    assert main(["confirm", url, "--seeds", "2"]) == 0
    again = search.load(url).again
    assert again and all([seen.seed for seen in one.seen] == [1, 2] for one in again)
    elsewhere("sixth")
    assert search.load(url).again == again
    capsys.readouterr()
    assert main(["confirm", url, "--seeds", "2"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Confirmed 0 networks" in out and "To compute: 0 steps, 0 epochs, and 0 of dense networks" in out

    client = from_url(url, client_options={"allow_http": True})
    everything = b"".join(
        bytes(obstore.get(client, entry["path"]).bytes()) for page in obstore.list(client) for entry in page
    ) + b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert not any(secret.encode() in everything for secret in CREDENTIALS.values())


@pytest.mark.timeout(900)
def test_a_store_that_is_away_for_a_while_and_one_that_refuses(
    study: Path, bucket: str, s3: S3, elsewhere: Callable[[str], Path]
) -> None:
    url = f"{bucket}/results/tiny"
    folder = elsewhere("here")
    driver = driver_of(study)
    try:
        wait_for_points(driver, folder, 2)
        s3.refusal = "503 Service Unavailable"
        time.sleep(5)
        s3.refusal = None
        wait_for_points(driver, folder, 4)
        before = steps_in(url)
        s3.refusal = "403 Forbidden"
        said = finish(driver, study, 3)
    finally:
        s3.refusal = None
    assert one_line(said).startswith(f"error: storage: {url}")
    assert "403 Forbidden); check the bucket" in said
    assert said.endswith(f"{GO_ON}\n")
    assert finish(driver_of(study), study, 0) == ""
    steps = steps_in(url)
    assert before.items() <= steps.items()
    assert {row[n.STEP_ID] for row in points_of(folder)} == {key.split("/")[1] for key in steps}
    assert {row[n.STATE] for row in rows(folder / n.TRIALS_FILE)} == {n.COMPLETE}
    assert TrialState.RUNNING not in {row.state for row in optuna_rows(folder)}
