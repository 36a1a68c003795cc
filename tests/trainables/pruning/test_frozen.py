"""Frozen layers stay as they are, to the last bit, whatever is cut and trained around them."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import MakeProblem, same_state
from trainables.networks.factory import ModelSettings
from trainables.problem import Problem
from trainables.pruning.compatibility import refuse_pruner
from trainables.pruning.pruners import PRUNERS
from trainables.records import names as n
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree

FROZEN = ("body.0.0", "body.0.1", "body.2.0", "body.2.1")


@pytest.fixture(scope="module")
def half_frozen(problem: MakeProblem) -> Problem:
    return problem(model=ModelSettings(name="tests.odd_networks:frozen_stem"), trusted=True, dense={"epochs": 1})


@pytest.fixture(scope="module")
def tree(half_frozen: Problem, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(half_frozen, Store(tmp_path_factory.mktemp("steps")))


@pytest.mark.parametrize(
    "schedule",
    [
        UnstructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1),
        UnstructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1, retrain="scratch"),
        StructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1),
        StructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1, retrain="scratch"),
        *(
            StructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1, pruner=name, sparse_epochs=1)
            for name, pruner in PRUNERS.items()
            if pruner.regularises
        ),
    ],
    ids=lambda schedule: "-".join([schedule.family, schedule.retrain, getattr(schedule, n.PRUNER, "")]),
)
def test_frozen_layers_are_the_dense_network_s(schedule: Schedule, half_frozen: Problem, tree: Tree) -> None:
    node = half_frozen.chain(schedule)[0]
    dense, network = tree.network(node.root).model, tree.network(node).model
    for name in FROZEN:
        assert same_state(network.get_submodule(name).state_dict(), dense.get_submodule(name).state_dict())
    moved = "body.3.1.running_mean"
    one, other = network.get_buffer(moved), dense.get_buffer(moved)
    assert one.shape != other.shape or not torch.equal(one, other)
    assert node.settings["held"] == ["body.0.1", "body.2.1"]
    assert "held" not in node.root.settings


def test_the_dense_training_estimates_statistics_as_torch_does(half_frozen: Problem, tree: Tree) -> None:
    dense = tree.network(half_frozen.root(0)).model
    assert bool(dense.get_buffer("body.0.1.running_mean").any())


@pytest.mark.parametrize("name", PRUNERS)
def test_no_pruner_is_refused_for_frozen_layers(name: str, half_frozen: Problem) -> None:
    assert refuse_pruner(name, half_frozen) is None


def test_frozen_layers_are_named(half_frozen: Problem) -> None:
    told = " ".join(half_frozen.gate.told())
    assert "body.0.0: it is frozen" in told
    assert "body.2.0 is frozen" in told
    assert half_frozen.spared == {"body.0.0.weight": 0.0, "body.2.0.weight": 0.0}
