"""From a place, as a study file names it, to its storage."""

from __future__ import annotations

from pathlib import Path

from trainables.storage.base import Place, Storage, is_url
from trainables.storage.folder import Folder


def open_storage(place: Place) -> Storage:
    """The storage at a folder or a URL; nothing is read or written yet."""
    if not is_url(place):
        return Folder(Path(place))
    from trainables.storage.object_store import ObjectStore  # noqa: PLC0415 - most studies need none

    return ObjectStore(str(place))
