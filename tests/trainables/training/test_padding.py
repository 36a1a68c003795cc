"""Channels that stay zero while a cut network is trained: they change nothing but widths."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import MakeProblem, same_state, state_of
from trainables import steps
from trainables.chain import MethodSettings, RetrainSettings
from trainables.data.dataset import Data
from trainables.networks.anatomy import survey, widths
from trainables.networks.factory import ModelSettings, build
from trainables.networks.network import Network
from trainables.networks.torch_pruning_alone import tp
from trainables.problem import Problem
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.channels import cut_by
from trainables.pruning.masks import masking
from trainables.schedule import MixedSchedule, Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.training import padding
from trainables.training.loop import LearningRate, Recipe, fit
from trainables.training.optimizers import AdamW, Optimizer, Sgd
from trainables.training.padding import PADDED, Padded, pad, padded_width
from trainables.tree import Tree, walk

DIGIT = (1, 8, 8)
ODD = (
    "residual", "depthwise", "depth_multiplier", "concatenated", "squeeze", "transposed", "flattened", "frozen_stem",
    "two_names", "grouped", "sigmoids",
)  # fmt: skip
NETWORKS = {name: ModelSettings(name=f"tests.odd_networks:{name}") for name in (*ODD, "tied")} | {
    "cnn": ModelSettings(name="cnn", arguments={"width": 10}),
    "resnet20": ModelSettings(name="resnet20", arguments={"width": 10}),
}
UPDATES = 10


def factory(name: str) -> Callable[[], nn.Module]:
    return lambda: build(NETWORKS[name], 10, DIGIT, trusted=True, check=False)


@torch.no_grad()
def cut_twice(name: str) -> tuple[Network, nn.Module]:
    """A network that has lost channels in two steps, in which no element is alike; and the dense one."""
    torch.manual_seed(0)
    dense = factory(name)()
    for tensor in (*dense.parameters(), *dense.buffers()):
        if tensor.is_floating_point():
            tensor.add_(0.2 * torch.rand_like(tensor))
    model, anatomy = copy.deepcopy(dense), survey(dense, DIGIT)
    removed = []
    for seed, ppm in enumerate((200_000, 370_000)):
        removed += cut_by(model, anatomy, tp.importance.RandomImportance(), CHANNEL_SCOPES.make("global"), ppm, 1, seed)
    return Network(model, {}, removed), dense


def padded(name: str, network: Network, dense: nn.Module) -> Padded:
    found = pad(network, factory(name), survey(dense, DIGIT))
    assert found is not None
    return found


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be padded is."""
    monkeypatch.setattr(padding, "MOST_ADDED", 9.0)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", [*ODD, "cnn", "resnet20"])
def test_a_padded_network_computes_what_the_cut_one_computes(name: str, train: bool, generous: None) -> None:
    network, dense = cut_twice(name)
    wider = padded(name, network, dense)
    true, wide, whole = widths(network.model), widths(wider.model), widths(dense)
    assert true != wide and all(true[layer] <= wide[layer] <= whole[layer] for layer in true)
    assert any(wide[layer] % 8 == 0 for layer in wide if wide[layer] > true[layer])
    inputs = torch.randn(5, *DIGIT, dtype=torch.float64)
    outputs = [one.double().train(train)(inputs) for one in (network.model, wider.model)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-10)


def test_padding_changes_nothing_of_the_true_network_and_gives_it_back_as_it_was(generous: None) -> None:
    network, dense = cut_twice("residual")
    before = state_of(network.model)
    wider = padded("residual", network, dense)
    assert same_state(before, state_of(network.model))
    with torch.no_grad():
        for tensor in network.model.state_dict().values():
            tensor.zero_()
    wider.copy_to(network.model)
    assert same_state(before, state_of(network.model))


def test_a_layer_is_padded_to_a_multiple_if_that_adds_little_and_it_was_as_wide() -> None:
    assert [padded_width(width, 128) for width in (7, 14, 13, 29, 58, 115, 22, 45, 10, 19, 64)] == [
        8, 16, 16, 32, 64, 120, 24, 48, 10, 19, 64,
    ]  # fmt: skip
    assert [padded_width(width, width + 1) for width in (7, 14, 15)] == [8, 14, 16]


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    return max(
        float((a.detach() - b.detach()).abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize(("optimizer", "clip"), [(Sgd(), None), (Sgd(), 0.1), (AdamW(), 0.1)])
@pytest.mark.parametrize("name", ["cnn", "residual", "sigmoids"])
def test_padded_training_comes_to_the_same_weights_and_its_padding_stays_zero(
    name: str, optimizer: Optimizer, clip: float | None, data: Data, generous: None
) -> None:
    network, dense = cut_twice(name)
    network.masks = {  # as of a mixed schedule
        name: torch.rand(weight.shape) < 0.7 for name, weight in network.model.named_parameters() if weight.dim() == 4
    }
    hold = masking(network.model, network.masks)
    hold(network.model)
    wider = padded(name, network, dense)
    rate = LearningRate((0.0, 1.0), (0.02, 0.0)) if isinstance(optimizer, Sgd) else LearningRate((0.0, 1.0), (1e-4, 0.0))
    recipe = Recipe(rate, 0, 1, 128, 0.9, 5e-4, "fp32", optimizer=optimizer, clip_norm=clip)
    if clip is not None:
        wider.hold_gradients()
    trained = copy.deepcopy(network.model)
    fit(trained, data, recipe, seed=1, after_update=masking(trained, network.masks))
    fit(wider.model, data, recipe, seed=1, after_update=wider.hold)
    for tensor_name, tensor in (*wider.model.named_parameters(), *wider.model.named_buffers()):
        if tensor_name in wider.places:
            added = torch.ones(tensor.numel(), dtype=torch.bool)
            added[wider.places[tensor_name].flatten()] = False
            assert bool((tensor.flatten()[added] == 0).all()), tensor_name
    moved = largest_difference(network.model, trained)
    wider.copy_to(network.model)
    largest = largest_difference(network.model, trained)
    assert largest < moved * (1e-4 if isinstance(optimizer, Sgd) else 0.04)
    assert all(bool((network.model.get_parameter(name)[~mask] == 0).all()) for name, mask in network.masks.items())


@pytest.mark.parametrize("retrain", ["fine_tune", "distill", "scratch"])
def test_retraining_trains_a_padded_network_and_stores_the_true_one(
    retrain: str, problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[list[int]] = []

    def spied(model: nn.Module, *rest: Any, **named: Any) -> None:
        trained.append([*widths(model).values()][:-1])
        fit(model, *rest, **named)

    monkeypatch.setattr(steps, "fit", spied)
    tree = Tree(problem(retrain=RetrainSettings(pad_channels=True)), Store(tmp_path / "steps"))
    schedule = MixedSchedule(channel_ratio=0.12, step_ratio=0.5, retrain=retrain)
    list(walk(schedule, tree))
    assert trained == [[4, 4, 8, 8, 16, 16]] * 3  # the dense network's, and twice of what was cut
    network = tree.network(tree.chain(schedule)[-1])
    assert [*widths(network.model).values()][:-1] == [4, 4, 7, 7, 14, 14]
    assert network.masks and all(
        bool((network.model.get_parameter(name)[~mask] == 0).all()) for name, mask in network.masks.items()
    )


def ids(problem: Problem, schedule: Schedule) -> list[str]:
    return [node.id for node in problem.chain(schedule)]


def test_padding_is_part_of_the_address_only_where_it_has_an_effect(problem: MakeProblem) -> None:
    usual, padding_one = problem(), problem(retrain=RetrainSettings(pad_channels=True))
    same: list[Schedule] = [
        UnstructuredSchedule(step_ratio=0.5),
        StructuredSchedule(step_ratio=0.5, fine_tune_epochs=0),
        StructuredSchedule(step_ratio=0.5, retrain="recalibrate"),
        StructuredSchedule(schedule="explicit", levels=(0.0,)),
    ]
    for schedule in same:
        assert ids(usual, schedule) == ids(padding_one, schedule)
    nodes = padding_one.chain(StructuredSchedule(step_ratio=0.5, pruner="group_norm", sparse_epochs=1, steps=2))
    assert [node.settings[PADDED] for node in nodes] == [True, True]
    assert nodes[0].parent is not None and PADDED not in nodes[0].parent.settings
    for other in (StructuredSchedule(step_ratio=0.5), MixedSchedule(channel_ratio=0.5, step_ratio=0.5)):
        assert not set(ids(usual, other)) & set(ids(padding_one, other))
    assert PADDED not in usual.chain(StructuredSchedule(step_ratio=0.5))[0].settings


@pytest.mark.parametrize("name", ["other_norms", "group_norm", "norms_by_hand", "shuffled"])
def test_networks_with_statistics_over_channels_or_shuffled_ones_are_trained_as_they_are(
    name: str, problem: MakeProblem
) -> None:
    model = ModelSettings(name=f"tests.odd_networks:{name}")
    made = problem(model=model, trusted=True, retrain=RetrainSettings(pad_channels=True))
    schedule = StructuredSchedule(step_ratio=0.3)  # below, the gate is left out: it takes seconds, and limits nothing here
    (node,), (usual,) = (methods.chain(made.root(0), schedule) for methods in (made.methods, MethodSettings()))
    assert node.id == usual.id and PADDED not in node.settings


def test_what_can_t_be_padded_is_none(problem: MakeProblem, generous: None) -> None:
    made = problem()
    assert pad(Network(made.build()), made.build, made.skeleton) is None
    network, dense = cut_twice("tied")  # whose layers have lost other channels of the weight that they shared
    assert pad(network, factory("tied"), survey(dense, DIGIT)) is None
