"""Ray's OptunaSearch, told every step of every trial instead of each trial's last result alone.

Optuna's study has two kinds of rows. A trial that was asked for ends COMPLETE with the values of its last step. Every
other step, being a schedule of the space itself, is added as a row of its own, once. A trial whose last step was told
already (it was another's prefix, or asked for twice) ends FAIL with the reason, because a point told twice would count
twice in the sampler's densities. One that the scheduler stopped ends PRUNED; its points are rows of their own, and a
schedule that would go on from where it was stopped is not run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import ValidationError
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from search.records.journal import NAME
from search.records.ledger import Ledger
from search.records.recovery import ADDED, EXHAUSTED, KNOWN
from search.records.retelling import end_outside, retold, under_way
from search.sampling.candidates import step_tree
from search.sampling.constraints import constraints_of
from search.sampling.samplers import SAMPLERS, Random, sampler_for_ask
from search.sampling.space import Params, Space
from search.sampling.step_tree import StepTree
from search.sampling.tree_sampler import LOOKS
from search.study import SearchSettings
from search.tune.looked import Looked
from search.tune.telling import Asked, Telling
from search.tune.trial_ends import not_swallowed
from trainables.records import names as n
from trainables.records.limits import Limits
from trainables.records.names import InputError
from trainables.schedule import Schedule
from trainables.trainable import gain_metric
from trainables.tree import Tree

NO_LIMITS = Limits()
KNOWN_BEFORE_RANDOM = 5
"""After so many proposals in a row that are known already, the next are drawn at random.

A sampler that was told every point proposes its favourites again and again; without this, TPE ended a search of 80 trials
at the 52nd in a space of which it had seen a hundredth.
"""
KNOWN_IN_A_ROW = 200
"""So many proposals in a row that are known already, nearly all at random, mean that the space is exhausted."""

FIXED = "fixed_params"
"""Optuna's own attribute of a row that was enqueued."""


def params_of(row: FrozenTrial) -> Params:
    """A row's parameters, or those that it was enqueued with and will have."""
    return row.params or row.system_attrs.get(FIXED, {})


def known_in_a_row(asked: Sequence[FrozenTrial]) -> int:
    """How many rows at the end, of those that were asked for, became no trial: what they proposed was known already."""
    return sum(1 for _ in itertools.takewhile(lambda row: n.TRIAL not in row.user_attrs, reversed(asked)))


class FrontSearch(OptunaSearch):
    """Asks Optuna for schedules, tells it every point, and knows when to stop.

    It first tells it what else is on record, and takes up the ``lost`` trials, of which it has nothing any more.
    """

    _ot_study: Any

    def __init__(
        self, space: Space, settings: SearchSettings, tree: Tree, ledger: Ledger, objectives: tuple[str, ...],
        storage: BaseStorage, clock: Callable[[], float] = time.monotonic, lost: Mapping[int, Schedule] | None = None,
        began: float | None = None, limits: Limits = NO_LIMITS,
    ) -> None:  # fmt: skip
        # OptunaSearch enqueues starting points at every start; here they are enqueued once in a study's life.
        metrics = [gain_metric(name) for name in objectives]
        super().__init__(
            space=space.schedule,  # type: ignore[arg-type] # suggest() is our own
            metric=metrics, mode=["max"] * len(metrics), storage=storage, study_name=NAME,
            sampler=sampler_for_ask(settings.sampler, settings.seed, 0),
        )  # fmt: skip
        self._schedules, self._settings, self._tree, self._ledger = space, settings, tree, ledger
        self._clock, self._began = clock, clock() if began is None else began
        self._constraints = constraints_of(limits, ledger.dense)
        self._under_way: dict[str, Asked] = {}
        self._died: dict[str, Asked] = {}
        self.finished_because: str | None = None
        self._tell_what_is_on_record(lost or {})
        rows = self._ot_study.get_trials(deepcopy=False)
        asked = [row for row in rows if ADDED not in row.user_attrs]
        self._check_numbers(asked)
        self._waiting = sum(row.state == TrialState.WAITING for row in asked)
        if space.size is not None or settings.starting_points:
            enqueued = [row.system_attrs.get(FIXED, row.params) for row in asked]
            for params in space.starting_points():  # finalists may have come to a sweep, or a crash cut this off
                if params not in enqueued:
                    self._ot_study.enqueue_trial(params)
                    self._waiting += 1
        self._telling = Telling(self._ot_study, space, metrics, ledger.reference_of, self._constraints)
        asked = [row for row in asked if row.state != TrialState.WAITING]
        self._asks, self._known = len(asked), known_in_a_row(asked)
        numbers = {row.user_attrs[n.TRIAL] for row in rows if n.TRIAL in row.user_attrs}
        self._numbers = numbers | set(lost or {}) | ledger.trial_numbers
        self._orphans = [row for row in rows if row.state == TrialState.RUNNING and space.holds(params_of(row))]

    def _tell_what_is_on_record(self, lost: Mapping[int, Schedule]) -> None:
        """Add the trials that Optuna's study doesn't have: those that have ended, and of the others the ``lost`` ones."""
        rows = self._ot_study.get_trials(deepcopy=False)
        told = {row.user_attrs.get(n.TRIAL) for row in rows}
        end_outside({trial: one for trial, one in lost.items() if trial not in told}, self._schedules, self._ledger)
        for trial, own in retold(self._schedules, self._tree, self._ledger, rows, self._constraints):
            told.add(trial)
            self._ot_study.add_trials(own)
        self._ot_study.add_trials(
            under_way({trial: one for trial, one in lost.items() if trial not in told}, self._schedules)
        )

    def _check_numbers(self, asked: Sequence[FrozenTrial]) -> None:
        """InputError if a sweep's numbers stand for other schedules than they did: some would never run."""
        if self._schedules.size is None:
            return
        for row in asked:
            if n.STEP_ID not in row.user_attrs or not self._schedules.holds(row.params):
                continue
            schedule = self._schedules.schedule(optuna.trial.FixedTrial(row.params))
            if self._tree.chain(schedule)[-1].id != row.user_attrs[n.STEP_ID]:
                raise InputError(
                    f"{n.OPTUNA_FILE}: schedule {row.params['schedule']} of the sweep was another one when this file was "
                    "written; move the file away, finished steps are found again in the store"
                )

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: no trial to take up again, and a budget spent or the space exhausted."""
        self.finished_because = self._spent()
        return not self._orphans and self.finished_because is not None

    @property
    def interrupted(self) -> bool:
        """Whether trials are still under way, or more would have been asked for."""
        return bool(self._under_way) or self.finished_because is None

    def suggest(self, trial_id: str) -> Any:
        """The next schedule that isn't known yet, as a trial's config; FINISHED when a budget is spent."""
        while self._orphans:
            config = self._take_up(self._orphans.pop(0), trial_id)
            if config is not None:
                return config
        while self._known < max(KNOWN_IN_A_ROW, self._schedules.size or 0):
            self.finished_because = self._spent()
            if self.finished_because:
                return Searcher.FINISHED
            config = self._ask(trial_id)
            if config is not None:
                return config
        self._ot_study.set_user_attr(EXHAUSTED, True)
        self.finished_because = self._spent()
        return Searcher.FINISHED

    def _spent(self) -> str | None:
        settings, ledger = self._settings, self._ledger
        if self._schedules.size is not None:
            return f"the whole sweep of {self._schedules.size}" if self._asks >= self._schedules.size else None
        if self._ot_study.user_attrs.get(EXHAUSTED):
            return f"the space was exhausted: {KNOWN_IN_A_ROW} proposals in a row were known already"
        minutes = (self._clock() - self._began) / 60
        budgets = (
            (settings.trials, len(self._numbers), "trials"),
            (settings.epochs, ledger.epochs_computed, "epochs"),
            (settings.minutes, minutes, "minutes"),
        )
        for budget, spent, unit in budgets:
            if budget is not None and spent >= budget:
                return f"{budget:g} {unit}"
        if settings.stall_epochs is not None and ledger.growth(settings.stall_epochs) < settings.stall_share:
            return f"{settings.stall_epochs} epochs in which the hypervolume grew by less than {settings.stall_share:.1%}"
        return None

    def _ask(self, trial_id: str) -> dict[str, Any] | None:
        self._ot_study.sampler = self._sampler_of(self._asks, self._known)
        self._asks += 1
        return self._propose(self._next_row(), trial_id)

    def _next_row(self) -> Trial:
        """Optuna's next row. Its own ``ask`` looks through all rows for one that waits; only those enqueued here do."""
        study: optuna.Study = self._ot_study
        if self._waiting:
            self._waiting -= 1
            return study.ask()
        return self._trial(study._storage.create_new_trial(study._study_id))

    def _trial(self, trial_id: int) -> Trial:
        """A row to be given its parameters: all of them, should a crash have cut that off; no sampler can begin halfway."""
        self._ot_study._thread_local.cached_all_trials = None
        trial = Trial(self._ot_study, trial_id)
        trial._cached_frozen_trial = copy(trial._cached_frozen_trial)
        trial._cached_frozen_trial.params, trial._cached_frozen_trial.distributions = {}, {}
        return trial

    def _sampler_of(self, ask: int, known: int) -> BaseSampler:
        name = self._settings.sampler if known < KNOWN_BEFORE_RANDOM else Random.name
        tree = self._step_tree if SAMPLERS[name].knows_tree else None
        found = self._looked.found() if tree is not None and self._settings.looks_at else {}
        return sampler_for_ask(
            name, self._settings.seed, ask, tree, self._ledger.reference, settings=self._settings.model_dump(), found=found
        )

    @cached_property
    def _step_tree(self) -> StepTree:
        return step_tree(self._schedules, self._tree, looks=self._settings.looks_at > 0)

    @cached_property
    def _looked(self) -> Looked:
        return Looked(self._tree, self._ledger, self._step_tree.looks)

    def _looks(self, number: int) -> dict[str, Any]:
        """The part of a trial's config that says what its row wants it to look at."""
        wanted = self._ot_study.get_trials(deepcopy=False)[number].system_attrs.get(LOOKS, ())
        schedules = [self._schedules.schedule(optuna.trial.FixedTrial(params)) for params in wanted]
        self._looked.wait_for(schedules)
        return {n.LOOKS: [one.model_dump(mode="json", exclude_none=True) for one in schedules]} if schedules else {}

    def _propose(self, row: Trial, trial_id: str) -> dict[str, Any] | None:
        self._known += 1
        try:
            schedule = self._schedules.schedule(row)
            self._tree.problem.check(schedule)
        except (InputError, ValidationError) as refusal:
            self._telling.close(row.number, str(refusal).splitlines()[0])
            return None
        asked = self._asked(row.number, self._free_number(), schedule, row.params, row.distributions)
        # What a sweep names is a trial even where another one's chain has passed its last step: it is a row of both.
        known = self._telling.has(asked.ids[-1]) and self._schedules.size is None
        if known or self._telling.gives_up(asked.ids):
            self._telling.close(row.number, f"{KNOWN}{asked.ids[-1]}")
            return None
        row.set_user_attr(n.TRIAL, asked.trial)
        self._numbers.add(asked.trial)
        self._known = 0
        return self._start(trial_id, asked, schedule)

    def _free_number(self) -> int:
        """The first that no trial has: a trial of which a lost host left nothing is made up for."""
        return next(number for number in itertools.count() if number not in self._numbers)

    def _take_up(self, row: FrozenTrial, trial_id: str) -> dict[str, Any] | None:
        """Go on with a trial that was under way when the driver stopped; its finished steps are found."""
        rows = self._ot_study.get_trials(deepcopy=False)[: row.number]
        before = [earlier for earlier in rows if ADDED not in earlier.user_attrs]
        known = known_in_a_row(before)
        self._ot_study.sampler = self._sampler_of(len(before), known)  # it also hears how trials end
        if n.TRIAL not in row.user_attrs:  # lost in the middle of being asked for
            self._known = known
            return self._propose(self._trial(row._trial_id), trial_id)
        try:
            schedule = self._schedules.schedule(optuna.trial.FixedTrial(row.params))
        except (KeyError, ValueError):
            self._telling.close(row.number, "lost, and the study file has lost one of its choices since")
            return None
        asked = self._asked(row.number, row.user_attrs[n.TRIAL], schedule, row.params, row.distributions)
        return self._start(trial_id, asked, schedule)

    def _asked(
        self, number: int, trial: int, schedule: Schedule, params: Params, distributions: Mapping[str, BaseDistribution]
    ) -> Asked:
        ids = tuple(node.id for node in self._tree.chain(schedule))
        return Asked(number, trial, params, distributions, ids)

    def _start(self, trial_id: str, asked: Asked, schedule: Schedule) -> dict[str, Any]:
        self._under_way[trial_id] = asked
        looks = self._looks(asked.number) if self._settings.looks_at else {}
        return {**schedule.model_dump(mode="json", exclude_none=True), n.TRIAL: asked.trial, **looks}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna a step that is not the trial's last."""
        self._telling.step(self._under_way[trial_id], result)

    @not_swallowed
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended; of one whose worker died, ``fail`` or ``run_again`` decides."""
        asked = self._under_way.pop(trial_id, None)
        if asked is None:
            return
        if error or result is None:
            self._died[trial_id] = asked
        else:
            self._telling.end(asked, result)

    def fail(self, trial_id: str, reason: str) -> None:
        """A trial whose worker died will not run again."""
        self._telling.failed(self._died.pop(trial_id), reason)

    def run_again(self, trial_id: str) -> None:
        """A trial whose worker died is to be started again, as if its driver had died."""
        number = self._died.pop(trial_id).number
        self._orphans.append(self._ot_study.get_trials(deepcopy=False)[number])

    def take_back(self) -> None:
        """All trials that are under way are to be started again, as if their driver had died."""
        rows = self._ot_study.get_trials(deepcopy=False)
        self._orphans += [rows[asked.number] for asked in self._under_way.values()]
        self._under_way.clear()

    @property
    def rows(self) -> list[FrozenTrial]:
        """The rows of Optuna's study that belong to the space."""
        return [row for row in self._ot_study.get_trials(deepcopy=False) if self._schedules.holds(params_of(row))]

    def __deepcopy__(self, _memo: dict[int, Any]) -> FrontSearch:
        return self

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is lasting is in Optuna's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
