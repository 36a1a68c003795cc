"""Noticing that Ray's own processes on this machine are gone.

Ray then waits a quarter of a minute, declares running trials failed, and ends the driver without a word. What is on disk
is whole at any moment, so the driver leaves as soon as it notices, and says how to go on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from search.interrupts import GO_ON, STOPPED, leave

NEEDED = ("raylet", "gcs_server")
INTERVAL = 0.2
"""Seconds between two looks."""


@contextmanager
def watched() -> Iterator[None]:
    """Leave the process when one of those that Ray starts inside, and can't do without, is gone."""
    over = threading.Event()
    threading.Thread(target=_watch, args=(over,), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(over: threading.Event) -> None:
    seen: set[psutil.Process] = set()
    while not over.wait(INTERVAL):
        seen |= {process for process in psutil.Process().children() if _name(process) in NEEDED}
        gone = next((process for process in seen if not _lives(process)), None)
        if gone is not None and not over.is_set():
            leave(f"error: ray: its process {gone.pid} on this machine died. {GO_ON}", STOPPED)


def _name(process: psutil.Process) -> str | None:
    with suppress(psutil.Error):
        return process.name() if _lives(process) else None
    return None


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
