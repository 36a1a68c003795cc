"""A table of every step of a study's space, for several seeds: computed once by the real trainables, then only read.

``tables/NAME.yaml`` is the study, ``tables/NAME.csv.gz`` the table: a row for each schedule of the space (the step it ends
with) holding its parameters and, for each seed, accuracy and log2 compression; empty where the step failed.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
DENSE = "dense"
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

    def chain(self, schedule: Schedule) -> list[Node]:
        """The nodes of a schedule's steps, at the addresses of this table."""
        return MethodSettings(self.study.retraining, self.study.regularisation).chain(self.root, schedule)

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
    table = StepTable(study, space, Node(None, {"kind": "dense", "table": name}), ids, np.empty(0), np.empty(0))
    with gzip.open(folder / f"{name}.csv.gz", "rt", newline="") as file:
        for row in csv.reader(file):
            values = [[float(value or "nan") for value in row[i : i + 2]] for i in range(1, len(row), 2)]
            if row[0] == DENSE:
                dense = [accuracy for accuracy, _ in values]
                continue
            gains.append(values)
    for params in _rows(space):
        ids[table.chain(space.schedule(FixedTrial(params)))[-1].id] = len(ids)
    assert len(ids) == len(gains), f"{name}.csv.gz has {len(gains)} rows for {len(ids)} steps; compute it again"
    return StepTable(study, space, table.root, ids, np.array(gains).transpose(1, 0, 2), np.array(dense))


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
    writer.writerow([DENSE, *(value for root in roots if root for value in (f"{root[n.ACCURACY]:.5f}", "0"))])
    space = space_of(study)
    for number, params in enumerate(_rows(space)):
        schedule = space.schedule(FixedTrial(params))
        writer.writerow([number, *(value for seed in SEEDS for value in _gains(tree, schedule, seed))])
    write_atomically(file, gzip.compress(text.getvalue().encode(), mtime=0))
    return file


def _gains(tree: Tree, schedule: Schedule, seed: int) -> tuple[str, str]:
    record = tree.store.record(tree.chain(schedule.model_copy(update={n.SEED: seed}))[-1].id)
    return (f"{record[n.ACCURACY]:.5f}", f"{math.log2(record[n.COMPRESSION]):.4f}") if record else ("", "")
