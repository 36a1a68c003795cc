"""A claim on an object store: an object that its holder writes anew every few seconds.

An observer that sees it unchanged for some time, by the observer's own clock, takes it over; so clocks of different hosts
are never compared, and one that is set back does no harm. All writes are conditional on the version that was read, so one
of several always wins. A holder that is cut off can lose its lease without knowing: whatever is claimed must come to no
harm when it is done twice.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from trainables.names import InputError
from trainables.storage import Held, HeldError, this_process
from trainables.untrusted import parse_json

if TYPE_CHECKING:
    from obstore import UpdateVersion as Version

RENEW = 5.0
"""Seconds between two renewals."""
EXPIRY = 30.0
"""Seconds after which a lease that wasn't renewed is taken over."""
POLL = 1.0
"""Seconds between two looks of an observer."""


class Objects(Protocol):
    """What a lease needs of an object store."""

    def read_version(self, key: str) -> tuple[bytes, Version] | None:
        """The content and its version."""

    def write_if(self, key: str, content: bytes, before: Version | None) -> Version | None:
        """Write conditionally; the new version, or None if something else was there."""


@contextmanager
def lease(objects: Objects, key: str, *, wait: bool = True) -> Iterator[Held]:
    """Hold the lease at ``key``; without ``wait``, HeldError as soon as its holder is seen to be alive."""
    mine = _Lease(objects, key)
    mine.acquire(wait=wait)
    done = threading.Event()
    renewing = threading.Thread(target=mine.renew, args=(done,), name=f"lease {key}", daemon=True)
    renewing.start()
    try:
        yield lambda: mine.held
    finally:
        done.set()
        renewing.join()
        mine.release()


class _Lease:
    def __init__(self, objects: Objects, key: str) -> None:
        self._objects, self._key = objects, key
        self._token, self._beat = uuid.uuid4().hex, 0
        self._version: Version | None = None
        self.held = False

    def acquire(self, *, wait: bool) -> None:
        since, seen = time.monotonic(), None
        while True:
            holder, version = self._look()
            if version != seen:
                if seen is not None and holder and not wait:
                    raise HeldError(holder)
                since, seen = time.monotonic(), version
            if not holder or time.monotonic() - since > EXPIRY:
                if self._write(version):
                    return
                continue
            time.sleep(POLL)

    def renew(self, done: threading.Event) -> None:
        while self.held and not done.wait(RENEW):
            with suppress(InputError):  # an outage: the lease may be there afterwards
                self._write(self._version)

    def release(self) -> None:
        with suppress(InputError):  # it will be taken over
            if self.held:
                self._write(self._version, free=True)
        self.held = False

    def _look(self) -> tuple[str | None, Version | None]:
        """Who holds the lease, or None, and its version."""
        found = self._objects.read_version(self._key)
        if found is None:
            return None, None
        return _read(found[0]).get("holder"), found[1]

    def _write(self, before: Version | None, *, free: bool = False) -> bool:
        """Make the object ours, or free, if it still has the version ``before``."""
        self._beat += 1  # no two writes are alike, so no two versions are
        told = {"holder": None if free else this_process(), "token": self._token, "beat": self._beat}
        self._version = self._objects.write_if(self._key, json.dumps(told).encode(), before) or self._written()
        self.held = self._version is not None
        return self.held

    def _written(self) -> Version | None:
        """The version of the object if we wrote it after all, and only the answer was lost on the way."""
        found = self._objects.read_version(self._key)
        return found[1] if found and _read(found[0]).get("token") == self._token else None


def _read(content: bytes) -> dict[str, Any]:
    """What a lease says; one that was damaged is nobody's."""
    with suppress(ValueError):
        told = parse_json(content)
        return told if isinstance(told, dict) else {}
    return {}
