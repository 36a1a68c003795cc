"""One driver a study: the hold on its folder and on its URL, and what happens when that on the URL is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from search.cluster.watch import watching
from trainables.records import names as n
from trainables.records.files import remove_temporaries
from trainables.records.names import InputError
from trainables.storage.base import Held, HeldError, Place, is_url, this_process
from trainables.storage.places import open_storage


@contextmanager
def only_driver(folder: Path, place: Place | None = None) -> Iterator[Held]:
    """Hold the study's folder, and its URL if it has one; a second driver is refused, and a dead one's hold passes on.

    A driver that has lost its hold on the URL ends, whatever it is doing: another may be at work.
    """
    made, held = not folder.exists(), _always
    try:
        with ExitStack() as holds:
            if place and is_url(place):
                held = holds.enter_context(_driving(place))
                holds.enter_context(watching(partial(why_lost, place, held)))
            holds.enter_context(_driving(folder))
            yield held
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # only if nothing was put there


def why_lost(place: Place, held: Held) -> str | None:
    """How the hold on a study was lost, or None if it wasn't."""
    if held():
        return None
    try:
        holder = open_storage(place).holder(n.LOCK_FILE)
    except InputError as error:
        return str(error)
    if holder == this_process():
        return f"storage: {place} could not be written for a while"
    return f"storage: {place} was taken over by {holder or 'another driver'}"


@contextmanager
def _driving(place: Place) -> Iterator[Held]:
    try:
        with open_storage(place).claim(n.LOCK_FILE, wait=False) as held:
            yield held
    except HeldError as error:
        raise InputError(f"storage: {place} is being run by {error}; wait for it, or stop it") from None


def tidy(folder: Path) -> None:
    """Remove what processes that were killed left in the middle of writing."""
    remove_temporaries(folder, folder / n.LATENCY_FOLDER, *(folder / n.STEPS_FOLDER).glob("*"))


def _always() -> bool:
    return True
