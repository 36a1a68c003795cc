"""A sampler for candidates that form a tree of steps: the most expected hypervolume for each new unit of cost.

It works in any Optuna study whose candidates are known and whose values are finite, if it is told of every step; threads
of one process never pick the same::

    tree = StepTree([Candidate(params, chain) ...], costs)
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=TreeSampler(tree, seed=0))

Each ask fits a surrogate to the points told so far, and picks the candidate whose steps that are not done yet add the most
hypervolume for their cost, if they come out as the surrogate expects. So cheap steps and the extension of a chain that was
begun compete with new chains on one scale. What other trials are at is believed in the same way. Where nothing is expected
to reach the front, it picks at random, and learns from that.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.sampling.constraints import EXCESS
from search.sampling.expected_gain import Radii, chain_gains, directions, farthest
from search.sampling.looks import Looks
from search.sampling.step_tree import Flags, Floats, Integers, StepTree
from search.sampling.surrogate import believed

PICK = "tree_sampler:pick"
"""System attribute of a trial: the number of the candidate that was picked for it."""
LOOKS = "tree_sampler:looks"
"""System attribute of a trial: the parameters of the candidates that it is to look at."""
FORMS = "forms"
"""User attribute of a trial whose candidate has several points (the stored forms of a step): the values of each."""
FIRST = 4
"""So many points are drawn at random before a surrogate is worth fitting."""
HASTE = 0.5
"""Power of the cost that gains are divided by. At 1 the sampler takes small cheap gains one after another and puts off the
long chains that most of a front is made of; at 0 it is blind to costs. From .1 to .7 replays come out alike."""
WORST = -0.5
"""Values below the reference count as this far below it at most (1 is from the reference to the best told): how bad a bad
point is must not shape the surrogate."""
MOST_TOLD = 350
"""Points that a surrogate is fitted to: half the farthest out, half any."""
MOST_NODES = 2500
"""Nodes that one ask draws of a larger tree, beside which it looks at what comes before them."""
NO_LOOKS = Looks()
_CHOOSING = threading.Lock()
"""Choosing and marking what was chosen are one act, or two threads of one ``study.optimize`` would choose the same. The
lock is the process's and not a sampler's: samplers are copied and pickled, which a lock can't be."""


@dataclass(frozen=True)
class State:
    """What a study knows of a tree: candidates told, their values, candidates waited for, and per node the rest."""

    told: Integers
    values: Floats
    """Of each candidate told, [candidate, form, objective]: a step may have a point in several stored forms."""
    pending: Integers
    known: Flags
    """Nodes that are done or under way: nothing is paid for them any more."""
    open: Flags
    """Nodes that may be picked."""
    left: Flags
    """These, and nodes that come after one that another trial is at: picked where nothing is open."""
    excess: Floats
    """How far each candidate told is beyond the limits, [candidate, form, limit]; 0 or less is within."""
    looked_at: list[int] = field(default_factory=list)
    """Candidates that trials in flight look at."""


class TreeSampler(BaseSampler):
    """Picks whole candidates of ``tree``; a study's parameters are then handed out one by one.

    ``reference`` is the hypervolume's reference point in the study's own objectives (worst values told, without it).
    The pick depends on the seed, the ask (the trial's number unless given), the study's trials and ``looks`` alone. With a
    budget of looks, the trial is told which candidates to look at; without one, looks have no part in it.
    """

    haste = HASTE

    def __init__(
        self, tree: StepTree, seed: int, reference: Sequence[float] | None = None, ask: int | None = None,
        looks: Looks = NO_LOOKS,
    ) -> None:  # fmt: skip
        self._tree, self._seed, self._reference, self._ask = tree, seed, reference, ask
        self._looks = looks
        self._picks: dict[int, int] = {}
        self._seen: Floats | None = None
        self._to_look_at: list[int] = []
        self._random = RandomSampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pick the candidate for the trial, unless its parameters were given with ``enqueue_trial``."""
        if "fixed_params" in trial.system_attrs:
            return
        with _CHOOSING:
            pick = _picked(trial, self._tree)  # before, if the trial was lost in the middle of being asked for
            if pick is None:
                pick = self.pick(study, trial)
            if pick is not None:
                self._picks[trial.number] = pick
                if self._to_look_at:  # before the pick: a trial that has one is not picked for again
                    found = [dict(self._tree.candidates[number].params) for number in self._to_look_at]
                    study._storage.set_trial_system_attr(trial._trial_id, LOOKS, found)
                study._storage.set_trial_system_attr(trial._trial_id, PICK, pick)

    def infer_relative_search_space(self, _study: Study, _trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: the parameters are handed out independently."""
        return {}

    def sample_relative(
        self, _study: Study, _trial: FrozenTrial, _search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, for the same reason."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The picked candidate's value; a random one where there is no candidate left, or it doesn't have the parameter."""
        pick = self._picks.get(trial.number)
        params = {} if pick is None else self._tree.candidates[pick].params
        if param_name in params:
            return params[param_name]
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, _state: TrialState, _values: Sequence[float] | None) -> None:
        """End ``study.optimize`` when every candidate is known."""
        self._picks.pop(trial.number, None)
        left = state_of(study, self._tree, but=trial.number).left
        number = self._tree.number(trial.params)
        if number is not None:
            left[self._tree.node[number]] = False  # it is told only after this
        if not left.any():
            with suppress(RuntimeError):  # raised outside of study.optimize
                study.stop()

    def reseed_rng(self) -> None:
        """Nothing: every pick draws afresh."""

    def pick(self, study: Study, trial: FrozenTrial) -> int | None:
        """The candidate for a trial; None if none is left."""
        self._to_look_at = []
        state = state_of(study, self._tree, but=trial.number)
        if not state.left.any():
            return None
        ask = trial.number if self._ask is None else self._ask
        digest = hashlib.sha256(f"{self._seed}/{ask}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        few = len(state.told) < FIRST or not state.open.any()
        return self._any(state, random) if few else self._best(state, study.directions, random)

    def _any(self, state: State, random: np.random.Generator) -> int:
        among = state.open if state.open.any() else state.left
        return int(self._tree.point[random.choice(np.flatnonzero(among))])

    def _best(self, state: State, ways: Sequence[StudyDirection], random: np.random.Generator) -> int:
        tree = self._tree
        self._seen = self._looks.seen(tree, state.told) if self._looks.budget else None
        values = self._scaled(state.values, ways)
        along = directions(values.shape[-1])
        nodes = self._considered(state, random)
        at = tree.point[nodes & (tree.point >= 0)]
        wanted = np.concatenate([at, self._waited_for(state)])
        far = farthest(np.where(_beyond(state.excess), WORST, values), along)
        fitted = _worth_fitting(far, random)
        found = self._believed(state.told[fitted], values[fitted], wanted, random)
        excess = self._believed_excess(state, fitted, wanted, random)
        found = np.where(_beyond(excess), WORST, found)  # what can't come within the limits is no gain
        front = np.concatenate([far, farthest(found[len(at) :], along)]).max(axis=0)
        gains = chain_gains(tree, nodes, state.known, at, found[: len(at)], front)
        rates = gains / np.maximum(self._costs(state), tree.cost[tree.cost > 0].min(initial=1.0)) ** self.haste
        rates[~self._open(state)] = 0.0
        if rates.max() > 0:
            pick = int(tree.point[rates.argmax()])
            if self._seen is not None:
                own = tree.point[tree.path(pick)]
                busy = np.array([*state.pending, *state.looked_at, *own[own >= 0]], np.int64)
                self._to_look_at = self._looks.wanted(tree, rates, self._seen, state.told, busy)
            return pick
        if excess.size and (among := self._open(state)[tree.node[at]]).any():  # the nearest to what is within them
            missed = np.where(among, excess[: len(at)].clip(min=0).sum(-1).min(-1), np.inf)
            return int(at[random.choice(np.flatnonzero(missed == missed.min()))])
        return self._any(state, random)

    def _believed(self, told: Integers, values: Floats, wanted: Integers, random: np.random.Generator) -> Floats:
        """Values of the wanted candidates, [candidate, form, objective]."""
        features, values = self._tree.features, np.maximum(values, WORST)
        if self._seen is None or np.isfinite(self._seen[told]).sum() < FIRST:
            return believed(features[told], values, features[wanted], random)
        seen = np.flatnonzero(np.isfinite(self._seen))
        unseen = believed(features[seen], self._seen[seen, None, None], features[wanted], random)[:, 0, 0]
        looks = np.where(np.isnan(self._seen[wanted]), unseen, self._seen[wanted])
        known = np.isfinite(self._seen[told])
        told, values = told[known], values[known]
        spread = max(float(self._seen[seen].std()), 1e-9)
        with_looks = np.column_stack([features[told], self._seen[told] / spread])
        return believed(with_looks, values, np.column_stack([features[wanted], looks / spread]), random)

    def _believed_excess(self, state: State, fitted: Integers, wanted: Integers, random: np.random.Generator) -> Floats:
        """How far the wanted candidates are beyond the limits, [candidate, form, limit]."""
        known = state.excess[fitted]
        if not known.shape[-1]:
            return np.zeros((len(wanted), 1, 0))
        features = self._tree.features
        return believed(features[state.told[fitted]], known.clip(-1, 1), features[wanted], random)

    def _costs(self, state: State) -> Floats:
        """What each node counts as costing."""
        return self._tree.new_cost(state.known)

    def _open(self, state: State) -> Flags:
        """The nodes that are picked from."""
        return state.open

    def _waited_for(self, state: State) -> Integers:
        """The candidates whose values are believed before they are told."""
        return state.pending

    def _scaled(self, values: Floats, ways: Sequence[StudyDirection]) -> Floats:
        """Values to be maximised, the reference at 0 and the best told at 1."""
        signs = np.array([-1.0 if way == StudyDirection.MINIMIZE else 1.0 for way in ways])
        values = values * signs
        origin = values.min(axis=(0, 1)) if self._reference is None else np.array(self._reference, np.float64) * signs
        size = values.max(axis=(0, 1)) - origin
        return np.asarray((values - origin) / np.where(size > 0, size, 1.0))

    def _considered(self, state: State, random: np.random.Generator) -> Flags:
        """The nodes that may be picked, with the unknown ones above them.

        Of a large tree they are the next steps of all chains that were begun, and others drawn at random.
        """
        tree = self._tree
        nodes = tree.up(state.open) & ~state.known
        if nodes.sum() > MOST_NODES:
            begun = (tree.parent >= 0) & state.known[tree.parent]
            ranks = np.where(nodes, random.random(len(nodes)) - begun, np.inf)
            nodes = tree.up(ranks < np.sort(ranks)[MOST_NODES]) & ~state.known
        return nodes


def _worth_fitting(far: Radii, random: np.random.Generator) -> Integers:
    """Which of the points told the surrogate is fitted to: all, or half the farthest out and half any."""
    if len(far) <= MOST_TOLD:
        return np.arange(len(far))
    near = (far / np.maximum(far.max(axis=0), 1e-9)).max(axis=1) + 1e-6 * random.random(len(far))
    order = np.argsort(-near, kind="stable")
    rest = random.choice(order[MOST_TOLD // 2 :], MOST_TOLD - MOST_TOLD // 2, replace=False)
    return np.sort(np.concatenate([order[: MOST_TOLD // 2], rest]))


def state_of(study: Study, tree: StepTree, but: int | None = None) -> State:
    """What the study's trials, other than number ``but``, say of the tree."""
    told: dict[int, list[list[float]]] = {}
    excess: dict[int, list[list[float]]] = {}
    pending: list[int] = []
    failed: list[int] = []
    looked_at: list[int | None] = []
    for trial in study.get_trials(deepcopy=False):
        if trial.number == but or trial.state == TrialState.WAITING:
            continue
        number = _number(trial, tree)
        if number is None:
            continue
        if trial.state == TrialState.COMPLETE:
            told[number] = trial.user_attrs.get(FORMS, [trial.values])
            excess[number] = trial.user_attrs.get(EXCESS, [list(trial.constraints.values())] * len(told[number]))
        else:
            if trial.state == TrialState.RUNNING:
                looked_at += [tree.number(params) for params in trial.system_attrs.get(LOOKS, ())]
            (pending if trial.state == TrialState.RUNNING else failed).append(number)
    # The order in which trials ended decides nothing.
    waiting = [number for number in pending if number not in told]
    found = _state(tree, dict(sorted(told.items())), dict(sorted(excess.items())), waiting, failed)
    return replace(found, looked_at=[number for number in looked_at if number is not None])


def _number(trial: FrozenTrial, tree: StepTree) -> int | None:
    pick = _picked(trial, tree) if trial.state == TrialState.RUNNING else None
    return tree.number(trial.params or trial.system_attrs.get("fixed_params", {})) if pick is None else pick


def _picked(trial: FrozenTrial, tree: StepTree) -> int | None:
    """What was picked for the trial, unless that was in another tree."""
    pick = trial.system_attrs.get(PICK)
    if pick is None or pick >= len(tree.candidates):
        return None
    return int(pick) if trial.params.items() <= tree.candidates[pick].params.items() else None


def _beyond(excess: Floats) -> Flags:
    """Which of some points [..., limit] are beyond a limit, [..., 1]."""
    return np.asarray((excess > 0).any(axis=-1, keepdims=True))


def _state(
    tree: StepTree, told: dict[int, list[list[float]]], excess: dict[int, list[list[float]]], pending: list[int],
    failed: list[int],
) -> State:  # fmt: skip
    size = len(tree.parent)
    is_told, known, at, shut = (np.zeros(size, bool) for _ in range(4))
    numbers = np.array(list(told), np.int64)
    is_told[tree.node[numbers]] = True
    waited_for: list[int] = []
    for number in [*pending, *failed]:
        # The first point of the chain that isn't told shuts what comes after it: another trial is at it, or it failed.
        missing = [node for node in tree.path(number) if tree.point[node] >= 0 and not is_told[node]]
        (at if number in pending else shut)[missing[:1]] = True
        waited_for += [int(tree.point[node]) for node in missing] if number in pending else []
    known[tree.node[np.array([*told, *pending], np.int64)]] = True
    left = (tree.point >= 0) & ~is_told & ~tree.down(shut)
    still_open = left & ~tree.down(at)
    left[tree.node[np.array(pending, np.int64)]] = False
    values = np.array(list(told.values()), np.float64)
    beyond = np.array(list(excess.values()), np.float64).reshape(*values.shape[:2], -1) if told else np.empty((0, 1, 0))
    return State(numbers, values, np.unique(np.array(waited_for, np.int64)), tree.up(known), still_open, left, beyond)
