"""Noticing that Ray's own processes on this machine are gone.

Ray then waits a quarter of a minute, declares running trials failed, and ends the driver without a word. What is on disk
is whole at any moment, so the driver leaves as soon as it notices, and says how to go on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from search.interrupts import GO_ON, STOPPED, leave

NEEDED = ("raylet", "gcs_server")
INTERVAL = 0.2
"""Seconds between two looks."""


@contextmanager
def watched() -> Iterator[None]:
    """Leave the process when one of the processes that Ray has just started, and can't do without, is gone."""
    needed = [process for process in psutil.Process().children() if process.name() in NEEDED]
    over = threading.Event()
    threading.Thread(target=_watch, args=(needed, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(needed: Sequence[psutil.Process], over: threading.Event) -> None:
    while not over.wait(INTERVAL):
        for process in needed:
            gone = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
            if gone and not over.is_set():
                leave(f"error: ray: its process {process.pid} on this machine died. {GO_ON}", STOPPED)
