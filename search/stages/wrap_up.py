"""What comes after the trials: latencies, weights that need not stay, provenance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from rich.console import Console
from rich.markup import escape

from search.records.driver import tidy, why_lost
from search.records.ledger import Ledger
from search.records.recovery import fill_latencies, tables_of
from search.session import Session
from search.stages.ready import Driver
from trainables.measuring.latency import LatencyTable
from trainables.measuring.quiet import quiet
from trainables.records import names as n
from trainables.records.names import InputError, StoppedError
from trainables.tree import Point, Tree


def wrap_up(driver: Driver, *, ended: bool) -> None:
    """Measure what is measured in quiet, tidy the store, and put on record that the run has come to its end.

    What goes on needs the weights that it would begin with, so they are given back only where the study has ``ended``.
    """
    study = driver.session.study
    if reason := why_lost(study.place, driver.held):
        raise StoppedError(reason)
    measure_latencies(driver.session, driver.ledger, driver.console)
    if ended:
        _discard(driver.session, driver.ledger)
    driver.run.end()
    tidy(study.folder)  # of workers that were killed in this run


def measure_latencies(session: Session, ledger: Ledger, console: Console) -> None:
    """Measure what conclusions rest on, as soon as nothing else runs, and write all that is known among the points."""
    study, tree = session.study, session.tree
    # Whether a family is faster is asked even where none of it is on the front.
    rows = ledger.points if study.sweep is not None else [*ledger.dense.values(), *ledger.family_fronts()]
    possible = tree.problem.device == "cpu" or torch.cuda.is_available()  # a driver may have no GPU
    for table in tables_of(session) if possible else ():
        # What was timed elsewhere stays as it is; what wasn't is compared with the dense network's latency here. Of an
        # objective every point needs a value, and it may be named only since.
        among = ledger.points if table.objective.name in study.objectives else rows
        untimed = [row for row in among if row[table.objective.column] is None]
        roots = [ledger.dense[seed] for seed in sorted({row[n.SEED] for row in untimed})]
        missing = list(_to_measure([*roots, *untimed], table, tree))
        if missing:
            try:
                with console.status("Measuring latencies, as soon as nothing else runs …"), quiet():
                    for row in missing:
                        table.of(row, tree)
            except InputError as error:  # of a target that was there when the dense network was timed
                console.print(f"[yellow]Not timed:[/yellow] {escape(str(error))}")
    fill_latencies(session, ledger)


def _to_measure(rows: Iterable[Point], table: LatencyTable, tree: Tree) -> Iterator[Point]:
    """One network of those that run alike, where this host hasn't measured any.

    Weights that were given back, or stayed on another host, are not computed again for a latency.
    """
    kinds: defaultdict[str, list[Point]] = defaultdict(list)
    for row in rows:
        kinds[row[table.by]].append(row)
    for alike in kinds.values():
        if table.find(alike[0]) is None:
            yield from islice((row for row in alike if tree.has_weights(row[n.STEP_ID])), 1)


def _discard(session: Session, ledger: Ledger) -> None:
    """Give back the disk of weights that the study doesn't keep; dense networks always stay."""
    if session.study.keep == "all":
        return
    stay = {row[n.STEP_ID] for row in ledger.dense.values()}
    stay |= {row[n.STEP_ID] for row in ledger.front_rows()} if session.study.keep == "front" else set()
    for step_id in session.tree.store.own_ids():
        if step_id not in stay:
            session.tree.store.discard_weights(step_id)
