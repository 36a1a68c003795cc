"""A table of every step of a study's space, for some seeds: computed once by the real trainables, then only read.

``tables/NAME.yaml`` is the study, ``tables/NAME.csv.gz`` the table. A row is of a step, the last of some schedules of the
space. For each seed it has accuracy and log2 compression in each of the study's ``storage_forms``, and then the accuracy
right after the cut, recalibrated; empty where the step failed or the seed wasn't computed, and the last where it wasn't
recorded. Before them are rows of the dense network (its accuracy, which points are compared with) and of what a look takes.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FixedTrial

from search.sampling.space import SearchSpace
from search.session import problem_of
from search.study import Study, load_study
from trainables.chain import MethodSettings
from trainables.data.dataset import load
from trainables.measuring import stored_forms
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
FEWEST = 2
"""Seeds that a table needs: what a search finds on one is judged by others."""
DENSE, LOOK = "dense", "look"
TIMED_LOOKS = 25
STEP_FAILS = (NothingRemovedError, TrainingDivergedError)
FAILED_FILE = "failed"

_tree: Tree
_shared: frozenset[str]


@dataclass(frozen=True)
class StepTable:
    """Gains (accuracy, log2 compression) of every step in each stored form, and of the dense network, for each seed."""

    study: Study
    space: SearchSpace
    root: Node
    steps: dict[str, Schedule]
    """By address, in the order of the rows: a schedule that ends with the step"""
    gains: npt.NDArray[np.float64]
    """[seed, row, form, 2]; NaN where a step failed"""
    dense: npt.NDArray[np.float64]
    """[seed], accuracies"""
    recalibrated: npt.NDArray[np.float64]
    """[seed, row], accuracies right after the cut; NaN where none was recorded"""
    look_epochs: float
    """What a look takes, in epochs"""

    @cached_property
    def ids(self) -> dict[str, int]:
        """The row of each address."""
        return {address: row for row, address in enumerate(self.steps)}

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
        for row, schedule in enumerate(self.steps.values()):
            rows.setdefault(self.looks(schedule)[-1].id, row)
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


def planned(study: Study) -> StepTable:
    """The table of a study before anything is computed: its steps alone."""
    nothing, root = np.empty(0), Node(None, {"kind": "dense", "table": study.name})
    table = StepTable(study, space_of(study), root, {}, nothing, nothing, nothing, math.nan)
    return replace(table, steps=_steps(table.space, table.chain))


def read(name: str, folder: Path = FOLDER) -> StepTable:
    """The table of this name, of the seeds that have been computed."""
    table = planned(load_study(folder / f"{name}.yaml"))
    rows: list[list[list[float]]] = []
    dense: list[float] = []
    look_epochs, forms = math.nan, len(table.study.storage_forms)
    for row in _rows(folder / f"{name}.csv.gz"):
        if row[0] == LOOK:
            look_epochs = float(row[1])
            continue
        width = (len(row) - 1) // len(SEEDS)
        assert width // 2 == forms, f"{name}.csv.gz is not of {forms} stored forms; compute it again"
        values = [[float(value or "nan") for value in row[i : i + width]] for i in range(1, len(row), width)]
        if row[0] == DENSE:
            dense = [value[0] for value in values]
            continue
        rows.append([[*value, math.nan][: 2 * forms + 1] for value in values])  # tables of old have no looks
    steps = len(table.steps)
    there = np.isfinite(dense)
    assert there.sum() >= FEWEST, f"{name}.csv.gz has {there.sum()} of the seeds {SEEDS}, but takes {FEWEST}; compute more"
    assert steps == len(rows), f"{name}.csv.gz has {len(rows)} rows for {steps} steps; compute it again"
    found = np.array(rows).transpose(1, 0, 2)[there]
    gains = found[..., :-1].reshape(len(found), steps, forms, 2)
    return replace(table, gains=gains, dense=np.array(dense)[there], recalibrated=found[..., -1], look_epochs=look_epochs)


def _steps(space: SearchSpace, chain: Callable[[Schedule], Sequence[Node]]) -> dict[str, Schedule]:
    """For each step, by address, the first schedule of the space that ends with it.

    Others may end with it too: mixed schedules that cut the same channels first are one schedule so far.
    """
    found: dict[str, Schedule] = {}
    for longest in space.longest():
        for step, node in enumerate(chain(space.schedule(FixedTrial(longest))), start=1):
            found.setdefault(node.id, space.schedule(FixedTrial(space.prefix(longest, step))))
    return found


def _longest(space: SearchSpace, seeds: Sequence[int] = SEEDS) -> Iterator[Schedule]:
    """The schedules to walk, for each of the seeds."""
    for seed in seeds:
        for params in space.longest():
            yield space.schedule(FixedTrial(params)).model_copy(update={n.SEED: seed})


def compute(
    file: Path, overrides: Sequence[str], work: Path, processes: int, folder: Path = FOLDER, seeds: Sequence[int] = SEEDS
) -> Path:
    """Walk every schedule of the study in ``file`` for the seeds; what ``work`` holds is not computed again.

    Of other seeds the table keeps what it has, so that they may be computed elsewhere, or another day.
    """
    study = load_study(file, overrides)
    load(study.data)  # a folder of images is decoded once, before the workers ask for it
    jobs = list(_longest(space_of(study), seeds))
    with multiprocessing.get_context("spawn").Pool(processes, _start, (file, overrides, work)) as pool:
        for done, _ in enumerate(pool.imap_unordered(_walk, jobs, chunksize=4), start=1):
            if done % 20 == 0 or done == len(jobs):
                print(f"{study.name}: {done} of {len(jobs)} schedules", flush=True)
    return _write(folder / f"{study.name}.csv.gz", study, _tree_of(study, work))


def _tree_of(study: Study, work: Path) -> Tree:
    return Tree(problem_of(study, trusted=False), Store(work), forms=study.storage_forms)


def _start(file: Path, overrides: Sequence[str], work: Path) -> None:
    global _tree, _shared
    study = load_study(file, overrides)
    tree = _tree_of(study, work)
    _tree, _shared = tree, _shared_in(tree, space_of(study))


def _shared_in(tree: Tree, space: SearchSpace) -> frozenset[str]:
    """What several of the longest schedules go through: a first regularised training, channels cut before weights."""
    chains = (tree.chain(schedule) for schedule in _longest(space))
    passed = Counter(one.id for chain in chains for node in chain for one in node.own_nodes)
    return frozenset(address for address, times in passed.items() if times > 1)


def _walk(schedule: Schedule) -> None:
    nodes = _tree.chain(schedule)
    failed = Path(_tree.store.place) / nodes[-1].id / FAILED_FILE
    if failed.exists():
        return
    try:
        with threads(1):
            list(walk(schedule, _tree))
    except STEP_FAILS as error:
        write_atomically(failed, f"{type(error).__name__}: {error}\n".encode())
    for node in (one for step in nodes for one in step.own_nodes):
        if node.id not in _shared:  # or another schedule goes on from its weights
            _tree.store.discard_weights(node.id)


def _write(file: Path, study: Study, tree: Tree) -> Path:
    roots = [tree.store.record(tree.problem.root(seed).id) for seed in SEEDS]
    kept = {row[0]: row[1:] for row in _rows(file)} if file.exists() else {}
    text, width = io.StringIO(), 2 * len(tree.forms) + 1
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([LOOK, f"{_look_epochs(study, tree):.2f}"])
    for label, schedule in {DENSE: None, **dict(enumerate(_steps(space_of(study), tree.chain).values()))}.items():
        cells = kept.get(str(label), [""] * width * len(SEEDS))
        assert len(cells) == width * len(SEEDS), f"{file.name} has other columns; remove it and compute all seeds"
        for place, (seed, root) in enumerate(zip(SEEDS, roots, strict=True)):
            if root is not None:
                record = root if schedule is None else tree.store.record(_last(tree, schedule, seed))
                cells[place * width : (place + 1) * width] = _columns(tree, record, width)
        writer.writerow([label, *cells])
    write_atomically(file, gzip.compress(text.getvalue().encode(), mtime=0))
    return file


def _rows(file: Path) -> list[list[str]]:
    with gzip.open(file, "rt", newline="") as opened:
        return list(csv.reader(opened))


def _last(tree: Tree, schedule: Schedule, seed: int) -> str:
    return tree.chain(schedule.model_copy(update={n.SEED: seed}))[-1].id


def _columns(tree: Tree, record: Mapping[str, Any] | None, width: int) -> list[str]:
    """What was measured of a step; empty where it failed."""
    if record is None:
        return [""] * width
    files = [record[n.FORMS][name] for name in stored_forms.named(tree.forms)] or [record]
    gains = [(f"{file[n.ACCURACY]:.5f}", f"{math.log2(file[n.COMPRESSION]):.4f}") for file in files]
    look = record.get(n.ACCURACY_RECALIBRATED)
    return [*(value for pair in gains for value in pair), "" if look is None else f"{look:.5f}"]


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
