"""Optuna's study behind Ray Tune's interface: it is told every step of every trial, and asked for what isn't known yet.

The study is in memory. What is lasting are the asks, which are put on record here, and the ledger; from both each run tells
its study what was told before (``search.tune.retelling``).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FixedTrial
from pydantic import ValidationError
from ray.tune.search import Searcher

from search.records.asked import ATTRIBUTES, NUMBER, OF_STUDY, Asks, line
from search.records.journal import KNOWN, NAME
from search.records.ledger import Ledger
from search.sampling.candidates import step_tree
from search.sampling.constraints import constraints_of
from search.sampling.samplers import SAMPLERS, Random, sampler_for_ask
from search.sampling.space import Space
from search.sampling.step_tree import StepTree
from search.sampling.tree_sampler import LOOKS
from search.study import SearchSettings
from search.tune.looked import Looked
from search.tune.retelling import FIXED, Retelling
from search.tune.telling import Asked, Telling, ids_of
from search.tune.trial_ends import not_swallowed
from trainables.records import names as n
from trainables.records.limits import Limits
from trainables.records.names import InputError
from trainables.schedule import Schedule
from trainables.trainable import points_of
from trainables.tree import Tree

NO_LIMITS = Limits()
KNOWN_BEFORE_RANDOM = 5
"""After so many proposals in a row that are known already, the next are drawn at random.

A sampler that was told every point proposes its favourites again and again; without this, TPE ended a search of 80 trials
at the 52nd in a space of which it had seen a hundredth.
"""
KNOWN_IN_A_ROW = 200
"""So many proposals in a row that are known already, nearly all at random, mean that the space is exhausted."""


class FrontSearch(Searcher):
    """Asks Optuna for schedules, tells it every point, and knows when to stop; what was under way is taken up first."""

    def __init__(
        self, space: Space, settings: SearchSettings, tree: Tree, ledger: Ledger, asks: Asks,
        clock: Callable[[], float] = time.monotonic, began: float | None = None, limits: Limits = NO_LIMITS,
    ) -> None:  # fmt: skip
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._settings, self._tree, self._ledger, self._asks = space, settings, tree, ledger, asks
        self._clock, self._began = clock, clock() if began is None else began
        self.finished_because: str | None = None
        self._storage = InMemoryStorage()
        ways = [StudyDirection.MAXIMIZE] * len(ledger.objectives)
        self.study = optuna.create_study(
            storage=self._storage, study_name=NAME, directions=ways, sampler=RandomSampler(seed=0)
        )
        self._telling = Telling(self.study, space, ledger, constraints_of(limits, ledger.dense, ledger.measure))
        told = Retelling(self.study, space, tree, ledger, asks, self._telling)
        self._orphans, self._under_way, self._died = told.under_way, dict[str, Asked](), dict[str, Asked]()
        self._noted = self._take_notes() if told.as_it_was else {}
        self._known = sum(1 for _ in itertools.takewhile(lambda one: one[n.TRIAL] is None, reversed(asks.lines)))
        self._numbers = asks.trials | ledger.trial_numbers
        first = space.size is not None or settings.starting_points
        self._starting = [params for params in space.starting_points() if params not in told.params] if first else []

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
        if self._orphans:
            return self._start(trial_id, self._orphans.pop(0))
        while not self._over():
            asked = self._ask()
            if asked is not None:
                return self._start(trial_id, asked)
        return Searcher.FINISHED

    def _over(self) -> bool:
        self.finished_because = self._spent()
        return self.finished_because is not None

    def _spent(self) -> str | None:
        settings, ledger = self._settings, self._ledger
        if self._space.size is not None:
            return None if self._starting else f"the whole sweep of {self._space.size}"
        if self._known >= KNOWN_IN_A_ROW:
            return f"the space was exhausted: {KNOWN_IN_A_ROW} proposals in a row were known already"
        budgets = (
            (settings.trials, len(self._numbers), "trials"),
            (settings.epochs, ledger.epochs_computed, "epochs"),
            (settings.minutes, self.spent / 60, "minutes"),
        )
        for budget, spent, unit in budgets:
            if budget is not None and spent >= budget:
                return f"{budget:g} {unit}"
        if settings.stall_epochs is not None and ledger.growth(settings.stall_epochs) < settings.stall_share:
            return f"{settings.stall_epochs} epochs in which the hypervolume grew by less than {settings.stall_share:.1%}"
        return None

    def _ask(self) -> Asked | None:
        """A trial of what the sampler proposes next, or None if that becomes none; either is put on record."""
        self.study.sampler = self._sampler_of(self._asks.count, self._known)
        if self._starting:
            self.study.enqueue_trial(self._starting.pop(0))
        row = self.study.ask()
        schedule, reason = self._proposal(row)
        trial = None if reason else self._free_number()
        self._asks.add(line(len(self._ledger.points), trial, schedule, row.params, reason, **self._notes(row)))
        if schedule is None or trial is None:
            self._known += 1
            self._telling.close(row, reason or "")
            return None
        row.set_user_attr(n.TRIAL, trial)
        self._numbers.add(trial)
        self._known = 0
        return Asked(trial, schedule, ids_of(self._tree, schedule), row.params, row.distributions, row)

    def _proposal(self, row: optuna.Trial) -> tuple[Schedule | None, str | None]:
        """What is proposed, and why it becomes no trial, if it doesn't."""
        try:
            schedule = self._space.schedule(row)
            self._tree.problem.check(schedule)
        except (InputError, ValidationError) as refusal:
            return None, str(refusal).splitlines()[0]
        ids = ids_of(self._tree, schedule)
        # What a sweep names is a trial even where another one's chain has passed its last step: it is a row of both.
        known = self._telling.has(ids[-1]) and self._space.size is None
        return schedule, f"{KNOWN}{ids[-1]}" if known or self._telling.gives_up(ids) else None

    def _notes(self, row: optuna.Trial) -> dict[str, Any]:
        """What samplers have noted: of NSGA-II the generation of a row, and, once in one, the parents of the next."""
        own = self.study.get_trials(deepcopy=False)[row.number].system_attrs
        of_study = self._storage.get_study_system_attrs(self._study_id)
        new = {key: value for key, value in of_study.items() if self._noted.get(key) != value}
        self._noted |= new
        noted = {key: value for key, value in own.items() if key != FIXED}
        return {NUMBER: row.number, ATTRIBUTES: noted} | ({OF_STUDY: new} if new else {})

    def _take_notes(self) -> dict[str, Any]:
        """Have the study as its samplers had left it; what they have noted of it."""
        found = {key: value for one in self._asks.lines for key, value in one.get(OF_STUDY, {}).items()}
        for key, value in found.items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        return found

    @property
    def _study_id(self) -> int:
        return self._storage.get_study_id_from_name(NAME)

    def _sampler_of(self, ask: int, known: int) -> BaseSampler:
        name = self._settings.sampler if known < KNOWN_BEFORE_RANDOM else Random.name
        tree = self._step_tree if SAMPLERS[name].knows_tree else None
        found = self._looked.found() if tree is not None and self._settings.looks_at else {}
        return sampler_for_ask(
            name, self._settings.seed, ask, tree, self._ledger.reference, settings=self._settings.model_dump(), found=found
        )

    @cached_property
    def _step_tree(self) -> StepTree:
        return step_tree(self._space, self._tree, looks=self._settings.looks_at > 0)

    @cached_property
    def _looked(self) -> Looked:
        return Looked(self._tree, self._ledger, self._step_tree.looks)

    def _looks(self, asked: Asked) -> dict[str, Any]:
        """The part of a trial's config that says what its row wants it to look at."""
        assert asked.row is not None
        wanted = self.study.get_trials(deepcopy=False)[asked.row.number].system_attrs.get(LOOKS, ())
        schedules = [self._space.schedule(FixedTrial(params)) for params in wanted]
        self._looked.wait_for(schedules)
        return {n.LOOKS: [one.model_dump(mode="json", exclude_none=True) for one in schedules]} if schedules else {}

    def _free_number(self) -> int:
        """The first that no trial has: a trial of which a lost host left nothing is made up for."""
        return next(number for number in itertools.count() if number not in self._numbers)

    def _start(self, trial_id: str, asked: Asked) -> dict[str, Any]:
        self._under_way[trial_id] = asked
        looks = self._looks(asked) if self._settings.looks_at else {}
        return {**asked.schedule.model_dump(mode="json", exclude_none=True), n.TRIAL: asked.trial, **looks}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna a step that is not the trial's last."""
        self._telling.step(self._under_way[trial_id], points_of(result))

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
        self._orphans.append(self._died.pop(trial_id))

    def take_back(self) -> None:
        """All trials that are under way are to be started again, as if their driver had died."""
        self._orphans += self._under_way.values()
        self._under_way.clear()

    @property
    def spent(self) -> float:
        """Seconds on the clock that the minutes are held against."""
        return self._clock() - self._began

    def __deepcopy__(self, _memo: dict[int, Any]) -> FrontSearch:
        return self

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is lasting is on record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
