"""A table of every step of a study's space, for several seeds: computed once by the real trainables, then only read.

``tables/NAME.yaml`` is the study, ``tables/NAME.csv.gz`` the table: a row for each schedule of the space (the step it ends
with) holding, for each seed, accuracy, log2 compression and the accuracy right after the cut, recalibrated; empty where
the step failed, and the last where it wasn't recorded. Before them are rows of the dense network, and of what a look takes.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from optuna.trial import FixedTrial

from search.sampling.space import Params, SearchSpace
from search.session import problem_of
from search.study import Study, load_study
from trainables.chain import MethodSettings
from trainables.data.dataset import load
from trainables.node import Node
from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.schedule import Schedule
from trainables.steps import NothingRemovedError
from trainables.storage.store import Store
from trainables.training.loop import TrainingDivergedError, threads
from trainables.tree import Tree, walk

FOLDER = Path(__file__).parent / "tables"
SEEDS = (0, 1, 2)
DENSE, LOOK = "dense", "look"
TIMED_LOOKS = 25
STEP_FAILS = (NothingRemovedError, TrainingDivergedError)
FAILED_FILE = "failed"

_tree: Tree
_space: SearchSpace


@dataclass(frozen=True)
class StepTable:
    """Gains (accuracy, log2 compression) of every step by address, and of the dense network, for each seed."""

    study: Study
    space: SearchSpace
    root: Node
    ids: dict[str, int]
    gains: npt.NDArray[np.float64]
    """[seed, row, 2]; NaN where a step failed"""
    dense: npt.NDArray[np.float64]
    """[seed], accuracies"""
    recalibrated: npt.NDArray[np.float64]
    """[seed, row], accuracies right after the cut; NaN where none was recorded"""
    look_epochs: float
    """What a look takes, in epochs"""

    def chain(self, schedule: Schedule) -> list[Node]:
        """The nodes of a schedule's steps, at the addresses of this table."""
        return self._methods.chain(self.root, schedule)

    def looks(self, schedule: Schedule) -> list[Node]:
        """The addresses of looks at a schedule's steps."""
        return self._methods.looks(self.root, schedule)

    @cached_property
    def looked_at(self) -> dict[str, int]:
        """The first row with the cut of each look."""
        rows: dict[str, int] = {}
        for row, params in enumerate(_rows(self.space)):
            rows.setdefault(self.looks(self.space.schedule(FixedTrial(params)))[-1].id, row)
        return rows

    @property
    def _methods(self) -> MethodSettings:
        return MethodSettings(self.study.retraining, self.study.regularisation)

    def reference(self, seed: int) -> npt.NDArray[np.float64]:
        """The hypervolume's reference in the gains of a seed."""
        return np.array([self.dense[seed] - self.study.reference.accuracy_drop, 0.0])

    @property
    def images(self) -> int:
        """The validation images that accuracies were measured on, told by the smallest difference between two."""
        accuracies = np.unique(self.gains[np.isfinite(self.gains[..., 0]), 0])
        return round(1 / float(np.diff(accuracies).min()))


def space_of(study: Study) -> SearchSpace:
    """The space that the table is of."""
    assert study.space is not None, "a table is of a space"
    return SearchSpace(study.space)


def read(name: str, folder: Path = FOLDER) -> StepTable:
    """The table of this name."""
    study = load_study(folder / f"{name}.yaml")
    space = space_of(study)
    ids: dict[str, int] = {}
    gains: list[list[list[float]]] = []
    dense: list[float] = []
    look_epochs = math.nan
    nothing = np.empty(0)
    root = Node(None, {"kind": "dense", "table": name})
    table = StepTable(study, space, root, ids, nothing, nothing, nothing, look_epochs)
    with gzip.open(folder / f"{name}.csv.gz", "rt", newline="") as file:
        for row in csv.reader(file):
            if row[0] == LOOK:
                look_epochs = float(row[1])
                continue
            width = (len(row) - 1) // len(SEEDS)  # tables of old have no third column
            values = [[float(value or "nan") for value in row[i : i + width]] for i in range(1, len(row), width)]
            if row[0] == DENSE:
                dense = [value[0] for value in values]
                continue
            gains.append([[*value, math.nan][:3] for value in values])
    for params in _rows(space):
        ids[table.chain(space.schedule(FixedTrial(params)))[-1].id] = len(ids)
    assert len(ids) == len(gains), f"{name}.csv.gz has {len(gains)} rows for {len(ids)} steps; compute it again"
    found = np.array(gains).transpose(1, 0, 2)
    return StepTable(study, space, root, ids, found[..., :2], np.array(dense), found[..., 2], look_epochs)


def _rows(space: SearchSpace) -> Iterator[Params]:
    """Parameters of every schedule, in the order of the table's rows."""
    for longest in space.longest():
        for step in range(1, longest[f"{longest['family']}.steps"] + 1):
            yield space.prefix(longest, step)


def compute(file: Path, overrides: Sequence[str], work: Path, processes: int, folder: Path = FOLDER) -> Path:
    """Walk every schedule of the study in ``file`` for every seed; what ``work`` holds is not computed again."""
    study = load_study(file, overrides)
    load(study.data)  # a folder of images is decoded once, before the workers ask for it
    jobs = [(seed, params) for seed in SEEDS for params in space_of(study).longest()]
    with multiprocessing.get_context("spawn").Pool(processes, _start, (file, overrides, work)) as pool:
        for done, _ in enumerate(pool.imap_unordered(_walk, jobs, chunksize=4), start=1):
            if done % 20 == 0 or done == len(jobs):
                print(f"{study.name}: {done} of {len(jobs)} schedules", flush=True)
    return _write(folder / f"{study.name}.csv.gz", study, Tree(problem_of(study, trusted=False), Store(work)))


def _start(file: Path, overrides: Sequence[str], work: Path) -> None:
    global _tree, _space
    study = load_study(file, overrides)
    _tree, _space = Tree(problem_of(study, trusted=False), Store(work)), space_of(study)


def _walk(job: tuple[int, Params]) -> None:
    seed, params = job
    schedule = _space.schedule(FixedTrial(params)).model_copy(update={n.SEED: seed})
    nodes = _tree.chain(schedule)
    failed = Path(_tree.store.place) / nodes[-1].id / FAILED_FILE
    if _tree.store.record(nodes[-1].id) is not None or failed.exists():
        return
    try:
        with threads(1):
            list(walk(schedule, _tree))
    except STEP_FAILS as error:
        write_atomically(failed, f"{type(error).__name__}: {error}\n".encode())
    # Two of these schedules share no more than the regularised training of their first step: the other weights can go.
    for node in nodes:
        _tree.store.discard_weights(node.id)
        if node.parent is not None and node is not nodes[0]:
            _tree.store.discard_weights(node.parent.id)


def _write(file: Path, study: Study, tree: Tree) -> Path:
    roots = [tree.store.record(tree.problem.root(seed).id) for seed in SEEDS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([LOOK, f"{_look_epochs(study, tree):.2f}"])
    writer.writerow([DENSE, *(value for root in roots if root for value in (f"{root[n.ACCURACY]:.5f}", "0", ""))])
    space = space_of(study)
    for number, params in enumerate(_rows(space)):
        schedule = space.schedule(FixedTrial(params))
        writer.writerow([number, *(value for seed in SEEDS for value in _columns(tree, schedule, seed))])
    write_atomically(file, gzip.compress(text.getvalue().encode(), mtime=0))
    return file


def _columns(tree: Tree, schedule: Schedule, seed: int) -> tuple[str, str, str]:
    record = tree.store.record(tree.chain(schedule.model_copy(update={n.SEED: seed}))[-1].id)
    if record is None:
        return "", "", ""
    look = record.get(n.ACCURACY_RECALIBRATED)
    return f"{record[n.ACCURACY]:.5f}", f"{math.log2(record[n.COMPRESSION]):.4f}", "" if look is None else f"{look:.5f}"


def _look_epochs(study: Study, tree: Tree) -> float:
    """Median of some first looks in seconds of this processor, over those of an epoch of the dense training."""
    space = space_of(study)
    longest = list(space.longest())
    schedules = [space.schedule(FixedTrial(params)) for params in longest[:: max(1, len(longest) // TIMED_LOOKS)]]
    firsts = {tree.looks(one)[0].id: one.model_copy(update={n.STEPS: 1}) for one in schedules}
    with threads(1), tempfile.TemporaryDirectory() as folder:
        fresh = Tree(tree.problem, Store(Path(folder)))
        epoch = _seconds(lambda: fresh.dense_point(0)) / study.dense.epochs
        looks = [_seconds(lambda one=one: fresh.look(one)) for one in firsts.values()]  # type: ignore[misc]
    taken = [one for one in looks if one > epoch / 50]  # where a training comes before the cut, none was looked at
    return float(np.median(taken)) / epoch


def _seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started
