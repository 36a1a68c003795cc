"""Every opening of the test split, on record before it happens: a number that was looked at often is no fresh number."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from search.records.ledger import append, rows_of
from trainables.records import names as n

OPENED, NETWORKS = "opened", "networks"


def record_opening(folder: Path, networks: int) -> str | None:
    """Put on record that the test split is opened for so many networks; in words, how often it was before, if it was."""
    before = list(rows_of(folder / n.OPENINGS_FILE))
    confirmed = sum(1 for place in (folder, folder / n.CONFIRMATION_FOLDER) for _ in rows_of(place / n.CONFIRMED_FILE))
    append(folder / n.OPENINGS_FILE, {OPENED: datetime.now(UTC).isoformat(timespec="seconds"), NETWORKS: networks})
    if not before and not confirmed:
        return None
    # Those of earlier versions of this program were not put on record.
    often = {0: "at least once", 1: "once"}.get(len(before), f"{len(before)} times")
    return f"The test split was opened {often} before, for {confirmed} {'network' if confirmed == 1 else 'networks'}."
