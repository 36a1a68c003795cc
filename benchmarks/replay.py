"""A search replayed against a table of steps: the real searcher and samplers, no Ray and no training.

Time is counted in epochs. Trials in flight take turns as they would on as many workers; two of them that want the same
step wait for one computation, as in the store.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import moocore
import numpy as np
import numpy.typing as npt
from ray.tune.search import Searcher

from benchmarks.step_table import StepTable
from search.tune.searcher import FrontSearch
from trainables.node import Node
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.objectives import ACCURACY, Quality
from trainables.schedule import FAMILIES, Schedule
from trainables.steps import step_of
from trainables.trainable import gain_metric

Integers = npt.NDArray[np.int64]
Gains = npt.NDArray[np.float64]

OBJECTIVES = ("accuracy", "compression")
METRICS = [gain_metric(name) for name in OBJECTIVES]
MARKS = (0.95, 0.97, 0.99)
FRUITLESS = 50
"""A replay ends after so many steps in a row that were known already: a search that goes round in circles is over."""
PATIENCE = 200
"""A replay ends once the last mark has been held for as many epochs again as it took, and this many more."""


class Contestant(Protocol):
    """A searcher, and how its trials are run."""

    shared: bool
    """Whether a step that is known is found instead of computed."""
    every_step: bool
    """Whether each step is a point of the result, or only a trial's last."""
    searcher: Searcher

    def schedule(self, config: dict[str, Any]) -> Schedule:
        """The schedule that a config of the searcher stands for."""

    def stops(self, schedule: Schedule, step: int, gains: Sequence[Sequence[float]]) -> bool:
        """Whether the scheduler ends a trial after this step, whose forms measured these gains above the reference."""


class _Replayed(Problem):
    """The problem of a table, whose networks have all been pruned."""

    def refuse(self, family: str) -> str | None:  # noqa: ARG002
        """Nothing."""
        return None


@dataclass
class ReplayStore:
    """The looks that there are by ``clock``: value and when it was had, by address."""

    clock: float = 0.0
    found: dict[str, tuple[float, float]] = field(default_factory=dict)

    def looks(self) -> list[str]:
        """None before the start."""
        return []


class ReplayTree:
    """What a searcher asks of ``trainables.tree.Tree``, with the addresses of a table."""

    def __init__(self, table: StepTable, seen: int = 0) -> None:
        study, self.table, self._seen = table.study, table, seen
        nothing: Any = None  # data are needed for training alone
        self.problem = _Replayed(nothing, study.model, study.dense, study.retraining, study.regularisation)
        self._chains: dict[Schedule, list[Node]] = {}
        self.store = ReplayStore()

    def chain(self, schedule: Schedule) -> list[Node]:
        """The nodes of the schedule's steps."""
        if schedule not in self._chains:
            self._chains[schedule] = self.table.chain(schedule)
        return self._chains[schedule]

    def looks(self, schedule: Schedule) -> list[Node]:
        """The addresses of looks at the schedule's steps."""
        return self.table.looks(schedule)

    def look(self, schedule: Schedule, ready: float) -> None:
        """Look at the last cut of a schedule, which is known from a time on.

        The value is what the first row of the table with this cut had: the same cut, mostly, with other images.
        """
        address = self.looks(schedule)[-1].id
        value = self.table.recalibrated[self._seen, self.table.looked_at[address]]
        self.store.found.setdefault(address, (float(value), ready))

    def looked(self, address: str) -> float | None:
        """What a look measured, if that is known by now."""
        value, ready = self.store.found.get(address, (0.0, np.inf))
        return value if ready <= self.store.clock else None

    def seen(self, address: str) -> Gains:
        """The gains of a step in each form, [form, 2], on the seed that the search sees."""
        return self.table.gains[self._seen, self.table.ids[address]]

    def epochs_of(self, node: Node) -> int:
        """What a node costs."""
        return step_of(node).epochs(node, self.problem)


@dataclass
class ReplayLedger:
    """What a searcher asks of ``search.records.ledger.Ledger``."""

    reference: list[float]
    epochs_computed: int = 0
    trial_numbers: frozenset[int] = frozenset()
    points: list[dict[str, Any]] = field(default_factory=list)
    measure: Quality = ACCURACY
    trials: tuple[Any, ...] = ()
    dense: dict[int, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] = OBJECTIVES

    def measured(self, _point: Mapping[str, Any]) -> bool:
        """Every step of a table was."""
        return True

    def gains(self, point: Mapping[str, Any]) -> list[float]:
        """A step's, which its result has."""
        return [point[name] for name in METRICS]

    def reference_of(self, _seed: int) -> list[float]:
        """The gains at the reference, which a table has for all of its seeds."""
        return self.reference


class Score:
    """Hypervolume, by the mean of the seeds that the search doesn't see, of the front that it sees; 1 is the table's.

    A step is a point in each of its stored forms.
    """

    def __init__(self, table: StepTable, seen: int) -> None:
        # Accuracies relative to each seed's own dense network, the reference at 0.
        origin = np.zeros((len(table.dense), 1, 2))
        origin[:, 0, 0] = table.dense - table.study.reference.accuracy_drop
        self._forms = table.gains.shape[2]
        above = table.gains.reshape(len(origin), -1, 2) - origin
        self._seen = above[seen]
        self._truth = np.delete(above, seen, axis=0).mean(axis=0)
        self._front: list[int] = []
        usable = np.flatnonzero(np.isfinite(above).all(axis=(0, 2)))
        self._whole = self._hypervolume(usable[self._kept(usable)])

    def add(self, row: int) -> float:
        """What the front is worth with the points of this step."""
        new = range(row * self._forms, (row + 1) * self._forms)
        points = np.array([*self._front, *(point for point in new if point not in self._front)])
        self._front = points[self._kept(points)].tolist()
        return self._hypervolume(np.array(self._front)) / self._whole

    def _kept(self, points: Integers) -> npt.NDArray[np.bool_]:
        kept: npt.NDArray[np.bool_] = moocore.is_nondominated(self._seen[points], maximise=True)
        return kept

    def _hypervolume(self, points: Integers) -> float:
        values = self._truth[points]
        values = values[(values > 0).all(axis=1)]
        return float(moocore.hypervolume(values, ref=[0.0, 0.0], maximise=True)) if len(values) else 0.0


@dataclass
class Work:
    """Epochs trained, as intervals on the clock; ``done`` says when each address was or will be finished."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    done: dict[str, float] = field(default_factory=dict)

    def step(self, now: float, nodes: Sequence[tuple[str, float]], shared: bool) -> float:
        """When a step that needs these nodes (address, epochs), begun now, is finished."""
        for address, epochs in nodes:
            if shared and address in self.done:
                now = max(now, self.done[address])
                continue
            self.starts.append(now)
            now += epochs
            self.ends.append(now)
            self.done[address] = now
        return now

    def spent(self, now: float) -> float:
        """Epochs trained up to a time on the clock."""
        starts, ends = np.array(self.starts), np.array(self.ends)
        return float((np.minimum(ends, now) - starts).clip(min=0).sum())


@dataclass(frozen=True)
class Replay:
    """What a search was worth after how many epochs, and the seconds that it took to choose each trial."""

    epochs: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def reached(self, mark: float) -> float:
        """The first epochs after which the score stays at or above the mark; infinity if it never does."""
        below = np.flatnonzero(np.array(self.scores) < mark)
        first = int(below[-1]) + 1 if len(below) else 0
        return self.epochs[first] if first < len(self.epochs) else float("inf")

    def at(self, epochs: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The score after so many epochs; 0 before the first point."""
        places = np.searchsorted(self.epochs, epochs, side="right")
        return np.array([0.0, *self.scores])[places]

    @property
    def settled(self) -> bool:
        """Whether the last mark has been held for as long again as it took to get there, and a while more."""
        return bool(self.epochs) and self.epochs[-1] >= 2 * self.reached(MARKS[-1]) + PATIENCE


@dataclass
class _Trial:
    key: str
    schedule: Schedule
    nodes: list[Node]
    step: int = 0


class Run:
    """Trials in flight, each at one of its steps until a time on the clock."""

    def __init__(self, table: StepTable, seen: int, tree: ReplayTree, contestant: Contestant, ledger: ReplayLedger) -> None:
        self._table, self._seen, self._tree, self._contestant, self._ledger = table, seen, tree, contestant, ledger
        self.work = Work()
        self.seconds: list[float] = []
        self._fruitless, self._trained = 0, 0
        self._queue: list[tuple[float, int, _Trial]] = []

    def points(self, at_once: int, most_trials: int | None) -> Iterator[tuple[float, int]]:
        """(clock, row of the table) of each step whose points are of the result, as they come."""
        for _ in range(at_once):
            self._begin(0.0, most_trials)
        while self._queue:
            clock, _, trial = heapq.heappop(self._queue)
            row = self._table.ids[trial.nodes[trial.step - 1].id]
            last = trial.step == len(trial.nodes)
            self._fruitless = 0 if len(self.work.ends) > self._trained else self._fruitless + 1
            self._trained = len(self.work.ends)
            failed = not np.isfinite(self._table.gains[:, row]).all()
            last = (not failed and self._stops(trial, row)) or last
            if not failed and (last or self._contestant.every_step):
                yield clock, row
            self._tell(trial, row, last, failed)
            if last or failed:
                self._begin(clock, most_trials)
            else:
                self._continue(clock, trial)

    def _begin(self, clock: float, most_trials: int | None) -> None:
        if self._fruitless >= FRUITLESS or (most_trials is not None and len(self.seconds) >= most_trials):
            return
        self._tree.store.clock = clock
        key, started = f"trial{len(self.seconds)}", time.process_time()
        config = self._contestant.searcher.suggest(key)
        self.seconds.append(time.process_time() - started)
        if isinstance(config, dict):
            schedule = self._contestant.schedule(config)
            clock = self._look(clock, [FAMILIES[fields["family"]](**fields) for fields in config.get(n.LOOKS, ())])
            self._continue(clock, _Trial(key, schedule, self._tree.chain(schedule)))

    def _look(self, clock: float, schedules: Sequence[Schedule]) -> float:
        """When a trial's looks are had."""
        for schedule in schedules:
            before = len(self.work.ends)
            clock = self.work.step(clock, [(self._tree.looks(schedule)[-1].id, self._table.look_epochs)], shared=True)
            self._trained += len(self.work.ends) - before  # a look is no step
            self._tree.look(schedule, clock)
        return clock

    def _continue(self, clock: float, trial: _Trial) -> None:
        nodes = [(node.id, self._tree.epochs_of(node)) for node in trial.nodes[trial.step].own_nodes]
        trial.step += 1
        end = self.work.step(clock, nodes, self._contestant.shared)
        heapq.heappush(self._queue, (end, int(trial.key.removeprefix("trial")), trial))

    def _stops(self, trial: _Trial, row: int) -> bool:
        gains = self._table.gains[self._seen, row] - self._table.reference(self._seen)
        return self._contestant.stops(trial.schedule, trial.step, gains.tolist())

    def _tell(self, trial: _Trial, row: int, last: bool, failed: bool) -> None:
        searcher, gains = self._contestant.searcher, self._table.gains[self._seen, row]
        if failed:
            ours = isinstance(searcher, FrontSearch)  # which hears why, as of a step that failed in a study
            searcher.on_trial_complete(trial.key, {n.REASON: "it failed in the table"} if ours else None, error=not ours)
            return
        step = {n.SEED: 0, n.STEP: trial.step, n.STEP_ID: trial.nodes[trial.step - 1].id}
        first, *further = ({**step, **dict(zip(METRICS, form, strict=True))} for form in gains.tolist())
        told = {**first, **({n.FORMS: further} if further else {})}
        look = float(self._table.recalibrated[self._seen, row])
        self._ledger.points.append({n.TRIAL: None, n.STEP_ID: told[n.STEP_ID], n.ACCURACY_RECALIBRATED: look})
        (searcher.on_trial_complete if last else searcher.on_trial_result)(trial.key, told)


def replay(
    table: StepTable, seen: int, make: Callable[[ReplayTree, ReplayLedger], Contestant], at_once: int, most_epochs: float,
    most_trials: int | None = None,
) -> Replay:  # fmt: skip
    """Run a search with ``at_once`` trials in flight on the accuracies of one seed, for at most so many epochs."""
    score, tree = Score(table, seen), ReplayTree(table, seen)
    ledger = ReplayLedger(table.reference(seen).tolist())
    run = Run(table, seen, tree, make(tree, ledger), ledger)
    found = Replay(seconds=run.seconds)
    for clock, row in run.points(at_once, most_trials):
        found.epochs.append(run.work.spent(clock))
        found.scores.append(score.add(row))
        if found.epochs[-1] >= most_epochs or (len(found.epochs) % 20 == 0 and found.settled):
            break
    return found
