"""A training that is interrupted goes on where it was, and ends with the same bytes as one that wasn't."""

from __future__ import annotations

import hashlib
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.conftest import MakeProblem, same_state, state_of
from tests.trainables.storage.test_store import flip_a_byte
from trainables.chain import RegularisationSettings, RetrainSettings
from trainables.data.dataset import Data
from trainables.networks.factory import ModelSettings
from trainables.networks.reproducible import NUMPY, PYTHON, TORCH, generator_states, restore_generators
from trainables.node import Node
from trainables.pruning.pruners import PRUNERS
from trainables.records import names as n
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.folder import Folder
from trainables.storage.store import Store
from trainables.training import resuming
from trainables.training.loop import LearningRate, Precision, Recipe, TrainingDivergedError, evaluate, fit
from trainables.training.padding import PADDED
from trainables.training.resuming import BATCH, CHECKSUM, EPOCH, LOSS, OF_DRAWS, ORDER, Resumable, Training
from trainables.training.retraining import retraining_of
from trainables.tree import Tree

EPOCHS = 4
RECIPE = Recipe(LearningRate((0.0, 4.0), (0.1, 0.0)), 0, EPOCHS, 128, 0.9, 5e-4, "fp32")
UPDATES = 10
"""Of an epoch."""
LONG = {"steps": 1, "step_ratio": 0.5, "fine_tune_epochs": EPOCHS}
SCHEDULES: dict[str, Schedule] = {
    "masked": UnstructuredSchedule(**LONG),
    "rewound": UnstructuredSchedule(retrain="weight_rewind", **LONG),
    "taught": UnstructuredSchedule(retrain="distill", **LONG),
    "of one epoch": UnstructuredSchedule(**{**LONG, "fine_tune_epochs": 1}),
    "channels": StructuredSchedule(**LONG),
    "scratch": StructuredSchedule(retrain="scratch", **LONG),
}

Place = tuple[int, int]
"""An epoch, and how many of its updates are done."""
Interrupt = Callable[[Place], None]


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Where trainings came to, each training's end left out."""
    visited: list[Place] = []
    keep = Resumable.after_update

    def after_update(self: Resumable, training: Training) -> None:
        visited.append((training.epoch, training.batch))
        keep(self, training)

    monkeypatch.setattr(Resumable, "after_update", after_update)
    return visited


@pytest.fixture
def interrupt(visited: list[Place], monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Have the next training interrupted when it has come to a place, a minute after its state was kept last."""

    def at(stop: Place) -> None:
        keep = Resumable.after_update

        def after_update(self: Resumable, training: Training) -> None:
            if (training.epoch, training.batch) != stop:
                return keep(self, training)
            self._next -= resuming.INTERVAL
            keep(self, training)
            monkeypatch.setattr(Resumable, "after_update", keep)
            raise KeyboardInterrupt

        monkeypatch.setattr(Resumable, "after_update", after_update)

    return at


def places(epochs: range, after: Place = (-1, 0)) -> list[Place]:
    """Where a training comes to beyond ``after``."""
    return [(e, b) for e in epochs for b in range(UPDATES) if (e, b) > max(after, (epochs.start, 0))]


def trees(problem: MakeProblem, tmp_path: Path, **fields: Any) -> tuple[Tree, Tree]:
    """Two stores of the same problem."""
    made = problem(**{"dense": {"epochs": EPOCHS}, **fields})
    return Tree(made, Store(tmp_path / "whole")), Tree(made, Store(tmp_path / "interrupted"))


def files(tree: Tree, node: Node) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (Path(tree.store.place) / node.id).glob("*.safetensors")}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop", [(0, 1), (1, 0), (2, 7), (3, 0), (3, 9)])
def test_a_dense_training_goes_on_bit_by_bit_with_its_early_weights(
    stop: Place, precision: Precision, problem: MakeProblem, tmp_path: Path, interrupt: Interrupt, visited: list[Place]
) -> None:
    whole, tree = trees(problem, tmp_path, precision=precision)
    node = tree.problem.root(0)
    whole.record(node)
    assert visited == places(range(EPOCHS))
    interrupt(stop)
    with pytest.raises(KeyboardInterrupt):
        tree.record(node)
    assert files(tree, node).keys() == {n.TRAINING_FILE}
    visited.clear()
    tree.record(node)
    assert visited == places(range(EPOCHS), stop)
    assert files(tree, node) == files(whole, node)
    assert files(tree, node).keys() == {n.WEIGHTS_FILE, n.REWIND_FILE}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_retraining_goes_on_bit_by_bit(
    name: str, problem: MakeProblem, tmp_path: Path, interrupt: Interrupt, visited: list[Place]
) -> None:
    whole, tree = trees(problem, tmp_path)
    goes_on_bit_by_bit(whole, tree, tree.chain(SCHEDULES[name])[-1], interrupt, visited)


def test_a_padded_retraining_goes_on_bit_by_bit(
    problem: MakeProblem, tmp_path: Path, interrupt: Interrupt, visited: list[Place]
) -> None:
    whole, tree = trees(problem, tmp_path, retrain=RetrainSettings(pad_channels=True))
    node = tree.chain(StructuredSchedule(**{**LONG, "step_ratio": 0.12}))[-1]
    assert node.settings[PADDED]
    goes_on_bit_by_bit(whole, tree, node, interrupt, visited)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "base"])
def test_a_regularised_training_goes_on_bit_by_bit(
    pruner: str, epochs: int, problem: MakeProblem, tmp_path: Path, interrupt: Interrupt, visited: list[Place]
) -> None:
    # Strong enough, and growing often enough, that a strength or a count which were lost would show in the weights.
    strong = RegularisationSettings(bn_scale=0.1, group_norm=0.01, growing_reg=0.01, growing_reg_delta=0.1)
    whole, tree = trees(problem, tmp_path, dense={"epochs": 2}, regularisation=strong)
    node = tree.chain(StructuredSchedule(step_ratio=0.5, pruner=pruner, sparse_epochs=epochs))[-1].parent
    assert node is not None
    goes_on_bit_by_bit(whole, tree, node, interrupt, visited)


def goes_on_bit_by_bit(whole: Tree, tree: Tree, node: Node, interrupt: Interrupt, visited: list[Place]) -> None:
    """A training that is interrupted within its last epoch, twice, comes to what the other tree has."""
    whole.record(node)
    assert node.parent is not None
    tree.record(node.parent)
    plan = retraining_of(node.settings).plan(tree.problem.dense) if node.is_point else None
    epochs = range(plan.start, plan.stop) if plan else range(node.settings[n.EPOCHS])
    stops = [(epochs.stop - 1, 3), (epochs.stop - 1, 7)]
    for stop in stops:
        assert interrupted(tree, node, interrupt, stop).exists()
    visited.clear()
    tree.record(node)
    assert visited == places(epochs, stops[-1])
    assert files(tree, node) == files(whole, node)
    assert files(tree, node).keys() == {n.WEIGHTS_FILE}


def interrupted(tree: Tree, node: Node, interrupt: Interrupt, stop: Place = (2, 0)) -> Path:
    """The file that a training leaves which is interrupted; if not told otherwise, after its second epoch."""
    interrupt(stop)
    with pytest.raises(KeyboardInterrupt):
        tree.record(node)
    return Path(tree.store.place) / node.id / n.TRAINING_FILE


def test_the_seconds_before_the_interruption_count(problem: MakeProblem, tmp_path: Path, interrupt: Interrupt) -> None:
    _, tree = trees(problem, tmp_path)
    node = tree.problem.root(0)
    file = interrupted(tree, node, interrupt)
    stored = safetensors.torch.load(file.read_bytes())
    assert 0 < float(stored[resuming.SECONDS]) < 60
    stored[resuming.SECONDS] += 1000
    file.write_bytes(with_checksum(stored))
    assert 1000 < tree.record(node)[n.SECONDS] < 1060


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 36, 10)
    )


def trained(data: Data, folder: Path, make: Callable[[], nn.Module] = network) -> dict[str, torch.Tensor]:
    model = make()
    fit(model, data, RECIPE, 3, resumable=Resumable(Folder(folder), "state"))
    return state_of(model)


class Drawing(nn.Sequential):
    """A network of a user's own, whose noise comes from Python's and NumPy's generators."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn = random.gauss(0, 1) + np.random.normal() + random.random() * np.random.rand()
        return super().forward(x + 0.1 * drawn)


def drawing() -> nn.Module:
    return Drawing(*network(), nn.Linear(10, 10))


@pytest.mark.parametrize("stop", [(2, 0), (2, 4), (2, 5)])  # normal draws come in pairs, of which one half is kept
@pytest.mark.parametrize("make", [network, drawing])
def test_what_a_network_draws_goes_on_too(
    make: Callable[[], nn.Module], stop: Place, data: Data, tmp_path: Path, interrupt: Interrupt
) -> None:
    interrupt(stop)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "one", make=make)
    torch.manual_seed(99)
    random.seed(98)
    np.random.seed(97)
    assert same_state(trained(data, tmp_path / "one", make=make), trained(data, tmp_path / "other", make=make))


def drawing_factory(num_classes: int) -> nn.Module:
    assert num_classes == 10
    model = drawing()
    with torch.no_grad():
        next(model.parameters()).mul_(random.random() * np.random.rand())
    return model


def test_steps_of_a_network_that_draws_are_the_same_twice_and_leave_the_generators_alone(
    problem: MakeProblem, tmp_path: Path
) -> None:
    made = problem(model=ModelSettings(name=f"{__name__}:drawing_factory"), trusted=True, dense={"epochs": 1})
    nodes, found = Tree(made, Store(tmp_path)).chain(UnstructuredSchedule(step_ratio=0.5, importance="taylor")), []
    made.anatomy  # noqa: B018 - is made once, and draws
    for name in ("one", "other"):
        tree = Tree(made, Store(tmp_path / name))
        found.append([{key: value for key, value in tree.record(node).items() if key != n.SECONDS} for node in nodes])
        random.random()
        np.random.rand()
    assert [{**one, "checksum": None} for one in found[0]] == [{**one, "checksum": None} for one in found[1]]


def same_generators(before: dict[str, torch.Tensor]) -> bool:
    """Whether all generators are in these states; NaN stands for no second half of a pair of normal draws."""
    return all(torch.equal(state.nan_to_num(), before[name].nan_to_num()) for name, state in generator_states().items())


def test_training_and_evaluation_leave_the_callers_generators_as_they_were(data: Data) -> None:
    before = generator_states()
    model = drawing()
    restore_generators(before)
    fit(model, data, RECIPE, 3)
    first = evaluate(model, data)
    assert same_generators(before)
    random.random()
    assert evaluate(model, data) == first


def with_checksum(stored: dict[str, torch.Tensor]) -> bytes:
    plain = {name: tensor for name, tensor in stored.items() if name != CHECKSUM}
    digest = hashlib.sha256(safetensors.torch.save(plain)).digest()
    return safetensors.torch.save({**plain, CHECKSUM: torch.frombuffer(bytearray(digest), dtype=torch.uint8)})


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flipped(file: Path) -> None:
    flip_a_byte(Folder(file.parent), file.name)


def changed(name: str, value: torch.Tensor | None) -> Callable[[Path], None]:
    """Put another tensor in a place of the file, which is whole otherwise."""

    def change(file: Path) -> None:
        stored = safetensors.torch.load(file.read_bytes())
        if value is None:
            del stored[name]
        else:
            stored[name] = value
        file.write_bytes(with_checksum(stored))

    return change


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut off": cut_off,
    "a byte flipped": flipped,
    "empty": lambda file: file.write_bytes(b"") and None,
    "another shape": changed("model.0.weight", torch.zeros(9, 1, 3, 3)),
    "another type": changed("model.0.weight", torch.zeros(8, 1, 3, 3, dtype=torch.float64)),
    "a tensor missing": changed("model.5.bias", None),
    "a tensor too many": changed("model.9.bias", torch.zeros(1)),
    "momentum of another shape": changed("momentum.5.bias", torch.zeros(11)),
    "no generator's state": changed(ORDER, torch.zeros(5056, dtype=torch.uint8)),
    "no state of torch's generator": changed(TORCH, torch.zeros(5056, dtype=torch.uint8)),
    "no state of Python's generator": changed(PYTHON, torch.full((626,), -1.0, dtype=torch.float64)),
    "no numbers in Python's generator": changed(PYTHON, torch.full((626,), torch.nan, dtype=torch.float64)),
    "no state of NumPy's generator": changed(NUMPY, torch.full((627,), -1.0, dtype=torch.float64)),
    "no place in NumPy's generator": changed(NUMPY, torch.full((627,), 2.0**31, dtype=torch.float64)),
    "infinite words in NumPy's generator": changed(NUMPY, torch.full((627,), torch.inf, dtype=torch.float64)),
    "beyond the last epoch": changed(EPOCH, torch.tensor(EPOCHS)),
    "beyond the epoch's end": changed(BATCH, torch.tensor(UPDATES)),
    "before its beginning": changed(BATCH, torch.tensor(-1)),
    "a loss of another type": changed(LOSS, torch.tensor(0.0, dtype=torch.float64)),
    "before the first epoch": changed(EPOCH, torch.tensor(-1)),
    "no number of an epoch": changed(EPOCH, torch.tensor([1, 2])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_state_that_can_t_be_used_the_training_begins_again(
    damage: str, data: Data, tmp_path: Path, interrupt: Interrupt, visited: list[Place]
) -> None:
    whole = trained(data, tmp_path / "whole")
    interrupt((2, 4))
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path)
    visited.clear()
    DAMAGES[damage](tmp_path / "state")
    before = generator_states()
    assert same_state(trained(data, tmp_path), whole)
    assert visited == places(range(EPOCHS))
    assert same_generators(before)


def test_a_state_of_earlier_versions_goes_on_from_its_place(
    data: Data, tmp_path: Path, interrupt: Interrupt, visited: list[Place]
) -> None:
    whole = trained(data, tmp_path / "whole")
    interrupt((2, 4))
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path)
    visited.clear()
    changed(OF_DRAWS, torch.Generator().get_state())(tmp_path / "state")
    assert same_state(trained(data, tmp_path), whole)
    assert visited == places(range(EPOCHS), (2, 4))


def test_nothing_is_kept_of_what_takes_less_than_a_minute(data: Data, tmp_path: Path) -> None:
    trained(data, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("writing", "between"), [(0.0, 60.0), (1.0, 60.0), (10.0, 500.0)])
def test_the_state_is_kept_every_minute_of_a_long_epoch_and_for_a_fiftieth_of_the_time_at_most(
    writing: float, between: float, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, writes = 0.0, []

    class Slow(Folder):
        def write(self, key: str, content: bytes) -> None:
            nonlocal now
            super().write(key, content)
            writes.append(now)
            now += writing

    def update(_model: nn.Module) -> None:
        nonlocal now
        now += 20.0

    monkeypatch.setattr(time, "monotonic", lambda: now)
    recipe = Recipe(RECIPE.rate, 0, 2, 16, 0.9, 5e-4, "fp32")  # 160 updates, which take 53 minutes
    fit(network(), data, recipe, 3, after_update=update, resumable=Resumable(Slow(tmp_path), "state"))
    gaps = [later - earlier - writing for earlier, later in itertools.pairwise(writes)]
    assert len(gaps) > 3
    assert all(between <= gap < between + 20 for gap in gaps)
    assert len(gaps) * writing <= 0.02 * now  # what the first will take isn't known before


def test_a_training_that_diverges_leaves_nothing(problem: MakeProblem, tmp_path: Path, interrupt: Interrupt) -> None:
    _, tree = trees(problem, tmp_path)
    node = tree.problem.root(0)
    file = interrupted(tree, node, interrupt)
    stored = safetensors.torch.load(file.read_bytes())
    stored |= {name: torch.full_like(tensor, torch.inf) for name, tensor in stored.items() if name.endswith(".weight")}
    file.write_bytes(with_checksum(stored))
    with pytest.raises(TrainingDivergedError):
        tree.record(node)
    assert not files(tree, node)
