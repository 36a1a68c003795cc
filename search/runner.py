"""Building a study, running it, and going on with it: the same command does all three."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import optuna
import ray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from ray import tune
from ray.tune import TuneError
from rich.console import Console

from search.finalists import choose
from search.finish import finish
from search.ledger import Ledger, drop_torn_line
from search.node_checks import agreed
from search.nodes import AsManyAsFit, alive
from search.progress import Progress
from search.ray_cluster import connected, local
from search.searcher import FrontSearch
from search.session import Session, check_roots, only_driver, prepare
from search.space import Sweep
from search.study import FinalistSettings, Study, to_yaml
from search.study_trainable import LOST_IN_A_ROW, StudyTrainable, describe
from trainables import names as n
from trainables.latency import LatencyTable
from trainables.names import InputError
from trainables.problem import Problem
from trainables.settings import one_line
from trainables.store import Store, write_atomically
from trainables.walk import Tree


def run(study: Study, console: Console, *, trusted: bool = False, address: str | None = None) -> Ledger:
    """Run the study to its end, from wherever it stands; returns its points.

    ``address`` is a Ray cluster's, HOST:PORT or auto; without it, Ray runs on this machine alone.
    """
    with ExitStack() as connection:
        cluster = connection.enter_context(connected(address, study)) if address else None
        session = prepare(study, trusted=trusted, fastest=cluster.fastest if cluster else None)
        connection.enter_context(only_driver(study.folder))
        ledger = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
        check_roots(session, ledger)
        if cluster:
            terms = connection.enter_context(agreed(session, cluster, console))
            nodes = {node.host: describe(machine) for node, machine in cluster.machines.items()}
            session = replace(session, terms=terms, nodes=nodes)
        begin(session)
        _tell_refusals(session, console)
        started = time.monotonic()
        with ExitStack() as stack:
            ended = _stage(session, ledger, console, stack)
            if ended and study.finalists is not None:  # an interrupted sweep has no finalists yet
                ended = _stage(_with_finalists(session, study.finalists), ledger, console, stack)
        finish(session, ledger, console, time.monotonic() - started)
    if ended is None:
        raise KeyboardInterrupt  # Tune has kept it to itself
    console.print(f"[dim]Ended after {ended}.[/dim]")
    return ledger


def _stage(session: Session, ledger: Ledger, console: Console, stack: ExitStack) -> str | None:
    """Run what is left of a space or a sweep, and say what ended it, or None if it was interrupted.

    Ray is started only if something is left, once, and stays in ``stack``.
    """
    study = session.study
    searcher = FrontSearch(session.space, study.search, session.tree, ledger, study.objectives, _storage(study))
    if _missing_roots(session) or not searcher.finished:
        if not ray.is_initialized():
            stack.enter_context(local())
        _train_dense(session, ledger, console)
        _search(session, searcher, ledger, console)
    return None if searcher.interrupted else searcher.finished_because


def _with_finalists(session: Session, settings: FinalistSettings) -> Session:
    """The sweep with the finalists at its end."""
    schedules = session.study.schedules()
    chosen = choose(settings, schedules, session.tree)
    seeds = tuple(sorted({*session.seeds, *settings.seeds}))
    return replace(session, space=Sweep([*schedules, *chosen]), seeds=seeds)


def begin(session: Session) -> None:
    """Write the study as it runs."""
    write_atomically(session.study.folder / n.STUDY_FILE, to_yaml(session.study).encode())


def _tell_refusals(session: Session, console: Console) -> None:
    for kind, reasons in session.refused.items():
        for reason in reasons.values():
            console.print(f"[yellow]Left out:[/yellow] {kind} {reason}")


def _storage(study: Study) -> JournalStorage:
    file = str(study.folder / n.OPTUNA_FILE)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # One driver writes, which only_driver() ensures; a lock left by a dead one must not hold up the next.
    lock = JournalFileOpenLock(file, grace_period=3)
    Path(f"{file}.lock").unlink(missing_ok=True)
    drop_torn_line(Path(file))
    return JournalStorage(JournalFileBackend(file, lock_obj=lock))


def _missing_roots(session: Session) -> list[int]:
    """The seeds whose dense network isn't in the store."""
    store, problem = session.tree.store, session.tree.problem
    return [seed for seed in session.seeds if store.record(problem.root(seed).id) is None]


def _train_dense(session: Session, ledger: Ledger, console: Console) -> None:
    """Train the dense network of each seed, several at a time, and put them on record."""
    tree, resources = session.tree, session.study.resources
    if missing := _missing_roots(session):
        shared = ray.put(tree.problem)
        largest = max(node.cpu for node in alive() if node.room(resources))
        # Where a trial doesn't fit, nobody looked whether the node can be relied on.
        cores = max(resources.cpu, min(largest, tree.problem.dense.threads))
        task = ray.remote(_dense_task).options(num_cpus=cores, num_gpus=resources.gpu, max_retries=LOST_IN_A_ROW)
        with console.status(f"Training the dense network ({tree.problem.dense.epochs} epochs) …"):
            try:
                ray.get([task.remote(shared, str(tree.store.folder), seed) for seed in missing])
            except ray.exceptions.RayError as error:
                reason = one_line(getattr(error, "cause", None) or error)
                raise InputError(f"dense: the dense network can't be trained: {reason}") from None
    for seed in session.seeds:
        if seed in ledger.dense:
            continue
        point = tree.dense_point(seed)
        if "latency" in session.study.objectives:  # gains of the points to come are against the dense network's
            point |= LatencyTable(session.study.folder, tree.problem.threads).of(point, tree)
        ledger.add_dense(point)
        console.print(
            f"Dense network, seed {seed}: {point['accuracy']:.2%} validation accuracy, {point['params']:,} parameters"
        )


def _dense_task(problem: Problem, folder: str, seed: int) -> None:
    Tree(problem, Store(Path(folder))).record(problem.root(seed))


def _search(session: Session, searcher: FrontSearch, ledger: Ledger, console: Console) -> None:
    study, store = session.study, session.tree.store
    dense = {seed: store.record(session.tree.problem.root(seed).id) for seed in session.seeds}
    contents = {record["id"]: store.weights(record) for record in dense.values() if record}
    trainable = tune.with_parameters(
        StudyTrainable, problem=session.tree.problem, folder=str(store.folder.absolute()), dense=contents,
        objectives=study.objectives, terms=session.terms,
    )  # fmt: skip
    resources = {"cpu": study.resources.cpu, "gpu": study.resources.gpu}
    progress = Progress(ledger, study.search, session.space.size or study.search.trials, console, session.nodes)
    with tempfile.TemporaryDirectory(prefix="pruning-front-") as scratch:  # nothing lasting lives in Tune's own files
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=AsManyAsFit(searcher, study.resources), num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=scratch, verbose=0, callbacks=[progress],
                failure_config=tune.FailureConfig(max_failures=LOST_IN_A_ROW),
            ),
        )  # fmt: skip
        try:
            tuner.fit()
        except TuneError:
            if progress.unfit is None:
                raise
            raise InputError(f"--address: {progress.unfit}") from None
        finally:
            progress.stop()
