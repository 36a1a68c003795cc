"""A driver that has lost its hold on a study's URL ends soon, whatever it is doing, and says why in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from search.cluster.interrupts import GO_ON, STOPPED
from search.records.driver import why_lost
from tests import ROOT
from tests.s3_server import S3
from tests.search_helpers import one_line
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.storage.base import this_process
from trainables.storage.places import open_storage

DRIVE = """
import sys
from pathlib import Path
from search.records.driver import only_driver
from search.records.snapshots import Snapshots
from trainables.storage import lease
lease.RENEW, lease.EXPIRY = 0.2, 2.0
with only_driver(Path("results/tiny"), sys.argv[1]) as held, Snapshots(Path("results/tiny"), sys.argv[1], held):
    print("held", flush=True)
    Path("results/tiny/points.jsonl").write_text("the first driver's")
    sys.stdin.read()
"""


@contextmanager
def driver_at(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the study at a URL for as long as its input is open."""
    command, pipe = [sys.executable, "-c", DRIVE, url], subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(  # noqa: S603 - our own
        command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as driver:
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "held\n"
            yield driver
        finally:
            driver.kill()


def last_words(driver: subprocess.Popen[str]) -> str:
    assert driver.stderr is not None
    assert driver.wait(30) == STOPPED
    said = one_line(driver.stderr.read())
    assert said.endswith(GO_ON)
    return said


def test_a_driver_whose_study_was_taken_over_ends_and_leaves_the_successor_s_files(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/results/tiny"
    with driver_at(url, tmp_path) as driver:
        storage = open_storage(url)
        storage.write(n.LOCK_FILE, json.dumps({"holder": "process 7 on another", "token": "x", "beat": 1}).encode())
        storage.write(n.POINTS_FILE, b"the successor's")
        assert last_words(driver).startswith(f"error: storage: {url} was taken over by process 7 on another. ")
    assert storage.read(n.POINTS_FILE) == b"the successor's"


def test_a_driver_that_can_t_reach_its_study_ends_while_nobody_else_can_have_it(
    bucket: str, s3: S3, tmp_path: Path
) -> None:
    url = f"{bucket}/results/tiny"
    with driver_at(url, tmp_path) as driver:
        s3.refusal = "503 Service Unavailable"
        try:
            said = last_words(driver)
        finally:
            s3.refusal = None
    assert said.startswith(f"error: storage: {url} can't be used (")
    assert "503 Service Unavailable" in said


def test_how_a_hold_was_lost(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{bucket}/results/tiny"
    assert why_lost(tmp_path, lambda: True) is None
    assert why_lost(url, lambda: False) == f"storage: {url} was taken over by another driver"
    open_storage(url).write(n.LOCK_FILE, json.dumps({"holder": this_process()}).encode())
    assert why_lost(url, lambda: False) == f"storage: {url} could not be written for a while"

    def fails(*_: object) -> str:
        raise InputError("storage: can't be reached")

    monkeypatch.setattr("trainables.storage.object_store.ObjectStore.holder", fails)
    assert why_lost(url, lambda: False) == "storage: can't be reached"
