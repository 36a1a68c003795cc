"""What comes after the trials: latencies of the front, weights that need not stay, provenance."""

from __future__ import annotations

import json

from rich.console import Console

from search.ledger import Ledger
from search.provenance import provenance
from search.session import Session
from trainables import names as n
from trainables.latency import LatencyTable
from trainables.storage import write_atomically
from trainables.store import to_json


def finish(session: Session, ledger: Ledger, console: Console, seconds: float) -> None:
    """Measure what is measured in quiet, tidy the store, and write where the numbers come from."""
    study, tree = session.study, session.tree
    table = LatencyTable(study.place, tree.problem.threads)
    rows = [*ledger.dense.values(), *ledger.front_rows()]
    with console.status("Measuring the latency of the front, with nothing else running …"):
        for row in rows:
            # Weights that were given back, or stayed on another host, are not computed again for a latency.
            record = tree.store.record(row[n.STEP_ID]) if table.find(row) is None else None
            if record is not None and tree.store.weights(record) is not None:
                table.of(row, tree)
    found = {shape: table.find(row) or {} for shape, row in {row[n.SHAPE_ID]: row for row in ledger.points}.items()}
    ledger.rewrite({row[n.STEP_ID]: found[row[n.SHAPE_ID]] for row in ledger.points})
    _discard(session, ledger)
    path = study.folder / n.PROVENANCE_FILE
    before = json.loads(path.read_bytes()) if path.exists() else {}
    write_atomically(path, to_json(provenance(session, ledger, before, seconds), indent=1))


def _discard(session: Session, ledger: Ledger) -> None:
    """Give back the disk of weights that the study doesn't keep; dense networks always stay."""
    if session.study.keep == "all":
        return
    stay = {row[n.STEP_ID] for row in ledger.dense.values()}
    stay |= set(ledger.front) if session.study.keep == "front" else set()
    for step_id in session.tree.store.ids():
        if step_id not in stay:
            session.tree.store.discard_weights(step_id)
