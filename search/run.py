"""Building a study, running it, and going on with it: the same command does all three."""

from __future__ import annotations

import gc
import shutil
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
from rich.console import Console
from rich.markup import escape

from search.cluster.connection import connected, local
from search.cluster.interrupts import second_interrupt_ends_at_once, sigterm_is_not_ray_s, take_sigterm_back
from search.cluster.node_checks import agreed
from search.cluster.nodes import AsManyAsFit
from search.records.driver import only_driver, why_lost
from search.records.ledger import Ledger, drop_torn_line
from search.records.recovery import forget_untold, heal, lost_trials
from search.records.snapshots import Snapshots
from search.sampling.candidates import epochs_ahead
from search.sampling.space import Sweep
from search.session import Session, check_roots, prepare, renamed
from search.stages.dense import lost_seeds, missing_seeds, record_dense, train_dense
from search.stages.finalists import Final
from search.stages.wrap_up import finish
from search.study import Study, to_yaml
from search.tune.display import Progress
from search.tune.live_trials import LiveFifo
from search.tune.scheduler import FrontScheduler
from search.tune.searcher import FrontSearch
from search.tune.snapshots import StoresSnapshots
from search.tune.trial import LOST_IN_A_ROW, StudyTrainable, describe
from search.tune.trial_ends import TrialEndError
from trainables.records import names as n
from trainables.records.files import remove_temporaries, write_atomically
from trainables.records.names import InputError, StoppedError
from trainables.schedule import Schedule
from trainables.settings import one_line
from trainables.storage.base import REMEDY, STORAGE_ERRORS, UnreachableError

SCRATCH = ".tune"


def run(study: Study, console: Console, *, trusted: bool = False, address: str | None = None) -> Ledger:
    """Run the study to its end, from wherever it stands; returns its points.

    StoppedError if it can't go on here. ``address`` is a Ray cluster's, HOST:PORT or auto; without it, Ray runs on this
    machine alone.
    """
    with ExitStack() as connection:
        connection.enter_context(sigterm_is_not_ray_s())
        cluster = connection.enter_context(connected(address, study)) if address else None
        session = prepare(study, trusted=trusted, fastest=cluster.fastest if cluster else None)
        connection.enter_context(_storage_errors(study))
        with console.status("Looking whether another driver is at work …"):  # takes a while where one has died
            held = connection.enter_context(only_driver(study.folder, study.place))
        snapshots = connection.enter_context(Snapshots(study.folder, study.place, held))
        forgotten = forget_untold(study.folder)
        ledger = Ledger(study.folder, study.objectives, study.reference.accuracy_drop)
        check_roots(session.tree, ledger)
        if cluster:
            terms = connection.enter_context(agreed(session, cluster, console))
            nodes = {node.host: describe(machine) for node, machine in cluster.machines.items()}
            session = replace(session, terms=terms, nodes=nodes)
        begin(session)
        _tell_refusals(session, console)
        started = time.monotonic()
        # What was fetched is older than the last steps, if the driver that stored it was killed.
        lost = lost_trials(session.tree, ledger) if forgotten or snapshots.fetched else {}
        with ExitStack() as stack:
            ended = _stage(session, ledger, lost, console, snapshots, stack)
            if ended and study.finalists is not None:  # an interrupted sweep has no finalists yet
                final = Final(study.finalists, study.schedules(), session.tree, ledger)
                if final.undecided:  # where points are lost, and their steps with them
                    raise InputError(
                        f"{study.folder / n.POINTS_FILE}: lacks points of schedules that compete to run again; move "
                        f"{n.OPTUNA_FILE} away and run again: finished steps are found, and the others computed"
                    )
                for line in final.told():
                    console.print(f"[dim]{escape(line)}[/dim]")
                ended = _stage(_with_finalists(session, final), ledger, lost, console, snapshots, stack)
        if reason := why_lost(study.place, held):
            raise StoppedError(reason)
        finish(session, ledger, console, time.monotonic() - started, ended=ended is not None)
        _tidy(study.folder)  # of workers that were killed in this run
    if ended is None:
        raise KeyboardInterrupt  # Tune has kept it to itself
    console.print(f"[dim]Ended after {ended}.[/dim]")
    return ledger


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


def _stage(
    session: Session, ledger: Ledger, lost: Mapping[int, Schedule], console: Console, snapshots: Snapshots, stack: ExitStack
) -> str | None:
    """Run what is left of a space or a sweep, and say what ended it, or None if it was interrupted.

    Ray is started only if something is left, once, and stays in ``stack``.
    """
    study = session.study
    searcher = FrontSearch(session.space, study.search, session.tree, ledger, study.objectives, _storage(study), lost=lost)
    if seeds := missing_seeds(session):
        _ensure_ray(stack)
        train_dense(session, seeds, console)
    record_dense(session, ledger, console)
    heal(searcher.rows, session, ledger)
    if not searcher.finished:
        _ensure_ray(stack)
        if seeds := lost_seeds(session):
            train_dense(session, seeds, console)
        _run_trials(session, searcher, ledger, console, snapshots)
    return None if searcher.interrupted else searcher.finished_because


def _run_trials(session: Session, searcher: FrontSearch, ledger: Ledger, console: Console, snapshots: Snapshots) -> None:
    """Run Tune until nothing is left; where Ray kills workers because memory is short, Tune itself ends with an error."""
    in_a_row = 0
    while not searcher.finished:
        before, reason = ledger.steps_computed, None
        try:
            _search(session, searcher, ledger, console, snapshots)
        except ray.exceptions.RayError as error:
            reason = str(error).partition("\n")[0]
        if reason is None:
            if searcher.interrupted:
                return
            continue
        in_a_row = in_a_row + 1 if ledger.steps_computed == before else 0
        if in_a_row > LOST_IN_A_ROW:
            raise StoppedError(f"ray: {reason}; free memory, or run fewer trials at once (resources.cpu)")
        console.print(f"[yellow]Trials lost their workers and start again:[/yellow] {escape(reason)}")
        searcher.take_back()
        gc.collect()  # the error's frames, in cycles, hold the trials' actors, and those their cores


def _ensure_ray(stack: ExitStack) -> None:
    if not ray.is_initialized():
        stack.enter_context(local())
    take_sigterm_back()


def _with_finalists(session: Session, final: Final) -> Session:
    """The sweep with the finalists at its end."""
    seeds = tuple(sorted({*session.seeds, *final.settings.seeds}))
    return replace(session, space=Sweep([*final.schedules, *final.fresh]), seeds=seeds)


def begin(session: Session) -> None:
    """Write the study as it runs, and remove what processes of earlier runs left in the middle of writing."""
    folder = session.study.folder
    _tidy(folder)
    write_atomically(folder / n.STUDY_FILE, to_yaml(session.study).encode())


def _tidy(folder: Path) -> None:
    remove_temporaries(folder, folder / n.LATENCY_FOLDER, *(folder / n.STEPS_FOLDER).glob("*"))


def _tell_refusals(session: Session, console: Console) -> None:
    for told in renamed(session.study):
        console.print(f"[yellow]Told under another name:[/yellow] {escape(told)}.")
    if notes := session.tree.problem.checkpoint_told:
        console.print(f"[yellow]Checkpoint:[/yellow] {escape('; '.join(notes))}.")
    for family, found in session.protected.items():
        for line in found["told"]:
            console.print(f"[yellow]Protected ({family}):[/yellow] {escape(line)}.")
    for kind, reasons in session.refused.items():
        for reason in reasons.values():
            console.print(f"[yellow]Left out:[/yellow] {kind} {escape(reason)}")


def _storage(study: Study) -> JournalStorage:
    file = str(study.folder / n.OPTUNA_FILE)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # One driver writes, which only_driver() ensures; a lock left by a dead one must not hold up the next.
    lock = JournalFileOpenLock(file, grace_period=3)
    Path(f"{file}.lock").unlink(missing_ok=True)
    drop_torn_line(Path(file))
    try:
        return JournalStorage(JournalFileBackend(file, lock_obj=lock))
    except Exception as error:  # what Optuna raises on a damaged line can be anything
        raise InputError(
            f"{file}: cannot be read ({one_line(error)}); move it away, finished steps are found again in the store"
        ) from error


def _search(session: Session, searcher: FrontSearch, ledger: Ledger, console: Console, snapshots: Snapshots) -> None:
    study, store = session.study, session.tree.store
    dense = [session.tree.record(session.tree.problem.root(seed)) for seed in session.seeds]
    # Of those whose weights are gone no trial needs any, or the first that does trains it again.
    contents = {record["id"]: content for record in dense if (content := store.weights(record)) is not None}
    trainable = tune.with_parameters(
        StudyTrainable, problem=session.tree.problem, folder=store.place, dense=contents,
        objectives=study.objectives, terms=session.terms,
    )  # fmt: skip
    resources = {"cpu": study.resources.cpu, "gpu": study.resources.gpu}
    trials = session.space.size or study.search.trials
    ahead = epochs_ahead(session.space.schedules, session.tree) if isinstance(session.space, Sweep) else None
    progress = Progress(ledger, searcher, study.search, trials, console, session.nodes, ahead)
    with _scratch(study.folder) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=AsManyAsFit(searcher, study.resources), scheduler=scheduler_of(session, ledger), num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(scratch), verbose=0, callbacks=[progress, StoresSnapshots(snapshots)],
                failure_config=tune.FailureConfig(max_failures=LOST_IN_A_ROW),
                # Of a checkpoint, though there is nothing in ours, Tune would see to it that all nodes share its folder.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )  # fmt: skip
        try:
            with second_interrupt_ends_at_once():  # Tune takes the first, and ends the trials
                tuner.fit()
        except TrialEndError as ended:
            raise ended.error from None
        except tune.TuneError as error:
            raise _cause(error) from None
        except RuntimeError as error:  # Tune's word for what it doesn't know; what Ray said is its cause
            raise error.__cause__ or error from None
        finally:
            progress.stop()


def scheduler_of(session: Session, ledger: Ledger) -> LiveFifo:
    """What ends trials early; of a sweep every step was asked for."""
    study = session.study
    if study.search.stop == "front" and session.space.size is None:
        return FrontScheduler(ledger, study.objectives, len(session.tree.problem.data.validation_labels))
    return LiveFifo()


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for Tune's own files, in which nothing lasting lives; one that a killed driver left is emptied."""
    scratch = folder.absolute() / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _cause(error: BaseException) -> BaseException:
    """What our own code raised in Tune's callbacks, of which Tune makes an error of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, StoppedError | InputError | OSError):
        cause = cause.__cause__ or cause.__context__
    return cause or error
