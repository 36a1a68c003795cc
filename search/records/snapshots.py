"""Copies of the driver's own files in the object store that holds a study's steps, so that any host can go on with it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from search.study import LOCAL
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import parse_json
from trainables.storage.base import Held, Place, Storage, is_url
from trainables.storage.folder import Folder
from trainables.storage.places import open_storage
from trainables.storage.store import to_json

FILES = (
    n.ASKED_FILE, n.POINTS_FILE, n.TRIALS_FILE, n.CONFIRMED_FILE, n.AGAIN_FILE, n.OPENINGS_FILE, n.SENSITIVITY_FILE,
    n.PROVENANCE_FILE, n.STUDY_FILE, n.OPTUNA_FILE,
)  # fmt: skip
"""In the order in which they are written, as a driver itself does: a trial is asked for, has points, and ends."""
INTERVAL = 5.0
"""Seconds between two snapshots, at least."""
SHARE = 20
"""A snapshot that took a second is followed by none for so many."""


class Snapshots:
    """Fetches the files at the start, if the stored ones are ahead, and stores them now and then and at the end.

    Does nothing for a study in a folder. Several drivers, one after the other, count their snapshots on.
    """

    def __init__(self, folder: Path, place: Place, held: Held) -> None:
        self._here = Folder(folder)
        self._there: Storage | None = open_storage(place) if is_url(place) else None
        self._held = held
        self._stored: dict[str, bytes] = {}
        self._next = 0.0
        self.fetched = False

    def __enter__(self) -> Self:
        self.fetch()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.store()
        except InputError:
            if kind is None:  # or what went wrong before is what there is to tell
                raise

    def store_if_due(self) -> None:
        """Store the files, unless that was done a moment ago."""
        if time.monotonic() < self._next:
            return
        began = time.monotonic()
        self.store()
        self._next = time.monotonic() + max(INTERVAL, SHARE * (time.monotonic() - began))

    def fetch(self) -> None:
        """Take the stored files if they are ahead of those here, or if one of those here is missing."""
        if self._there is None:
            return
        points, asked, journal = (self._here.read(name) for name in (n.POINTS_FILE, n.ASKED_FILE, n.OPTUNA_FILE))
        if asked is None and self._there.read(n.ASKED_FILE) is None:
            asked = journal  # of an earlier version
        complete = points is not None and asked is not None
        if complete and _count(self._there) <= _count(self._here):
            return
        self.fetched = True
        for name in (*FILES, n.SNAPSHOT_FILE):
            content = self._there.read(name)
            if content is not None:
                self._here.write(name, content)

    def store(self) -> None:
        """Store what has changed, unless another driver has taken over meanwhile."""
        if self._there is None or not self._held():
            return
        found = {name: self._here.read(name) for name in FILES}
        changed = {name: content for name, content in found.items() if content and content != self._stored.get(name)}
        if not changed:
            return
        for name, content in changed.items():
            if not self._held():  # a store that answers late has taken a while
                return
            self._there.write(name, content)
        self._stored |= changed
        count = to_json({"snapshots": _count(self._there) + 1, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        self._there.write(n.SNAPSHOT_FILE, count)
        self._here.write(n.SNAPSHOT_FILE, count)


def _count(storage: Storage) -> int:
    try:
        count = parse_json(storage.read(n.SNAPSHOT_FILE) or b"")["snapshots"]
    except (ValueError, KeyError, TypeError):
        return 0
    return count if isinstance(count, int) else 0


def local_folder(place: str) -> Path:
    """The folder of a study's own files: the one given, or of a URL's study the one here, fetched if there is none.

    What its front came to on fresh seeds is fetched with it.
    """
    if not is_url(place):
        return Path(place)
    folder = Path(LOCAL) / place.rstrip("/").rpartition("/")[2]
    if not (folder / n.STUDY_FILE).exists():
        open_storage(place).check(writing=False)
        fetch(folder, place)
        fetch(folder / n.CONFIRMATION_FOLDER, f"{place.rstrip('/')}/{n.CONFIRMATION_FOLDER}")
    return folder


def fetch(folder: Path, place: Place) -> None:
    """Take what another host has stored of a study since it was seen here."""
    Snapshots(folder, place, lambda: False).fetch()
