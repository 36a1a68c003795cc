"""A training that is interrupted goes on where it was, and ends with the same bytes as one that wasn't."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.conftest import MakeProblem, same_state, state_of
from tests.trainables.storage.test_store import flip_a_byte
from trainables.data.dataset import Data
from trainables.records import names as n
from trainables.schedule import Node, Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.folder import Folder
from trainables.storage.store import Store
from trainables.training import resuming
from trainables.training.loop import LearningRate, Precision, Recipe, TrainingDivergedError, fit
from trainables.training.resuming import CHECKSUM, EPOCH, ORDER, Resumable
from trainables.tree import Tree

EPOCHS = 4
RECIPE = Recipe(LearningRate((0.0, 4.0), (0.1, 0.0)), 0, EPOCHS, 128, 0.9, 5e-4, "fp32")
LONG = {"steps": 1, "step_ratio": 0.5, "fine_tune_epochs": EPOCHS}
SCHEDULES: dict[str, Schedule] = {
    "masked": UnstructuredSchedule(**LONG),
    "rewound": UnstructuredSchedule(retrain="weight_rewind", **LONG),
    "channels": StructuredSchedule(**LONG),
    "scratch": StructuredSchedule(retrain="scratch", **LONG),
}

Interrupt = Callable[[int], None]


@pytest.fixture
def kept_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The state is kept after every epoch; which epochs were trained, but each training's last."""
    trained: list[int] = []
    keep = Resumable.after_epoch

    def after_epoch(self: Resumable, epoch: int, *args: Any) -> None:
        trained.append(epoch)
        keep(self, epoch, *args)

    monkeypatch.setattr(resuming, "INTERVAL", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 0)
    monkeypatch.setattr(Resumable, "after_epoch", after_epoch)
    return trained


@pytest.fixture
def interrupt(kept_at_once: list[int], monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Have the next training interrupted when it has come to an epoch."""

    def at(stop: int) -> None:
        keep = Resumable.after_epoch

        def after_epoch(self: Resumable, epoch: int, *args: Any) -> None:
            keep(self, epoch, *args)
            if epoch == stop:
                monkeypatch.setattr(Resumable, "after_epoch", keep)
                raise KeyboardInterrupt

        monkeypatch.setattr(Resumable, "after_epoch", after_epoch)

    return at


def trees(problem: MakeProblem, tmp_path: Path, **fields: Any) -> tuple[Tree, Tree]:
    """Two stores of the same problem."""
    made = problem(**{"dense": {"epochs": EPOCHS}, **fields})
    return Tree(made, Store(tmp_path / "whole")), Tree(made, Store(tmp_path / "interrupted"))


def files(tree: Tree, node: Node) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (Path(tree.store.place) / node.id).glob("*.safetensors")}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_dense_training_goes_on_bit_by_bit_with_its_early_weights(
    stop: int, precision: Precision, problem: MakeProblem, tmp_path: Path, interrupt: Interrupt, kept_at_once: list[int]
) -> None:
    whole, tree = trees(problem, tmp_path, precision=precision)
    node = tree.problem.root(0)
    whole.record(node)
    assert kept_at_once == [1, 2, 3]
    kept_at_once.clear()
    interrupt(stop)
    with pytest.raises(KeyboardInterrupt):
        tree.record(node)
    assert files(tree, node).keys() == {n.TRAINING_FILE}
    tree.record(node)
    assert kept_at_once == [1, 2, 3]
    assert files(tree, node) == files(whole, node)
    assert files(tree, node).keys() == {n.WEIGHTS_FILE, n.REWIND_FILE}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_retraining_goes_on_bit_by_bit(
    name: str, problem: MakeProblem, tmp_path: Path, interrupt: Interrupt, kept_at_once: list[int]
) -> None:
    whole, tree = trees(problem, tmp_path)
    node = tree.chain(SCHEDULES[name])[-1]
    whole.record(node)
    tree.record(node.root)
    kept_at_once.clear()
    assert interrupted(tree, node, interrupt).exists()
    tree.record(node)
    assert kept_at_once == [epoch for epoch in (1, 2, 3) if epoch > tree.problem.recipe(dict(node.settings)).start]
    assert files(tree, node) == files(whole, node)


def interrupted(tree: Tree, node: Node, interrupt: Interrupt) -> Path:
    """The file that a training leaves which is interrupted after its second epoch."""
    interrupt(2)
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


def trained(data: Data, folder: Path, recipe: Recipe = RECIPE) -> dict[str, torch.Tensor]:
    model = network()
    fit(model, data, recipe, 3, resumable=Resumable(Folder(folder), "state"))
    return state_of(model)


def test_dropout_draws_go_on_too(data: Data, tmp_path: Path, interrupt: Interrupt) -> None:
    interrupt(2)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "one")
    torch.manual_seed(99)
    assert same_state(trained(data, tmp_path / "one"), trained(data, tmp_path / "other"))


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
    "beyond the last epoch": changed(EPOCH, torch.tensor(EPOCHS + 1)),
    "before the first epoch": changed(EPOCH, torch.tensor(-1)),
    "no number of an epoch": changed(EPOCH, torch.tensor([1, 2])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_state_that_can_t_be_used_the_training_begins_again(
    damage: str, data: Data, tmp_path: Path, interrupt: Interrupt, kept_at_once: list[int]
) -> None:
    whole = trained(data, tmp_path / "whole")
    interrupt(2)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path)
    kept_at_once.clear()
    DAMAGES[damage](tmp_path / "state")
    assert same_state(trained(data, tmp_path), whole)
    assert kept_at_once == [1, 2, 3]


def test_nothing_is_kept_of_what_takes_less_than_a_minute(data: Data, tmp_path: Path) -> None:
    trained(data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_of_a_single_epoch_nothing_is_kept_or_looked_for(data: Data, kept_at_once: list[int]) -> None:
    class Unused(Folder):
        def read(self, key: str) -> bytes | None:
            raise AssertionError(key)

    fit(network(), data, Recipe(RECIPE.rate, 0, 1, 128, 0.9, 5e-4, "fp32"), 3, resumable=Resumable(Unused(Path()), "state"))
    assert not kept_at_once


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
