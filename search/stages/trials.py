"""The trials of a space or of a sweep: Ray Tune runs them, and Optuna chooses, until there is a reason to end."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import tune
from rich.markup import escape

from search.cluster.interrupts import second_interrupt_ends_at_once
from search.records.journal import View
from search.records.ledger import Ledger
from search.records.recovery import heal
from search.sampling.candidates import epochs_ahead
from search.sampling.space import Sweep
from search.session import Session
from search.stages.dense import lost_seeds, train_dense
from search.stages.ready import Driver
from search.tune.as_many_as_fit import AsManyAsFit
from search.tune.display import Progress
from search.tune.live_trials import LiveFifo
from search.tune.logs import LogsBeside, folder_name
from search.tune.scheduler import FrontScheduler
from search.tune.searcher import FrontSearch
from search.tune.trial import LOST_IN_A_ROW, StudyTrainable
from search.tune.trial_ends import TrialEndError
from trainables.records.names import InputError, StoppedError

SCRATCH = ".tune"


def run_trials(driver: Driver) -> str | None:
    """Run what is left, and say what ended it, or None if it was interrupted. Ray is started only if something is left."""
    session, ledger = driver.session, driver.ledger
    study = session.study
    heal(driver.asks, session, ledger)
    searcher = FrontSearch(
        session.space, study.search, session.tree, ledger, driver.asks, began=driver.began, limits=study.limits
    )
    view = View(study.folder, searcher.study)
    if not searcher.finished:
        driver.ray.start()
        if seeds := lost_seeds(session):
            train_dense(session, seeds, driver.console)
        _until_finished(driver, searcher, view)
        view.update()
    return None if searcher.interrupted else searcher.finished_because


def _until_finished(driver: Driver, searcher: FrontSearch, view: View) -> None:
    """Run Tune until nothing is left; where Ray kills workers because memory is short, Tune itself ends with an error."""
    ledger, in_a_row = driver.ledger, 0
    while not searcher.finished:
        before, reason = ledger.steps_computed, None
        try:
            _tune(driver, searcher, view)
        except ray.exceptions.RayError as error:
            reason = str(error).partition("\n")[0]
        if reason is None:
            if searcher.interrupted:
                return
            continue
        in_a_row = in_a_row + 1 if ledger.steps_computed == before else 0
        if in_a_row > LOST_IN_A_ROW:
            raise StoppedError(f"ray: {reason}; free memory, or run fewer trials at once (resources.cpu)")
        driver.console.print(f"[yellow]Trials lost their workers and start again:[/yellow] {escape(reason)}")
        searcher.take_back()
        gc.collect()  # the error's frames, in cycles, hold the trials' actors, and those their cores


def _tune(driver: Driver, searcher: FrontSearch, view: View) -> None:
    """One run of Tune, with our own errors as they were raised."""
    progress = _progress(driver, searcher, view)
    with _scratch(driver.session.study.folder) as scratch:
        tuner = _tuner(driver, searcher, progress, scratch)
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


def _tuner(driver: Driver, searcher: FrontSearch, progress: Progress, scratch: Path) -> tune.Tuner:
    session = driver.session
    study, store = session.study, session.tree.store
    dense = [session.tree.record(session.tree.problem.root(seed)) for seed in session.seeds]
    # Of those whose weights are gone no trial needs any, or the first that does trains it again.
    contents = {record["id"]: content for record in dense if (content := store.weights(record)) is not None}
    trainable = tune.with_parameters(
        StudyTrainable, problem=session.tree.problem, folder=store.place, dense=contents, reuse=store.reuse,
        run=store.run, objectives=study.objectives, forms=study.storage_forms, terms=session.terms,
    )  # fmt: skip
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": study.resources.cpu, "gpu": study.resources.gpu}),
        tune_config=tune.TuneConfig(
            search_alg=AsManyAsFit(searcher, study.resources), scheduler=scheduler_of(session, driver.ledger),
            num_samples=-1, reuse_actors=True, trial_dirname_creator=folder_name,
        ),
        run_config=tune.RunConfig(
            name="trials", storage_path=str(scratch), verbose=0, callbacks=_callbacks(driver, progress),
            failure_config=tune.FailureConfig(max_failures=LOST_IN_A_ROW),
            # Of a checkpoint, though there is nothing in ours, Tune would see to it that all nodes share its folder.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            progress_reporter=tune.CLIReporter(),  # says nothing, as nothing is verbose; a notebook's would clear its cell
        ),
    )  # fmt: skip


def _callbacks(driver: Driver, progress: Progress) -> list[tune.Callback]:
    """What hears of the trials: first what the study itself needs, then the user's own."""
    logs = [LogsBeside(driver.session.study.folder)] if driver.callbacks else []
    return [progress, *logs, *driver.callbacks]


def _progress(driver: Driver, searcher: FrontSearch, view: View) -> Progress:
    session, search = driver.session, driver.session.study.search
    ahead = epochs_ahead(session.space.schedules, session.tree) if isinstance(session.space, Sweep) else None
    trials = session.space.size or search.trials

    def copy() -> None:
        view.update()
        driver.snapshots.store_if_due()

    return Progress(driver.ledger, searcher, search, trials, driver.console, session.nodes, ahead, driver.run, copy)


def scheduler_of(session: Session, ledger: Ledger) -> LiveFifo:
    """What ends trials early; of a sweep every step was asked for."""
    study = session.study
    if study.search.stop == "front" and session.space.size is None:
        return FrontScheduler(ledger, study.goals, len(session.tree.problem.data.validation_labels))
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
