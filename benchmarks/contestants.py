"""Who takes part: Optuna under Ray Tune as a user would write it, and this project's search with and without its ideas."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FixedTrial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks.replay import METRICS, OBJECTIVES, Contestant, ReplayLedger, ReplayTree
from benchmarks.step_table import StepTable
from search.records.asked import Asks
from search.sampling.outlook import Outlook
from search.sampling.space import SearchSpace
from search.sampling.tree_sampler import WORST, State, TreeSampler
from search.study import SearchSettings
from search.tune.scheduler import is_hopeless
from search.tune.searcher import FrontSearch
from trainables.schedule import FAMILIES, Schedule
from trainables.trainable import fields_of, points_of

Make = Callable[[ReplayTree, ReplayLedger], Contestant]


class Stops(Protocol):
    """When a trial ends before its last step."""

    def __call__(self, schedule: Schedule, step: int, gains: Sequence[Sequence[float]]) -> bool:
        """Whether it does after this step, which measured these gains above the reference in each stored form."""


def never(_schedule: Schedule, _step: int, _gains: Sequence[Sequence[float]]) -> bool:
    """Every trial takes all of its steps."""
    return False


class AtTheFront:
    """As ``python -m search`` stops trials."""

    def __init__(self, table: StepTable, reference: Sequence[float]) -> None:
        self._outlook, self._reference = Outlook(OBJECTIVES, table.images), reference
        self._forms = table.study.storage_forms

    def __call__(self, schedule: Schedule, step: int, gains: Sequence[Sequence[float]]) -> bool:
        """Learn, then judge."""
        told = zip(gains, self._forms, strict=True)  # all are taken in; it goes on if one of its forms may reach the front
        hopeless = [is_hopeless(self._outlook, schedule, step, one, self._reference, form) for one, form in told]
        return all(hopeless)


class TwoPointsBelow:
    """A fixed margin: when points seen beat the present one by two points of accuracy and reduce as much, in each form."""

    def __init__(self, _table: StepTable, _reference: Sequence[float]) -> None:
        self._seen: list[Sequence[float]] = []

    def __call__(self, _schedule: Schedule, _step: int, gains: Sequence[Sequence[float]]) -> bool:
        """Judge, then learn."""
        found = all(
            any(other[0] > accuracy + 0.02 and other[1] >= reduction for other in self._seen)
            for accuracy, reduction in gains
        )
        self._seen += gains
        return found


class MostCompressed(OptunaSearch):
    """Told of the form that compresses most, since a trial has one value an objective."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report that point of the trial's last step."""
        chosen = max(points_of(result), key=lambda point: point[METRICS[1]]) if result else None
        super().on_trial_complete(trial_id, dict(chosen) if chosen else None, error)


@dataclass
class Plain:
    """A Ray Tune script with OptunaSearch: a trial reports its last step, and computes all of its steps itself.

    Measuring a network in every stored form costs no epochs, so a trial does, and all are points of the result. Were the
    form one more parameter, the same training would be paid for once a form, and the ratio to ours would count forms and
    not the search. What is reported is the form that compresses most: int8 loses next to nothing, and so is nearly all of
    a front.
    """

    space: SearchSpace
    searcher: Searcher
    shared: bool = False
    every_step: bool = False
    stops: Stops = never

    def schedule(self, config: dict[str, Any]) -> Schedule:
        """The schedule of a trial's parameters."""
        return self.space.schedule(FixedTrial(config))


@dataclass
class Ours:
    """The searcher of ``python -m search``."""

    searcher: Searcher
    shared: bool = True
    every_step: bool = True
    stops: Stops = never

    def schedule(self, config: dict[str, Any]) -> Schedule:
        """The schedule of a trial's config."""
        return FAMILIES[config["family"]](**fields_of(config))


class LastStepsOnly(FrontSearch):
    """Told what a trial's last step measured, and nothing of those before."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep it to oneself."""


class NothingShared(TreeSampler):
    """Counts the cost of a whole chain, known or not."""

    def _costs(self, _state: State) -> np.ndarray:
        return self._tree.new_cost(np.zeros(len(self._tree.parent), bool))


class PerTrial(TreeSampler):
    """Looks for the most hypervolume a trial, at any cost."""

    haste = 0.0


class PerEpoch(TreeSampler):
    """Looks for the most hypervolume an epoch, and never farther."""

    haste = 1.0


class NothingExtended(TreeSampler):
    """Always begins a new chain while there is one."""

    def _open(self, state: State) -> np.ndarray:
        points = self._tree.point >= 0
        fresh = state.open & ~self._tree.down(state.known & points)
        return fresh if fresh.any() else state.open


class NothingBelieved(TreeSampler):
    """Doesn't expect anything of the trials in flight."""

    def _waited_for(self, state: State) -> np.ndarray:
        return state.pending[:0]


def knowing(space: SearchSpace, seed: int) -> Make:
    """Ours told beforehand what every step measures on the seed that it sees: how far this way of choosing could go."""

    def make(tree: ReplayTree, ledger: ReplayLedger) -> Contestant:
        class Knowing(TreeSampler):
            def _believed(self, told: Any, values: Any, wanted: Any, random: Any) -> np.ndarray:  # noqa: ARG002
                above = np.array([tree.seen(one.chain[-1]) for one in self._tree.candidates]) - ledger.reference
                # The scale of the values told: what is told and what is known agree on it.
                size = np.nanmax(above[told] / np.where(values == 0, np.nan, values), axis=(0, 1))
                return np.asarray(np.nan_to_num(above[wanted] / size, nan=WORST))  # a step that fails

        return ours("tree", Knowing)(space, seed)(tree, ledger)

    return make


def plain(sampler: Callable[[int], BaseSampler]) -> Callable[[SearchSpace, int], Make]:
    """OptunaSearch with this sampler."""

    def with_seed(space: SearchSpace, seed: int) -> Make:
        def make(_tree: ReplayTree, _ledger: ReplayLedger) -> Contestant:
            def ask(trial: optuna.Trial) -> None:
                space.schedule(trial)

            points = [dict(params) for params in space.starting_points()]
            search = MostCompressed(
                space=ask, metric=METRICS, mode=["max"] * 2, sampler=sampler(seed), points_to_evaluate=points
            )
            return Plain(space, search)

        return make

    return with_seed


def ours(
    sampler: str, kind: type[TreeSampler] | None = None, search: type[FrontSearch] = FrontSearch,
    stops: Callable[[StepTable, Sequence[float]], Stops] | None = None, looks: int = 0, **changes: bool,
) -> Callable[[SearchSpace, int], Make]:  # fmt: skip
    """FrontSearch with a sampler by name, and ``kind`` of the one that knows the tree instead of it."""

    def with_seed(space: SearchSpace, seed: int) -> Make:
        def make(tree: ReplayTree, ledger: ReplayLedger) -> Contestant:
            settings = SearchSettings(sampler=sampler, seed=seed, trials=None, epochs=10**9, looks=looks)
            searcher = search(space, settings, tree, ledger, Asks())  # type: ignore[arg-type]
            if kind is not None:
                _replace_sampler(searcher, kind)
            scheduler = never if stops is None else stops(tree.table, ledger.reference)
            return Ours(searcher, stops=scheduler, **changes)

        return make

    return with_seed


def _replace_sampler(searcher: FrontSearch, kind: type[TreeSampler]) -> None:
    usual = searcher._sampler_of

    def other(ask: int, known: int) -> BaseSampler:
        sampler = usual(ask, known)
        if isinstance(sampler, TreeSampler):
            sampler.__class__ = kind
        return sampler

    searcher._sampler_of = other  # type: ignore[method-assign]


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed)


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed)


def looking(looks: int) -> str:
    """The name of ours with so many looks a trial."""
    return f"ours, {looks} looks a trial"


PLAIN_TPE = "OptunaSearch, TPE"
TREE_SEARCH = "ours"
KNOWING = "ours, knowing every step"
CONTESTANTS: Mapping[str, Callable[[SearchSpace, int], Make]] = {
    "OptunaSearch, random": plain(lambda seed: RandomSampler(seed=seed)),
    PLAIN_TPE: plain(_tpe),
    # Of a conditional space NSGA-II crosses only what all trials have in common, here the family; and a single parameter
    # is always mutated. So it proposes what random does.
    "OptunaSearch, NSGA-II": plain(lambda seed: NSGAIISampler(seed=seed)),
    "OptunaSearch, GP": plain(_gp),
    "random, shared, every step": ours("random"),
    "TPE, shared, every step": ours("tpe"),
    TREE_SEARCH: ours("tree"),
    KNOWING: knowing,
    **{looking(k): ours("tree", looks=k) for k in (2, 4)},
    "ours, nothing shared": ours("tree", NothingShared, shared=False),
    "ours, last steps only": ours("tree", search=LastStepsOnly, every_step=False),
    "ours, gain per trial": ours("tree", PerTrial),
    "ours, gain per epoch": ours("tree", PerEpoch),
    "ours, nothing extended": ours("tree", NothingExtended),
    "ours, nothing believed": ours("tree", NothingBelieved),
    "ours, stopped at the front": ours("tree", stops=AtTheFront),
    "ours, stopped 2 points below": ours("tree", stops=TwoPointsBelow),
    "random, stopped at the front": ours("random", stops=AtTheFront),
    "random, stopped 2 points below": ours("random", stops=TwoPointsBelow),
}
AT_FOUR = (
    "OptunaSearch, random",
    PLAIN_TPE,
    TREE_SEARCH,
    KNOWING,
    *(looking(k) for k in (2, 4)),
    "ours, nothing believed",
    "ours, stopped at the front",
)
"""Who takes part with four trials in flight."""
LOOKING = tuple(looking(k) for k in (2, 4))
"""Who needs a table, and a seed of it, that tells what looks at its cuts see."""
LIMITS: Mapping[str, int] = {
    "OptunaSearch, GP": 100, "TPE, shared, every step": 300, "ours, last steps only": 200,
}  # fmt: skip
"""Most trials of a contestant that takes long to choose; an epoch count beyond them is unknown.

GP takes 0.1 s a trial at first and 0.3 s after 300, which is why it isn't given more: one replay of 300 trials took 75 s of
processor and stood at 68 % of the hypervolume on cifar10 and 80 % on digits (after 100 trials at 68 and 84 %). Far from the
first mark, it would take an hour of processor for 42 replays of as many trials, all without a number.
"""
