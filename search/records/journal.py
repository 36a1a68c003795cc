"""Optuna's own storage: a journal in the study's folder. Its rows are of one space, with values of some objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection

from search.records.ledger import drop_torn_line
from search.study import Study, read_yaml
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.points import format_of
from trainables.settings import one_line, parse

NAME = "pruning"
"""What Optuna's study is called in the journal."""
MADE_FOR = "made_for"
"""Attribute of Optuna's study: the space and the objectives that its rows are of."""


def open_journal(study: Study) -> tuple[BaseStorage, bool]:
    """Optuna's storage, and whether what it held is lost, so that it has to be told what is on record.

    It begins anew where the points are lost, for it would never ask again for what it was told; and where the space or
    the objectives have changed, because its rows are of others.
    """
    file = study.folder / n.OPTUNA_FILE
    if not (study.folder / n.POINTS_FILE).exists():
        file.unlink(missing_ok=True)
    storage = _read(file)
    if _made_for(storage, study) != _wanted(study):
        file.unlink(missing_ok=True)
        storage = _read(file)
        ways = [StudyDirection.MAXIMIZE] * len(study.objectives)
        optuna.create_study(storage=storage, study_name=NAME, directions=ways).set_user_attr(MADE_FOR, _wanted(study))
    return storage, not storage.get_n_trials(storage.get_study_id_from_name(NAME))


def _read(file: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # One driver writes, which only_driver() ensures; a lock left by a dead one must not hold up the next.
    lock = JournalFileOpenLock(str(file), grace_period=3)
    Path(f"{file}.lock").unlink(missing_ok=True)
    drop_torn_line(file)
    try:
        return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
    except Exception as error:  # what Optuna raises on a damaged line can be anything
        raise InputError(
            f"{file}: cannot be read ({one_line(error)}); move it away, finished steps are found again in the store"
        ) from error


def _made_for(storage: BaseStorage, study: Study) -> Any:
    """What the journal's rows are of; None if it has none, or nobody can say."""
    ids = {one.study_name: one._study_id for one in storage.get_all_studies()}
    if NAME not in ids:
        return None
    attributes = storage.get_study_user_attrs(ids[NAME])
    written = study.folder / n.STUDY_FILE
    if MADE_FOR in attributes or not written.exists():
        return attributes.get(MADE_FOR)
    # One that doesn't tell is of the study that was last run here, whose file is written after this.
    last = _wanted(parse(Study, read_yaml(written), str(written)))
    storage.set_study_user_attr(ids[NAME], MADE_FOR, last)
    return last


def _wanted(study: Study) -> dict[str, Any]:
    plain = study.model_dump(mode="json")
    sources = {one.name: one.source for one in study.goals if one.source is not None}
    forms = {"storage_forms": plain["storage_forms"]} if format_of(study.storage_forms) == n.COMPACT else {}
    limits = {"limits": study.limits.given} if study.limits.given else {}  # rows say how far beyond them they are
    return {key: plain[key] for key in ("objectives", "space")} | ({"sources": sources} if sources else {}) | forms | limits
