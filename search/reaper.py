"""Ends what a driver that was killed leaves of Ray: a process of its own, which waits for the driver's end.

Ray's daemons end with their driver, and its workers a few seconds later. Its agents notice that too, and then wait for a
minute for an answer of the daemon that has just ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

SECONDS = 10.0
"""So long after the driver's end the last of its processes may lose its parent."""


@contextmanager
def reaper() -> Iterator[None]:
    """Have the processes of Ray that are started inside end with this one, however it ends."""
    waiting = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE)  # noqa: S603 - this very file
    try:
        yield
    finally:
        # Interrupted, Ray may be half started, which its shutdown doesn't clean up; and this process is about to end.
        if not isinstance(sys.exception(), KeyboardInterrupt):
            waiting.kill()
            waiting.communicate()


def _orphans() -> Iterator[psutil.Process]:
    """Ray's processes of this session whose parent was of this session too, and is no more."""
    session = os.getsid(0)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it may end meanwhile
            parent = process.ppid()
            if os.getsid(process.pid) == session and (parent == 1 or os.getsid(parent) != session):
                command = " ".join(process.cmdline())
                if command.startswith("ray::") or "/ray/" in command:
                    yield process


def main() -> None:
    """Wait for the end of the pipe that the driver holds, and then for orphans."""
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # what ends the driver in a terminal is sent here too
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.read()
    for _ in range(int(SECONDS)):
        time.sleep(1)
        for orphan in _orphans():
            with suppress(psutil.Error):
                orphan.kill()


if __name__ == "__main__":
    main()
