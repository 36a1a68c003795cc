"""Ends what a driver that was killed leaves of Ray: a process of its own, which waits for the driver's end.

Ray's daemons end with their driver, and its workers a few seconds later. Its agents notice that too, and then wait for a
minute for an answer of the daemon that has just ended.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import psutil

INTERVAL = 1.0
"""Seconds between two looks at what the driver has started, directly or not."""
GRACE = 3.0
"""Seconds in which Ray's processes may end on their own after the driver."""


@contextmanager
def reaper() -> Iterator[None]:
    """Have the processes that are started inside end with this one, however it ends, and no others."""
    others = [str(process.pid) for process in psutil.Process().children(recursive=True)]
    command = [sys.executable, __file__, str(os.getpid()), *others]
    waiting = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - this very file
    try:
        yield
    finally:
        # Interrupted, Ray may be half started, which its shutdown doesn't clean up.
        if not isinstance(sys.exception(), KeyboardInterrupt):
            waiting.kill()
        waiting.communicate()


def _descendants(roots: set[psutil.Process], spared: Collection[psutil.Process] = ()) -> set[psutil.Process]:
    """The living ones of these processes, and all that they have started and that still has its parent.

    What is ``spared`` is not looked at, nor what it has started.
    """
    parents: dict[psutil.Process, int] = {}
    for process in psutil.process_iter():  # once for all roots: this goes on as long as the driver runs
        with suppress(psutil.Error):  # it may end meanwhile
            if process not in spared:
                parents[process] = process.ppid()
    found = {root for root in roots if root.is_running()}
    numbers = {process.pid for process in found}
    while born := {process for process, parent in parents.items() if parent in numbers} - found:
        found |= born
        numbers = {process.pid for process in born}
    return found


def main() -> None:
    """Note what the driver starts until the pipe that it holds is closed, and end what is left of that."""
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # what ends the driver in a terminal is sent here too
        signal.signal(ignored, signal.SIG_IGN)
    driver, spared = psutil.Process(int(sys.argv[1])), {psutil.Process()}
    for number in sys.argv[2:]:  # of a notebook, say, which has work of its own
        with suppress(psutil.Error):
            spared.add(psutil.Process(int(number)))
    started: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], INTERVAL)[0]:
        started = _descendants(started | {driver}, spared) - {driver}
    started = _descendants(started)
    _, left = psutil.wait_procs(started, GRACE)
    for process in _descendants(set(left)):
        with suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    main()
