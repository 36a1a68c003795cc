"""From a place, as a study file names it, to its storage."""

from __future__ import annotations

from pathlib import Path

from trainables.records.names import InputError
from trainables.storage.base import Place, Storage, is_url
from trainables.storage.folder import Folder


def open_storage(place: Place) -> Storage:
    """The storage at a folder or a URL; nothing is read or written yet. InputError if no client is installed for a URL."""
    if not is_url(place):
        return Folder(Path(place))
    try:
        from trainables.storage.object_store import ObjectStore  # noqa: PLC0415 - most studies need none
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise InputError(
            f"storage: {place} needs obstore, which isn't installed; make extras installs it (pyproject.toml pins it under "
            "cloud), or give a folder"
        ) from None
    return ObjectStore(str(place))
