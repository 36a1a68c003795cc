"""Building a study, running it, and going on with it: the same command does all three."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import ray
import torch
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from ray import tune
from rich.console import Console

from search.finalists import choose
from search.ledger import Ledger
from search.progress import Progress
from search.provenance import provenance
from search.searcher import FrontSearch
from search.space import SearchSpace, Space, Sweep, without
from search.study import FinalistSettings, Study, check_folder, to_yaml
from trainables import data
from trainables import names as n
from trainables.compatibility import refusals
from trainables.latency import LatencyTable
from trainables.names import InputError
from trainables.problem import Problem
from trainables.schedule import StructuredSchedule
from trainables.store import Store, to_json, write_atomically
from trainables.trainable import PruningTrainable
from trainables.training import fastest_precision
from trainables.walk import Tree

LOCK_FILE = "driver.lock"
RAY_QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_PRINT_ALL_TRIAL_ERRORS": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}


@dataclass(frozen=True)
class Session:
    """A study made ready to run: everything that could be wrong with it has been looked at."""

    study: Study
    tree: Tree
    space: Space
    seeds: tuple[int, ...]
    refused: dict[str, dict[str, str]]


def prepare(study: Study, *, trusted: bool = False) -> Session:
    """Load the data, build the network and check the study against both; InputError before anything is written."""
    check_folder(study)
    problem = problem_of(study, trusted=trusted)
    schedules = study.schedules()
    for schedule in schedules:
        problem.check(schedule)
    refused = _refusals(study, problem)
    if study.space is not None:
        space: Space = SearchSpace(without(study.space, refused))
    else:
        for kind, reason in ((kind, reason) for kind, by in refused.items() for reason in by.values()):
            raise InputError(f"sweep: {kind} {reason}; leave it out")
        space = Sweep(schedules)
    tree = Tree(problem, Store(study.folder / n.STEPS_FOLDER))
    seeds = tuple(sorted({schedule.seed for schedule in schedules})) or (0,)
    return Session(study, tree, space, seeds, refused)


def problem_of(study: Study, *, trusted: bool) -> Problem:
    """The study's data and network, ready for schedules."""
    device = "cuda" if study.resources.gpu > 0 else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"resources.gpu: {study.resources.gpu:g}, but torch finds no GPU here; set it to 0")
    problem = Problem(
        data.load(study.data), study.model, study.dense, study.retraining, study.regularisation,
        precision=fastest_precision(device) if study.precision == "auto" else study.precision,
        threads=max(1, math.floor(study.resources.cpu)), device=device, trusted=trusted,
    )  # fmt: skip
    problem.check_network()
    return problem


def _refusals(study: Study, problem: Problem) -> dict[str, dict[str, str]]:
    """What of the study's structured choices can't work for its network."""
    if study.space is not None:
        structured = study.space.structured
        asked = {n.IMPORTANCE: structured.importance, n.PRUNER: structured.pruner} if structured else {}
    else:
        schedules = [schedule for schedule in study.schedules() if isinstance(schedule, StructuredSchedule)]
        asked = {kind: tuple(dict.fromkeys(getattr(s, kind) for s in schedules)) for kind in (n.IMPORTANCE, n.PRUNER)}
    return refusals(problem, asked.get(n.IMPORTANCE, ()), asked.get(n.PRUNER, ()))


def run(study: Study, console: Console, *, trusted: bool = False) -> Ledger:
    """Run the study to its end, from wherever it stands; returns its points."""
    session = prepare(study, trusted=trusted)
    with only_driver(study.folder):
        begin(session)
        _tell_refusals(session, console)
        ledger = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
        started = time.monotonic()
        with ExitStack() as stack:
            ended = _stage(session, ledger, console, stack)
            if study.finalists is not None:
                ended = _stage(_with_finalists(session, study.finalists), ledger, console, stack)
        _finish(session, ledger, console, time.monotonic() - started)
    console.print(f"[dim]Ended after {ended}.[/dim]")
    return ledger


def _stage(session: Session, ledger: Ledger, console: Console, stack: ExitStack) -> str:
    """Run what is left of a space or a sweep; Ray is started only if something is, once, and stays in ``stack``."""
    study = session.study
    searcher = FrontSearch(session.space, study.search, session.tree, ledger, study.objectives, _storage(study))
    if _missing_roots(session) or not searcher.finished:
        if not ray.is_initialized():
            stack.enter_context(_ray(study))
        _train_dense(session, ledger, console)
        _check_disk(session, ledger)
        _search(session, searcher, ledger, console)
    return searcher.finished_because or "an interruption"


def _with_finalists(session: Session, settings: FinalistSettings) -> Session:
    """The sweep with the finalists at its end."""
    schedules = session.study.schedules()
    chosen = choose(settings, schedules, session.tree)
    seeds = tuple(sorted({*session.seeds, *settings.seeds}))
    return replace(session, space=Sweep([*schedules, *chosen]), seeds=seeds)


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold the study's folder; a second driver is refused, and a dead one's hold is gone with it."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK_FILE
    try:
        with FileLock(lock, timeout=0):
            lock.write_text(f"{os.getpid()}\n")
            yield
    except Timeout:
        holder = lock.read_text().strip()
        raise InputError(f"storage: {folder} is being run by process {holder}; wait for it, or stop it") from None
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # only if nothing was put there


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
    return JournalStorage(JournalFileBackend(file, lock_obj=lock))


@contextmanager
def _ray(study: Study) -> Iterator[None]:
    """Ray on this machine alone: a bare ``init`` would attach to whatever cluster was last started here."""
    os.environ.update(RAY_QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ray.init(address="local", log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    if ray.cluster_resources().get("CPU", 0) < study.resources.cpu:
        ray.shutdown()
        raise InputError(f"resources.cpu: a trial takes {study.resources.cpu:g}, more than this machine has; lower it")
    try:
        yield
    finally:
        ray.shutdown()


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
            ray.get([task.remote(shared, str(tree.store.folder), seed) for seed in missing])
    for seed in session.seeds:
        if seed in ledger.dense:
            continue
        point = tree.dense_point(seed)
        ledger.add_dense(point)
        console.print(
            f"Dense network, seed {seed}: {point['accuracy']:.2%} validation accuracy, {point['params']:,} parameters"
        )


def _dense_task(problem: Problem, folder: str, seed: int) -> None:
    Tree(problem, Store(Path(folder))).record(problem.root(seed))


def _check_disk(session: Session, ledger: Ledger) -> None:
    """InputError if the weights that the study keeps can't fit on the disk."""
    study = session.study
    one = max(row[n.STORED_BYTES] for row in ledger.dense.values())
    steps = sum(s.steps for s in study.schedules()) or 3 * (study.search.trials or 100)
    needed = one * (steps if study.keep == "all" else 20)
    free = shutil.disk_usage(study.folder).free
    if needed > free:
        raise InputError(
            f"storage: {study.folder} needs up to {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "set keep to front, or choose another storage"
        )


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
                search_alg=searcher, num_samples=-1, reuse_actors=True, max_concurrent_trials=_at_once(study)
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


def _at_once(study: Study) -> int:
    """As many trials as fit on the machine or cluster."""
    have = ray.cluster_resources()
    fits = [have.get("CPU", 1) / study.resources.cpu]
    if study.resources.gpu:
        fits.append(have.get("GPU", 0) / study.resources.gpu)
    return max(1, math.floor(float(min(fits))))


def _finish(session: Session, ledger: Ledger, console: Console, seconds: float) -> None:
    """What comes after the trials: latencies of the front, weights that need not stay, provenance."""
    study, tree = session.study, session.tree
    table = LatencyTable(study.folder, tree.problem.threads)
    rows = [*ledger.dense.values(), *ledger.front_rows()]
    with console.status("Measuring the latency of the front, with nothing else running …"):
        for row in rows:
            tree.content(tree.node(row[n.STEP_ID]))
            table.of(row, tree)
    ledger.rewrite({row[n.STEP_ID]: table.find(row) or {} for row in ledger.points})
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
