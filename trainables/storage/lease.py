"""A claim on an object store: an object that its holder writes anew every few seconds.

An observer that sees it unchanged for some time, by the observer's own clock, takes it over; so clocks of different hosts
are never compared, and one that is set back does no harm. All writes are conditional on the version that was read, so one
of several always wins. A holder that can't renew its lease counts it as lost some seconds before another may take it.
A holder whose host sleeps meanwhile knows of nothing: whatever is claimed must come to no harm when it is done twice.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from trainables.records.names import InputError
from trainables.records.untrusted import parse_json
from trainables.storage.base import LONGEST_HOLDER, Held, HeldError, this_process

if TYPE_CHECKING:
    from obstore import UpdateVersion as Version

RENEW = 5.0
"""Seconds between two renewals."""
EXPIRY = 30.0
"""Seconds after which a lease that wasn't renewed is taken over."""
RELIABLE = 0.8
"""The share of that time after which its holder gives it up: what it is writing then ends before there is another."""
POLL = 1.0
"""Seconds between two looks of an observer."""


class Objects(Protocol):
    """What a lease needs of an object store."""

    def read_version(self, key: str) -> tuple[bytes, Version] | None:
        """The content and its version."""

    def write_if(self, key: str, content: bytes, before: Version | None) -> Version | None:
        """Write conditionally; the new version, or None if something else was there."""


@contextmanager
def lease(objects: Objects, key: str, *, wait: bool = True, quick: Objects | None = None) -> Iterator[Held]:
    """Hold the lease at ``key``; without ``wait``, HeldError as soon as its holder is seen to be alive.

    ``quick`` are the same objects, of a client that gives up within seconds: it is asked again before the lease expires.
    """
    mine = _Lease(objects, key)
    mine.acquire(wait=wait)
    mine.objects = quick or objects
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
        self.objects, self._key = objects, key
        self._token, self._beat, self._renewed = uuid.uuid4().hex, 0, 0.0
        self._version: Version | None = None

    @property
    def held(self) -> bool:
        """Whether nobody else can have it yet: others count its time from when they saw it, which was later."""
        return self._version is not None and time.monotonic() - self._renewed < RELIABLE * EXPIRY

    def acquire(self, *, wait: bool) -> None:
        since, seen = time.monotonic(), None
        while True:
            holder, version = look(self.objects, self._key)
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
        while self._version is not None and not done.wait(RENEW):
            with suppress(Exception):  # whatever it was, the lease wasn't renewed, and may still be there afterwards
                self._write(self._version)

    def release(self) -> None:
        with suppress(InputError):  # it will be taken over
            if self._version is not None:
                self._write(self._version, free=True)
        self._version = None

    def _write(self, before: Version | None, *, free: bool = False) -> bool:
        """Make the object ours, or free, if it still has the version ``before``."""
        began, self._beat = time.monotonic(), self._beat + 1  # no two writes are alike, so no two versions are
        told = {"holder": None if free else this_process(), "token": self._token, "beat": self._beat}
        version = self.objects.write_if(self._key, json.dumps(told).encode(), before)
        beat: int | None = self._beat
        if version is None:
            version, beat = self._written()
        self._version = version
        if version is not None and beat == self._beat:  # when an older one arrived isn't known
            self._renewed = began
        return version is not None

    def _written(self) -> tuple[Version | None, int | None]:
        """The version and the beat of the object if we wrote it after all, and only the answer was lost on the way."""
        found = self.objects.read_version(self._key)
        told = _read(found[0]) if found else {}
        return (found[1], told.get("beat")) if found and told.get("token") == self._token else (None, None)


def look(objects: Objects, key: str) -> tuple[str | None, Version | None]:
    """Who holds the lease at ``key``, or None, and its version."""
    found = objects.read_version(key)
    if found is None:
        return None, None
    holder = _read(found[0]).get("holder")
    return str(holder)[:LONGEST_HOLDER] if holder else None, found[1]


def _read(content: bytes) -> dict[str, Any]:
    """What a lease says; one that was damaged is nobody's."""
    with suppress(ValueError):
        told = parse_json(content)
        return told if isinstance(told, dict) else {}
    return {}
