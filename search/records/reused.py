"""The steps of other studies that a study may read: where they are, and what is looked at before the first is read."""

from __future__ import annotations

from pathlib import Path

from search.study import Study, read_yaml
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import check_links
from trainables.storage.base import Place, is_url
from trainables.storage.places import open_storage

REMEDY = "give another study's folder or URL, or leave it out"


def reused_steps(study: Study, folder: Path) -> tuple[Place, ...]:
    """Where the steps are that the study in ``folder`` reads; InputError if one of ``reuse`` is no other study."""
    return tuple(f"{_checked(place, study, folder)}/{n.STEPS_FOLDER}" for place in study.reuse)


def _checked(place: str, study: Study, folder: Path) -> str:
    own = study.place_of(folder)
    if is_url(place):
        return _checked_url(place.rstrip("/"), str(own))
    other = Path(place)
    if other.resolve() == folder.resolve():
        raise _itself(place)
    if not (other / n.STUDY_FILE).is_file():
        raise InputError(f"reuse: {place} holds no study; {REMEDY}")
    check_links(other)
    storage = str(read_yaml(other / n.STUDY_FILE).get("storage", ""))
    if is_url(storage):  # a URL that only a folder of results names is not reached
        raise InputError(
            f"reuse: {place} says that its steps are in {storage}; if you trust it, give the study's URL there"
        )
    return str(other.absolute())  # workers may run in another folder


def _checked_url(place: str, own: str) -> str:
    if place == own.rstrip("/"):
        raise _itself(place)
    there = open_storage(place)
    there.check(writing=False)
    if there.read(n.STUDY_FILE) is None:
        raise InputError(f"reuse: {place} holds no study; {REMEDY}")
    return place


def _itself(place: str) -> InputError:
    return InputError(f"reuse: {place} is the study itself; {REMEDY}")
