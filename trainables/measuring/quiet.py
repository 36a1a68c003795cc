"""The lock of this host that keeps it quiet while something is timed: another study's training disturbs as much as ours.

Whatever computes holds it with others (``computing``), and what is timed alone (``quiet``). Who waits for quiet stands in
the door through which everything that begins must go, so that nothing new begins. A training lets go between two epochs
and comes back through the door (``pause``): so a measurement, and all that it holds up, waits for an epoch and never for
a training. Where even an epoch is long, the measurement leaves the door after some seconds, lets begin who waits behind
it, and tries again with twice the patience; so it gets its turn. Both are locks of the kernel on open files, which it
takes back when their holder ends, however that was.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from trainables.records.names import InputError

PATIENCE = 20.0
"""Seconds that a measurement stands in the door at first."""
ASIDE = 1.0
"""Seconds that it stands aside, in which those behind it begin."""
POLL = 0.05
QUIET_FILE, DOOR_FILE = "quiet.lock", "door.lock"


class _Held(threading.local):
    """What this thread holds, and how often: work within work takes no second lock, which might wait for the first."""

    depth = 0
    file: IO[bytes] | None = None
    alone = False


_held = _Held()


@contextmanager
def computing() -> Iterator[None]:
    """Hold this while computing; within itself, or within ``quiet``, it does nothing."""
    if not _held.depth:
        _begin()
    _held.depth += 1
    try:
        yield
    finally:
        _held.depth -= 1
        if not _held.depth:
            _end()


@contextmanager
def quiet() -> Iterator[None]:
    """Hold this while timing, around several measurements too: what computed has paused, and nothing begins."""
    if _held.depth and not _held.alone:
        raise RuntimeError("what computes can't wait for what computes to end")
    if not _held.depth:
        _held.file, _held.alone = _alone(), True
    _held.depth += 1
    try:
        yield
    finally:
        _held.depth -= 1
        if not _held.depth:
            _end()


def pause() -> float:
    """Let a measurement that waits go first; to be called where nothing is lost by it. Returns the seconds that it took."""
    if not _held.depth or _held.alone:
        return 0.0
    began = time.monotonic()
    _end()
    _begin()
    return time.monotonic() - began


def folder() -> Path:
    """This user's folder for locks on this host; InputError if another user has, or may write, what has its name."""
    own = Path(tempfile.gettempdir()) / f"pruning-front-{getpass.getuser()}"
    with suppress(FileExistsError):
        own.mkdir(mode=0o700)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(f"latency: {own} can be written by others; remove it, or name another folder with TMPDIR")
    return own


def _begin() -> None:
    with _door():
        file = (folder() / QUIET_FILE).open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
    _held.file = file


def _end() -> None:
    file, _held.file, _held.alone = _held.file, None, False
    if file is not None:
        file.close()


def _alone() -> IO[bytes]:
    """The lock, held alone."""
    file, patience = (folder() / QUIET_FILE).open("ab"), PATIENCE
    while True:
        with _door():
            until = time.monotonic() + patience
            while time.monotonic() < until:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return file
                time.sleep(POLL)
        time.sleep(ASIDE)
        patience *= 2


@contextmanager
def _door() -> Iterator[None]:
    with (folder() / DOOR_FILE).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
