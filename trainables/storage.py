"""Where files live: a folder, or a prefix in an object store. A key is a path in it, such as ``steps/<id>/step.json``."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from trainables.names import InputError
from trainables.untrusted import read

Place = str | Path
"""A folder, or the URL of a prefix in an object store: ``s3://bucket/prefix``, ``gs://bucket/prefix``."""

Held = Callable[[], bool]
"""Whether a claim is still held; one on an object store can be lost while its host can't be reached."""


LONGEST_HOLDER = 100
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
STORAGE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOLCK, errno.ETIMEDOUT, errno.EMFILE,
    errno.ENFILE,
}  # fmt: skip
"""What every later step would run into too, until somebody makes room, repairs the disk or raises a limit."""
REMEDY = "make room, or repair it"
TEMPORARY = ".tmp"
"""The ending of what is being written, which a process that is killed leaves behind."""


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


def open_storage(place: Place) -> Storage:
    """The storage at a folder or a URL; nothing is read or written yet."""
    if not is_url(place):
        return Folder(Path(place))
    from trainables.object_store import ObjectStore  # noqa: PLC0415 - most studies need none

    return ObjectStore(str(place))


def above(place: Place) -> str:
    """The place that holds this one: its parent folder, or the URL less its last part."""
    return str(place).rstrip("/").rpartition("/")[0]


def this_process() -> str:
    """Who holds a claim, in words."""
    return f"process {os.getpid()} on {platform.node()}"


@dataclass(frozen=True)
class Folder:
    """A folder of this host, or one that all hosts share."""

    path: Path

    def read(self, key: str) -> bytes | None:
        """The content, or None if there is no such file."""
        try:
            return read(self.path / key)
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Put a whole file there."""
        write_atomically(self.path / key, content)

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        (self.path / key).unlink(missing_ok=True)

    def clear(self, folder: str) -> None:
        """Remove a folder with what is in it."""
        shutil.rmtree(self.path / folder, ignore_errors=True)

    def folders_with(self, name: str) -> list[str]:
        """The folders directly below that have a file of this name."""
        return sorted(path.parent.name for path in self.path.glob(f"*/{name}"))

    @contextmanager
    def claim(self, key: str, *, wait: bool = True) -> Iterator[Held]:
        """An advisory file lock, which the operating system gives back when its holder dies."""
        file = self.path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        # A soft lock, which is a file's being there, would outlive a holder that is killed.
        lock = FileLock(file, timeout=-1 if wait else 0, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise HeldError(self.holder(key) or "another process") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise InputError(
                f"storage: {self.path} is on a file system without file locks ({error.strerror}); choose another `storage`"
            ) from None
        try:
            file.write_text(f"{this_process()}\n")
            yield lambda: True
        finally:
            lock.release()

    def holder(self, key: str) -> str | None:
        """Who holds, or held, what the key stands for."""
        return (self.read(key) or b"").decode(errors="replace").strip()[:LONGEST_HOLDER] or None

    def free(self) -> int:
        """Bytes that are free on the disk."""
        return shutil.disk_usage(self._existing()).free

    def check(self, *, writing: bool = True) -> None:
        """InputError if the folder can't be made or written."""
        parent = self._existing()
        if writing and not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise InputError(f"storage: {parent} can't be written; choose another `storage`")

    def _existing(self) -> Path:
        return next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``path`` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_temporaries(*folders: Path) -> None:
    """Remove from these folders, not from those in them, what processes left that were killed in the middle of writing."""
    for folder in folders:
        for left in folder.glob(f".*{TEMPORARY}"):
            left.unlink(missing_ok=True)
