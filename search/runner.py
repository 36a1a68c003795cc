"""Building a study, running it, and going on with it: the same command does all three."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import ray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from search.finalists import choose
from search.finish import finish
from search.ledger import Ledger, drop_torn_line
from search.progress import Progress
from search.scheduler import FrontScheduler
from search.searcher import FrontSearch
from search.session import Session, check_roots, only_driver, prepare
from search.space import Sweep
from search.study import FinalistSettings, Study, to_yaml
from trainables import names as n
from trainables.latency import LatencyTable
from trainables.names import InputError
from trainables.problem import Problem
from trainables.settings import one_line
from trainables.store import Store, write_atomically
from trainables.trainable import PruningTrainable
from trainables.walk import Tree

RAY_QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_PRINT_ALL_TRIAL_ERRORS": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
RAY_STAYS_HERE = {"RAY_CHDIR_TO_TRIAL_DIR": "0"}
"""Relative paths, such as a checkpoint's, mean the same in a worker as here."""


def run(study: Study, console: Console, *, trusted: bool = False) -> Ledger:
    """Run the study to its end, from wherever it stands; returns its points."""
    session = prepare(study, trusted=trusted)
    with only_driver(study.folder):
        ledger = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
        check_roots(session, ledger)
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
            stack.enter_context(_ray())
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


@contextmanager
def _ray() -> Iterator[None]:
    """Ray on this machine alone: a bare ``init`` would attach to whatever cluster was last started here."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with _environment(RAY_QUIET | RAY_STAYS_HERE):
        ray.init(address="local", log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables inside, and what was there before afterwards: a Tuner of the caller's own is not to see them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _missing_roots(session: Session) -> list[int]:
    """The seeds whose dense network isn't in the store."""
    store, problem = session.tree.store, session.tree.problem
    return [seed for seed in session.seeds if store.record(problem.root(seed).id) is None]


def _train_dense(session: Session, ledger: Ledger, console: Console) -> None:
    """Train the dense network of each seed, several at a time, and put them on record."""
    tree = session.tree
    if missing := _missing_roots(session):
        shared = ray.put(tree.problem)
        cores = min(ray.cluster_resources().get("CPU", 1), tree.problem.dense.threads)
        task = ray.remote(_dense_task).options(num_cpus=cores, num_gpus=session.study.resources.gpu)
        with console.status(f"Training the dense network ({tree.problem.dense.epochs} epochs) …"):
            try:
                ray.get([task.remote(shared, str(tree.store.folder), seed) for seed in missing])
            except ray.exceptions.RayTaskError as error:
                raise InputError(f"dense: the dense network can't be trained: {one_line(error.cause)}") from None
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
        PruningTrainable, problem=session.tree.problem, folder=str(store.folder.absolute()), dense=contents,
        objectives=study.objectives,
    )  # fmt: skip
    resources = {"cpu": study.resources.cpu, "gpu": study.resources.gpu}
    progress = Progress(ledger, study.search, session.space.size or study.search.trials, console)
    with tempfile.TemporaryDirectory(prefix="pruning-front-") as scratch:  # nothing lasting lives in Tune's own files
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher, scheduler=scheduler_of(session, ledger), num_samples=-1, reuse_actors=True,
                max_concurrent_trials=_at_once(study),
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=scratch, verbose=0, callbacks=[progress],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )  # fmt: skip
        try:
            tuner.fit()
        finally:
            progress.stop()


def scheduler_of(session: Session, ledger: Ledger) -> FIFOScheduler:
    """What ends trials early; of a sweep every step was asked for."""
    study = session.study
    if study.search.stop == "front" and session.space.size is None:
        return FrontScheduler(ledger, study.objectives, len(session.tree.problem.data.validation_labels))
    return FIFOScheduler()


def _at_once(study: Study) -> int:
    """As many trials as fit on the machine or cluster."""
    have = ray.cluster_resources()
    fits = [have.get("CPU", 1) / study.resources.cpu]
    if study.resources.gpu:
        fits.append(have.get("GPU", 0) / study.resources.gpu)
    return max(1, math.floor(float(min(fits))))
