"""What comes after the trials: latencies, weights that need not stay, provenance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from search.records.ledger import Ledger
from search.records.provenance import provenance
from search.session import Session
from trainables.measuring.latency import LatencyTable
from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.records.untrusted import parse_json, read
from trainables.storage.store import to_json
from trainables.tree import Point, Tree


def finish(session: Session, ledger: Ledger, console: Console, seconds: float, *, ended: bool) -> None:
    """Measure what is measured in quiet, tidy the store, and write where the numbers come from.

    What goes on needs the weights that it would begin with, so they are given back only where the study has ``ended``.
    """
    study, tree = session.study, session.tree
    table = LatencyTable(study.place, tree.problem.threads)
    # Whether a family is faster is asked even where none of it is on the front.
    rows = ledger.points if study.sweep is not None else [*ledger.dense.values(), *ledger.family_fronts()]
    possible = tree.problem.device == "cpu" or torch.cuda.is_available()  # a driver may have no GPU
    missing = list(_to_measure(rows, table, tree)) if possible else []
    if missing:
        with console.status("Measuring latencies, as soon as nothing else runs …"), table.quiet():
            for row in missing:
                table.of(row, tree)
    found = {shape: table.find(row) or {} for shape, row in {row[n.SHAPE_ID]: row for row in ledger.points}.items()}
    ledger.rewrite({row[n.STEP_ID]: found[row[n.SHAPE_ID]] for row in ledger.points})
    if ended:
        _discard(session, ledger)
    path = study.folder / n.PROVENANCE_FILE
    write_atomically(path, to_json(provenance(session, ledger, _before(path), seconds), indent=1))


def _to_measure(rows: Iterable[Point], table: LatencyTable, tree: Tree) -> Iterator[Point]:
    """One network of each shape that this host hasn't measured.

    Weights that were given back, or stayed on another host, are not computed again for a latency.
    """
    shapes: defaultdict[str, list[Point]] = defaultdict(list)
    for row in rows:
        shapes[row[n.SHAPE_ID]].append(row)
    for alike in shapes.values():
        if table.find(alike[0]) is None:
            yield from islice((row for row in alike if tree.has_weights(row[n.STEP_ID])), 1)


def _before(path: Path) -> dict[str, Any]:
    """What the last run wrote; nothing if it is damaged, because it is about to be written anew."""
    try:
        before = parse_json(read(path))
    except (FileNotFoundError, ValueError):
        return {}
    kinds = {"first_run": str, "runs": int, "hours": int | float}
    whole = isinstance(before, dict) and all(isinstance(before.get(name), kind) for name, kind in kinds.items())
    return before if whole else {}


def _discard(session: Session, ledger: Ledger) -> None:
    """Give back the disk of weights that the study doesn't keep; dense networks always stay."""
    if session.study.keep == "all":
        return
    stay = {row[n.STEP_ID] for row in ledger.dense.values()}
    stay |= set(ledger.front) if session.study.keep == "front" else set()
    for step_id in session.tree.store.ids():
        if step_id not in stay:
            session.tree.store.discard_weights(step_id)
