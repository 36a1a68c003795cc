"""Where a study stands, told from outside: of what its driver has written, here or in an object store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from search.records.ledger import Ledger
from search.records.provenance import NODES, read_before
from search.records.snapshots import FILES
from search.study import Study, load_study
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.records.names import InputError
from trainables.records.objectives import Quality
from trainables.records.points import point_id
from trainables.records.untrusted import check_links, parse_json
from trainables.storage.base import is_alive, is_url
from trainables.storage.places import open_storage


def status(place: str, *, trusted: bool = False) -> dict[str, str]:
    """What there is to know of the study in a folder, or at a URL, in words by subject; nothing is written there.

    InputError if there is none.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if is_url(place) else Path(place)
        written = _fetch(place, folder) if is_url(place) else _written(folder)
        if not (folder / n.STUDY_FILE).exists():
            raise InputError(f"folder: {place} holds no study; give results/<study>, or its URL")
        check_links(folder)
        study = load_study(folder / n.STUDY_FILE, trusted=trusted)
        ledger = Ledger(folder, study.goals, study.drop, study.storage_forms, measure=study.measure, mend=False)
        return _told(place, study, ledger, read_before(folder / n.PROVENANCE_FILE), written)


def _fetch(place: str, folder: Path) -> datetime | None:
    """The driver's files as it last stored them, and when that was."""
    there = open_storage(place)
    there.check(writing=False)
    for name in FILES:
        if (content := there.read(name)) is not None:
            (folder / name).write_bytes(content)
    try:
        return datetime.fromisoformat(parse_json(there.read(n.SNAPSHOT_FILE) or b"")["at"])
    except (ValueError, KeyError, TypeError):  # none yet, or of a version that didn't say
        return None


def _written(folder: Path) -> datetime | None:
    files = (file for name in (n.POINTS_FILE, n.TRIALS_FILE) if (file := folder / name).exists())
    return max((datetime.fromtimestamp(file.stat().st_mtime, UTC) for file in files), default=None)


def _told(
    place: str, study: Study, ledger: Ledger, provenance: Mapping[str, Any], written: datetime | None
) -> dict[str, str]:
    trials = len(study.schedules()) if study.sweep else study.search.trials
    of_all = f" of {trials}" if trials and len(ledger.trials) <= trials else ""  # a sweep's finalists come on top
    states = [f"{count} {state}" for count, state in ((ledger.stopped, "stopped"), (ledger.failed, "failed")) if count]
    return {
        "study": f"{study.name}, {_driver(place)}",
        "trials": ", ".join([f"{len(ledger.trials)}{of_all}", *states]),
        "steps": f"{ledger.steps_computed} computed, {ledger.steps_found} cached",
        "front": f"{len(ledger.members())} of {len(ledger.points)} points, hypervolume {ledger.hypervolume:.4f}",
        "epochs": f"{ledger.epochs_computed} computed, {ledger.epochs_saved} saved by sharing",
        "time": _time(study, ledger, trials, provenance.get(n.BEGAN), written),
        "nodes": ", ".join(sorted(provenance[NODES])) or "one machine",
        "last point": _last(ledger.points, ledger.measure),
    }


def _driver(place: str) -> str:
    """Whether a driver runs it, as far as that can be told from here."""
    holder = open_storage(place).holder(n.LOCK_FILE)
    alive = False if holder is None else is_url(place) or is_alive(holder)  # a lease ends with its holder
    if alive is None:
        return f"last run by {holder}, which can't be looked at from here"
    return f"running ({holder})" if alive else "not running"


def _time(study: Study, ledger: Ledger, trials: int | None, began: Any, written: datetime | None) -> str:
    """When something was last written, and how long the nearest budget lasts at this run's pace."""
    if written is None:
        return "nothing has been computed yet"
    told = f"last written {_clock(datetime.now(UTC) - written)} ago"
    try:
        start, before = datetime.fromisoformat(began["at"]), {name: int(began[name]) for name in ("trials", "epochs")}
    except (KeyError, TypeError, ValueError):  # of a version that didn't say
        return told
    budgets = (("trials", len(ledger.trials), trials), ("epochs", ledger.epochs_computed, study.search.epochs))
    left = [
        ((written - start) / (now - before[name]) * max(0, budget - now), f"{budget} {name}")
        for name, now, budget in budgets
        if budget and now > before[name]
    ]
    return f"{told}, about {_clock(min(left)[0])} left until {min(left)[1]} at the pace of this run" if left else told


def _last(points: list[Row], measure: Quality) -> str:
    rows = [row for row in points if row[n.TRIAL] is not None]
    if not rows:
        return "none of a trial yet"
    row = rows[-1]
    values = f"{measure.name} {measure.told(row[measure.column])}, compression {row[n.COMPRESSION]:.2f}×"
    return f"trial {row[n.TRIAL]}, step {row[n.STEP]}, {row[n.FAMILY]}: {values} ({point_id(row)})"


def _clock(duration: timedelta) -> str:
    return str(timedelta(seconds=round(max(0.0, duration.total_seconds()))))
