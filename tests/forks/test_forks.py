"""A fork is to a test what a process of its own would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.forks import worker
from tests.forks.process import Fork, forks, python

pytestmark = pytest.mark.ray  # forking has begun

TELLS = """
import os, sys
print(os.getpid() == os.getsid(0), os.environ["ASKED"], os.getcwd(), sys.argv[1:], file=sys.stderr)
sys.exit(3)
"""
SLEEPS = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} ")
time.sleep(300)
"""


@pytest.fixture(autouse=True)
def forking() -> None:
    if not forks():
        pytest.skip("processes are real ones here")


def wait_for(file: Path) -> psutil.Process:
    """The process that has written its number."""
    deadline = time.monotonic() + 60
    while not file.exists() or not file.read_text().endswith(" "):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int(file.read_text()))


def test_it_has_its_arguments_environment_folder_session_and_status(tmp_path: Path) -> None:
    script, said = tmp_path / "tells.py", tmp_path / "said"
    script.write_text(TELLS)
    fork = python(str(script), "a", "b", said=said, environment={**os.environ, "ASKED": "yes"}, folder=tmp_path)
    assert isinstance(fork, Fork) and fork.wait(60) == fork.poll() == 3
    assert said.read_text() == f"True yes {tmp_path} ['a', 'b']\n"


def test_it_can_be_killed(tmp_path: Path) -> None:
    script = tmp_path / "sleeps.py"
    script.write_text(SLEEPS)
    fork = python(str(script), str(tmp_path / "number"), said=tmp_path / "said", environment=os.environ)
    assert wait_for(tmp_path / "number").pid == fork.pid
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.1)
    fork.kill()
    assert fork.wait(60) == -signal.SIGKILL
    fork.kill()  # nothing, as with subprocess


@pytest.mark.parametrize("first", ["the worker", "what Ray has started"])
def test_a_worker_and_the_process_that_ray_has_started_live_equally_long(first: str, tmp_path: Path) -> None:
    script = tmp_path / "sleeps.py"
    script.write_text(SLEEPS)
    command = [sys.executable, worker.__file__, "--language=PYTHON", str(script), str(tmp_path / "number")]
    with subprocess.Popen(command) as started:  # noqa: S603 - our own
        fork = wait_for(tmp_path / "number")
        assert os.getpgid(fork.pid) == fork.pid != started.pid
        (fork if first == "the worker" else started).kill()
        started.wait(60)
        deadline = time.monotonic() + 60
        while fork.is_running():
            assert time.monotonic() < deadline
            time.sleep(0.02)
