"""A folder of this host, or one that all hosts share, as a storage."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from trainables.records.files import write_atomically
from trainables.records.names import InputError
from trainables.records.untrusted import read
from trainables.storage.base import LONGEST_HOLDER, Held, HeldError, this_process

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


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
