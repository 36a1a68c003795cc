"""From a study to a driver at work on it: everything checked, its files held and read back, its start on record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from ray.tune import Callback
from rich.console import Console
from rich.markup import escape

from search.cluster.connection import LazyRay, connected
from search.cluster.interrupts import sigterm_is_not_ray_s
from search.cluster.node_checks import Cluster, agreed
from search.methods import described
from search.records.asked import Asks
from search.records.driver import only_driver, tidy
from search.records.ledger import Ledger
from search.records.provenance import Run
from search.records.recovery import open_asks
from search.records.snapshots import Snapshots
from search.session import Session, check_roots, prepare, renamed
from search.study import Study, to_yaml
from search.tune.trial import describe
from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.records.methods import to_text
from trainables.records.names import StoppedError
from trainables.settings import one_line
from trainables.storage.base import REMEDY, STORAGE_ERRORS, Held, UnreachableError


@dataclass(frozen=True)
class Driver:
    """One run of a study: what the stages of it share."""

    session: Session
    ledger: Ledger
    asks: Asks
    snapshots: Snapshots
    run: Run
    console: Console
    held: Held
    callbacks: tuple[Callback, ...] = ()
    """Of the user, for Tune."""
    ray: LazyRay = field(default_factory=LazyRay)
    began: float = field(default_factory=time.monotonic)


@contextmanager
def ready(
    study: Study, console: Console, *, address: str | None = None, callbacks: Sequence[Callback] = ()
) -> Iterator[Driver]:
    """The study's only driver, with everything checked; InputError before anything is written, StoppedError later."""
    with ExitStack() as stack:
        stack.enter_context(sigterm_is_not_ray_s())
        cluster = stack.enter_context(connected(address, study)) if address else None
        with console.status("Checking the study, and what of its network can be removed …"):
            session = prepare(study, trusted=study.trusted, fastest=cluster.fastest if cluster else None)
        stack.enter_context(_storage_errors(study))
        with console.status("Looking whether another driver is at work …"):  # takes a while where one has died
            held = stack.enter_context(only_driver(study.folder, study.place))
        snapshots = stack.enter_context(Snapshots(study.folder, study.place, held))
        ledger = Ledger(study.folder, study.goals, study.drop, study.storage_forms, measure=study.measure)
        check_roots(session.tree, ledger)
        if cluster:
            session = _on_nodes(session, cluster, console, stack)
        if not (study.folder / n.STUDY_FILE).exists():
            begin(session)  # first, because a folder of other files without it is nobody's
        asks, anew = open_asks(session, ledger, fetched=snapshots.fetched)
        run = Run(study.folder, session.tree, ledger, session.nodes, session.refused, session.protected)
        session = replace(session, tree=run.tree)
        begin(session)
        _tell(session, run, console)
        if anew and ledger.trials:
            console.print("[dim]The sampler is told anew of what is on record.[/dim]")
        yield Driver(session, ledger, asks, snapshots, run, console, held, tuple(callbacks))


def _on_nodes(session: Session, cluster: Cluster, console: Console, stack: ExitStack) -> Session:
    terms = stack.enter_context(agreed(session, cluster, console))
    nodes = {node.host: describe(machine) for node, machine in cluster.machines.items()}
    return replace(session, terms=terms, nodes=nodes)


@contextmanager
def _storage_errors(study: Study) -> Iterator[None]:
    try:
        yield
    except UnreachableError as error:
        raise StoppedError(str(error)) from None
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        raise StoppedError(f"storage: {study.folder} can't be used: {one_line(error)}; {REMEDY}") from None


def begin(session: Session) -> None:
    """Write the study as it runs, its methods described, and remove what killed processes left half written."""
    folder = session.study.folder
    tidy(folder)
    write_atomically(folder / n.STUDY_FILE, to_yaml(session.study))
    write_atomically(folder / n.METHODS_FILE, to_text(described(session.study)))


def _tell(session: Session, run: Run, console: Console) -> None:
    if run.changed:
        console.print(f"[yellow]Not as in the last run:[/yellow] {escape(run.changed)}.")
    study = session.study
    if study.drop > study.asked_drop:
        far, near = (study.measure.told_drop(drop) for drop in (study.drop, study.asked_drop))
        console.print(
            f"[yellow]Reference:[/yellow] {far} worse than dense in place of {near}, as limits.max_drop allows it."
        )
    for told in renamed(session.study):
        console.print(f"[yellow]Told under another name:[/yellow] {escape(told)}.")
    for subject, notes in {**session.tree.problem.told, **session.notes}.items():
        console.print(f"[yellow]{subject}:[/yellow] {escape('; '.join(notes))}.")
    for family, found in session.protected.items():
        for line in found["told"]:
            console.print(f"[yellow]Protected ({family}):[/yellow] {escape(line)}.")
    for kind, reasons in session.refused.items():
        for reason in reasons.values():
            console.print(f"[yellow]Left out:[/yellow] {kind} {escape(reason)}")
