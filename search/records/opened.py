"""Opening a folder of results that may come from anyone: it is data, and directs no writes or credentials elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from search.records.snapshots import local_folder
from search.session import problem_of
from search.study import OF_PLACE, Overrides, Study, check_same, load_study, yaml_inline
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import check_links
from trainables.storage.base import is_url


@dataclass(frozen=True)
class Opened:
    """A study that has been run, and the folder of its own files.

    ``writable`` says whether something may be written at ``data.root``: not where only the results name it.
    """

    folder: Path
    study: Study
    writable: bool = True

    def problem(self) -> Problem:
        """The study's data and network."""
        return problem_of(self.study, trusted=self.study.trusted, writable=self.writable)


def open_study(place: str, overrides: Overrides, *, trusted: bool = False, model: nn.Module | None = None) -> Opened:
    """The study in a folder, or at a URL; ``model`` is its network, if that was in memory.

    InputError if steps are at a URL that only the folder names: it would be reached with the user's credentials.
    """
    folder = local_folder(place)
    if not (folder / n.STUDY_FILE).exists():
        raise InputError(f"folder: {folder} holds no study; give results/<study>")
    check_links(folder)
    study = load_study(folder / n.STUDY_FILE, overrides, trusted=trusted)
    written = load_study(folder / n.STUDY_FILE, trusted=trusted)
    check_same(written, study, str(folder), "leave that out: it has been run as it is", OF_PLACE)
    there = str(study.place_of(folder))
    if is_url(place) and there != place.rstrip("/"):
        raise InputError(
            f"storage: {folder} holds another study, with its steps in {there}; give that, or move {folder} away"
        )
    if is_url(there) and not is_url(place) and not _named("storage", overrides):
        raise InputError(
            f"storage: {folder} says that its steps are in {there}; if you trust it, give this URL in place of the "
            f"folder, or add --set storage={study.storage}"
        )
    urls = [url for url in study.reuse if is_url(url)]
    if urls and not _named("reuse", overrides):
        raise InputError(
            f"reuse: {folder} says that it reads steps of {urls[0]}; if you trust it, add "
            f"--set 'reuse={yaml_inline(study.reuse)}', or do without (--set 'reuse=[]')"
        )
    return Opened(folder, study.of(model), _named("data.root", overrides))


def _named(key: str, overrides: Overrides) -> bool:
    return any(override.partition("=")[0] in (key, key.partition(".")[0]) for override in overrides)
