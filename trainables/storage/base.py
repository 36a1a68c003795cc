"""What a place for files offers, be it a folder or a prefix in an object store.

A key is a path in it, such as ``steps/<id>/step.json``.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import psutil

from trainables.records.names import InputError

Place = str | Path
"""A folder, or the URL of a prefix in an object store: ``s3://bucket/prefix``, ``gs://bucket/prefix``."""

Held = Callable[[], bool]
"""Whether a claim is still held; one on an object store can be lost while its host can't be reached."""


LONGEST_HOLDER = 100
STORAGE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOLCK, errno.ETIMEDOUT, errno.EMFILE,
    errno.ENFILE,
}  # fmt: skip
"""What every later step would run into too, until somebody makes room, repairs the disk or raises a limit."""
REMEDY = "make room, or repair it"


class UnreachableError(InputError):
    """An object store doesn't answer, or refuses; whatever is tried next would run into it too."""


class HeldError(RuntimeError):
    """What should be claimed is held by another process, which the message names."""


class Storage(Protocol):
    """Whole files by key. It can be pickled, and costs little to send to a worker."""

    def read(self, key: str) -> bytes | None:
        """The content, or None if there is no such file."""

    def write(self, key: str, content: bytes) -> None:
        """Put a whole file there: a reader, or a crash, sees the old one or the new one and nothing between."""

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""

    def clear(self, folder: str) -> None:
        """Remove what is in a folder, if it is there."""

    def folders_with(self, name: str) -> list[str]:
        """The folders directly below that have a file of this name."""

    def claim(self, key: str, *, wait: bool = True) -> AbstractContextManager[Held]:
        """Hold what the key stands for, waiting for another process to let go, or (HeldError) not."""

    def holder(self, key: str) -> str | None:
        """Who holds, or held, what the key stands for, by its own account; UnreachableError within seconds."""

    def free(self) -> int | None:
        """Bytes that can still be written; None if there is no saying."""

    def check(self, *, writing: bool = True) -> None:
        """InputError, within seconds, if nothing can be read, or written, here."""


def is_url(place: Place) -> bool:
    """Whether a place is given as a URL."""
    return "://" in str(place)


def above(place: Place) -> str:
    """The place that holds this one: its parent folder, or the URL less its last part."""
    return str(place).rstrip("/").rpartition("/")[0]


def this_process() -> str:
    """Who holds a claim, in words."""
    return f"process {os.getpid()} on {platform.node()}"


def is_alive(holder: str) -> bool | None:
    """Whether a process that ``this_process`` named still runs; None if it is another host's."""
    number, _, host = holder.removeprefix("process ").partition(" on ")
    if host != platform.node():
        return None
    return number.isdigit() and psutil.pid_exists(int(number))
