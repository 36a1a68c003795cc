"""Noticing that Ray's own processes on this machine are gone, those of a cluster that was there already included.

Ray then waits a quarter of a minute, or a whole one, declares running trials failed, and ends the driver without a word.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import ray

from search.cluster.watch import watching

NEEDED = ("raylet", "gcs_server")


@contextmanager
def watched() -> Iterator[None]:
    """Leave the process when one of those that Ray starts inside, and can't do without, is gone."""
    seen: set[psutil.Process] = set()

    def wrong() -> str | None:
        if len(seen) < len(NEEDED):  # to look at every process of the machine again and again would cost a core's hundredth
            seen.update(process for process in psutil.Process().children() if _name(process) in NEEDED)
        return _gone(seen)

    with watching(wrong):
        yield


@contextmanager
def daemon_watched(tidy: Callable[[], object]) -> Iterator[None]:
    """Leave the process, after an attempt to ``tidy``, once the daemon on this machine that it is connected to is gone."""
    daemon = _daemon()
    with watching(lambda: _gone(daemon), tidy):
        yield


def _daemon() -> set[psutil.Process]:
    """The raylet at the other end of this process's socket; none where the system doesn't tell."""
    node = ray._private.worker.global_worker.node
    with suppress(OSError, AttributeError, psutil.Error), socket.socket(socket.AF_UNIX) as end:
        end.connect(node.raylet_socket_name if node else "")
        number = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
        return {psutil.Process(number)} if number else set()
    return set()


def _gone(processes: set[psutil.Process]) -> str | None:
    dead = next((process for process in processes if not _lives(process)), None)
    return None if dead is None else f"ray: its process {dead.pid} on this machine died"


def _name(process: psutil.Process) -> str | None:
    with suppress(psutil.Error):
        return process.name() if _lives(process) else None
    return None


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
