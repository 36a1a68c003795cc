"""``python -m search run`` as a process to be killed: it leads a session of its own, in which all that Ray starts stays."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tests import ROOT
from tests.forks.process import python

HOOK = Path(__file__).parent / "hook"
ONE_CORE = {"FAULTS_CORES": "1"}
"""The environment of a driver that runs one trial at a time."""
LINGER = 30.0
"""Seconds after which no process of a dead driver may be left."""


class Driver:
    """A run of a study file, with everything that it says in ``said``."""

    def __init__(self, study: Path, *arguments: str, said: Path, environment: Mapping[str, str] | None = None) -> None:
        given = (environment or {}).get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        path = os.pathsep.join(filter(None, [str(HOOK), str(ROOT), given]))
        self.said = said
        self.process = python(
            "-m", "search", "run", str(study), *arguments, said=said,
            environment={**os.environ, **(environment or {}), "PYTHONPATH": path},
        )  # fmt: skip
        self.ended: float | None = None

    @property
    def running(self) -> bool:
        """Whether the driver itself runs."""
        if self.process.poll() is None:
            return True
        self.ended = self.ended or time.monotonic()
        return False

    def family(self) -> list[psutil.Process]:
        """All living processes of its session, itself left out."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            ours = process.pid != self.process.pid and os.getsid(process.pid) == self.process.pid
            return ours and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # it has ended meanwhile
            return False

    def workers(self) -> list[psutil.Process]:
        """Ray's workers, busy or not."""
        return [one for one in self.family() if _title(one).startswith("ray::") and "Agent" not in _title(one)]

    def raylets(self) -> list[psutil.Process]:
        """Ray's local daemon; a worker that it has just forked looks like it, but isn't the driver's child."""
        with suppress(psutil.Error):  # the driver has ended meanwhile
            return [one for one in psutil.Process(self.process.pid).children() if "raylet/raylet" in _title(one)]
        return []

    def wait(self, seconds: float = 300.0) -> int:
        """The exit status."""
        status = self.process.wait(seconds)
        self.ended = self.ended or time.monotonic()
        return status

    def nobody_is_left(self) -> None:
        """Wait for the processes of a dead driver to end, and fail if some haven't in time."""
        assert self.ended is not None, "the driver still runs"
        while left := self.family():
            assert time.monotonic() < self.ended + LINGER, [_title(process) for process in left]
            time.sleep(0.5)

    def end(self) -> None:
        """Kill all that is left."""
        self.process.kill()
        self.process.wait()
        for process in self.family():
            process.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
