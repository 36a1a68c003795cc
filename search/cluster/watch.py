"""Ending the process when what its run rests on is gone: Ray's daemon, or the right to be a study's only driver.

What waits for a daemon that has died, or writes to a store that can't be reached, may wait for minutes. What is on disk is
whole at any moment, so the driver leaves as soon as it notices, and says how to go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from search.cluster.interrupts import GO_ON, STOPPED, leave

INTERVAL = 0.2
"""Seconds between two looks."""
TIDYING = 5.0
"""Seconds for what is removed at the last."""


@contextmanager
def watching(wrong: Callable[[], str | None], tidy: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Leave the process once something is ``wrong``, which is told in one line, after an attempt to ``tidy``."""
    over = threading.Event()
    threading.Thread(target=_watch, args=(wrong, tidy, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(wrong: Callable[[], str | None], tidy: Callable[[], object], over: threading.Event) -> None:
    while not over.wait(INTERVAL):
        reason = wrong()
        if reason is not None and not over.is_set():
            tidying = threading.Thread(target=_quietly, args=(tidy,), daemon=True)
            tidying.start()
            tidying.join(TIDYING)
            leave(f"error: {reason}. {GO_ON}", STOPPED)


def _quietly(tidy: Callable[[], object]) -> None:
    with suppress(Exception):  # the next run removes what is left
        tidy()
