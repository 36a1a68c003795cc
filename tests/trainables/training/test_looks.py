"""Looks at a cut: its measure with BatchNorm recalibrated, at no epochs and without a trace in the network."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import MakeProblem, same_state, state_of
from tests.trainables.training.test_repair import bare
from trainables import steps
from trainables.data.dataset import Data
from trainables.networks.factory import ModelSettings
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.points import is_record
from trainables.schedule import MixedSchedule, Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.training import recalibrating
from trainables.training.loop import evaluate
from trainables.tree import Tree, walk

WEIGHTS = UnstructuredSchedule(step_ratio=0.5, steps=2, importance="random")
CHANNELS = StructuredSchedule(step_ratio=0.3, steps=2, pruner="group_norm", sparse_epochs=1)


def test_statistics_that_are_wrong_by_construction_cost_a_look_nothing(tree: Tree) -> None:
    """A dense network whose statistics were spoilt: its accuracy is lost, a look has it, and it is spoilt afterwards."""
    data = tree.problem.data
    model = tree.network(tree.problem.root(0)).model
    right = evaluate(model, data)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean += 3
        norm.running_var *= 50
    wrong, spoilt = evaluate(model, data), state_of(model)
    generators = torch.get_rng_state()
    value = recalibrating.look(model, data, wrong, seed=1)
    assert value is not None and wrong < right - 0.3 < right - 0.05 < value
    assert same_state(state_of(model), spoilt) and torch.equal(torch.get_rng_state(), generators)
    assert {norm.momentum for norm in norms} == {0.1} and not model.training


def test_without_batch_norm_a_look_is_the_plain_measure(problem: MakeProblem, data: Data) -> None:
    model = bare(10)
    assert recalibrating.look(model, data, 0.125, seed=0) == 0.125
    made = problem(model=ModelSettings(name=f"{__name__}:bare"), trusted=True)
    root = made.root(0)
    node = made.looks(UnstructuredSchedule(step_ratio=0.5))[0]
    network = steps.step_of(root).make(None, steps.Bench(made, root)).network
    cut = steps.cut(copy.deepcopy(network), node, made)
    assert steps.look(network, node, made) == evaluate(cut.model, made.data)


@pytest.mark.parametrize("schedule", [WEIGHTS, CHANNELS, MixedSchedule(step_ratio=0.5, steps=2, channel_ratio=0.3)])
def test_what_is_retrained_is_the_same_with_and_without_looks(
    schedule: Schedule, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = list(walk(schedule, tree))
    assert all(0 < point[n.ACCURACY_RECALIBRATED] <= 1 for point in points)
    monkeypatch.setattr(recalibrating, "look", lambda *_, **__: None)
    blind = Tree(tree.problem, Store(tmp_path / "blind"))
    without = list(walk(schedule, blind))
    assert [point[n.ACCURACY_RECALIBRATED] for point in without] == [None, None]
    for node, point, other in zip(tree.chain(schedule), points, without, strict=True):
        assert point | {n.SECONDS: 0, n.ACCURACY_RECALIBRATED: None} == other | {n.SECONDS: 0}
        assert tree.content(node) == blind.content(node)


def test_a_record_of_old_has_none_and_is_computed_no_more(tree: Tree) -> None:
    """What the column lacks stays empty: nothing is measured for it."""
    node = tree.chain(WEIGHTS)[0]
    list(walk(WEIGHTS, tree))
    record = tree.record_of(node)
    old = {key: value for key, value in record.items() if key != n.ACCURACY_RECALIBRATED}
    tree.store.write({key: old[key] for key in old if key not in ("checksum", "checksums")}, {})
    again = Tree(tree.problem, tree.store)
    assert is_record(old) and next(walk(WEIGHTS, again))[n.ACCURACY_RECALIBRATED] is None
    assert again.epochs == 0 and n.ACCURACY_RECALIBRATED not in again.record_of(node)


def test_a_measure_that_has_no_value_then_fails_no_step(data: Data, problem: MakeProblem) -> None:
    model = problem().build()

    def refuse(*_: object) -> float:
        raise InputError("task: it measures infinity")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recalibrating, "evaluate", refuse)
        assert recalibrating.look(model, data, 0.5, seed=0) is None


def other(schedule: Schedule) -> Schedule:
    return schedule.model_copy(update={n.RETRAIN: "lr_rewind", n.FINE_TUNE_EPOCHS: 2})


@pytest.mark.parametrize("schedule", [WEIGHTS, CHANNELS])
def test_a_look_is_what_a_step_that_only_recalibrates_measures(schedule: Schedule, tree: Tree) -> None:
    first = schedule.model_copy(update={n.STEPS: 1})
    if schedule is CHANNELS:
        tree.look(first)
        assert not tree.store.looks()  # nothing is trained for a look, and this cut is of a network that was
        list(walk(first, tree))
    else:
        tree.dense_point(0)
    epochs = tree.epochs
    tree.look(first)
    (address,) = tree.store.looks()
    assert address == tree.looks(other(first))[0].id == tree.looks(schedule)[0].id
    value = tree.looked(address)
    assert tree.known(address) is None and tree.epochs == epochs
    (point,) = walk(first.model_copy(update={n.RETRAIN: "recalibrate"}), tree)
    assert point[n.STEP_ID] == address
    assert value == point[n.ACCURACY] == point[n.ACCURACY_RECALIBRATED]
    assert tree.looked(address) == value  # the step is beside it


def test_a_look_is_of_what_its_own_chain_has_left(tree: Tree) -> None:
    list(walk(WEIGHTS, tree))
    mine, others = tree.looks(WEIGHTS), tree.looks(other(WEIGHTS))
    assert mine[0].id == others[0].id and mine[1].id != others[1].id
    tree.look(WEIGHTS)
    assert tree.store.looks() == [mine[1].id]
    tree.store.discard_weights(tree.chain(WEIGHTS)[0].id)
    tree.look(WEIGHTS.model_copy(update={n.IMPORTANCE: "magnitude"}))  # of a chain that isn't there
    assert tree.store.looks() == [mine[1].id]


def test_a_look_that_found_nothing_is_on_record_and_a_damaged_one_is_none(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.dense_point(0)

    def refuse(*_: object) -> float:
        raise steps.NothingRemovedError

    monkeypatch.setattr(steps, "cut", refuse)
    tree.look(WEIGHTS.model_copy(update={n.STEPS: 1}))
    (address,) = tree.store.looks()
    found = tree.looked(address)
    assert found is not None and math.isnan(found)
    path = Path(tree.store.place) / address / n.LOOK_FILE
    path.write_bytes(path.read_bytes().replace(b"null", b"0.99"))
    assert tree.looked(address) is None
