"""A finished study in a few files: the records of its steps in one, in place of a folder and a small file each."""

from __future__ import annotations

from search.records.driver import only_driver, tidy
from search.records.opened import Opened
from search.session import steps_of
from trainables.records import names as n


def pack(opened: Opened) -> str:
    """Pack what isn't packed yet: the file. Everything reads them as before, and it can go on.

    InputError if another driver is at work. Whenever it is killed, each record is in one of the two places, or in both.
    """
    folder, study = opened.folder, opened.study
    there = study.place_of(folder)
    with only_driver(folder, there):
        tidy(folder)
        store = steps_of(study, folder)
        store.pack()
    return f"{store.place}/{n.PACKED_FILE}"
