"""Walking schedules: nothing is computed twice, every point is whole, and retraining does what its name says."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.conftest import MakeProblem, same_state, state_of
from trainables import steps
from trainables.networks.factory import ModelSettings
from trainables.networks.network import decode
from trainables.pruning.masks import masking
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import ASKED, Store
from trainables.training.loop import evaluate, fit
from trainables.training.retraining import RETRAININGS
from trainables.tree import Tree, walk

MEASURED_NUMBERS = (
    n.STEP, n.STEPS, n.FINE_TUNE_EPOCHS, n.SPARSE_EPOCHS, n.SEED, n.EPOCHS, n.TOTAL_EPOCHS, n.SECONDS, n.REQUESTED_SPARSITY,
    n.SPARSITY, n.CHANNEL_SPARSITY, n.ACCURACY_BEFORE, n.ACCURACY, n.PARAMS, n.MACS, n.EFFECTIVE_MACS, n.STORED_BYTES,
    n.COMPRESSION,
)  # fmt: skip
NOT_MEASURED_HERE = {n.TRIAL, n.LATENCY, n.LATENCY_LARGE, n.LATENCY_DENSE, n.LATENCY_LARGE_DENSE}


def fine(**fields: Any) -> UnstructuredSchedule:
    return UnstructuredSchedule(**{"step_ratio": 0.5, "steps": 2, **fields})


def coarse(**fields: Any) -> StructuredSchedule:
    return StructuredSchedule(**{"step_ratio": 0.5, "steps": 2, **fields})


def cost_free(point: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in point.items() if key not in (n.EPOCHS, n.SECONDS, n.REUSED)}


def test_shared_beginnings_are_computed_once(tree: Tree) -> None:
    first = list(walk(fine(steps=3), tree))
    assert tree.epochs == 2 + 3
    longer = list(walk(fine(steps=5), tree))
    assert tree.epochs == 2 + 5
    assert [point[n.REUSED] for point in longer] == [True, True, True, False, False]
    assert [point[n.EPOCHS] for point in longer] == [0, 0, 0, 1, 1]
    same = (n.STEP_ID, n.ACCURACY, n.STORED_BYTES)
    assert [[point[key] for key in same] for point in longer[:3]] == [[point[key] for key in same] for point in first]


def test_a_second_walk_computes_nothing_and_tells_the_same(tree: Tree) -> None:
    first = list(walk(coarse(), tree))
    again = Tree(tree.problem, tree.store)
    second = list(walk(coarse(), again))
    assert again.epochs == 0
    assert all(point[n.REUSED] and point[n.EPOCHS] == point[n.SECONDS] == 0 for point in second)
    assert [cost_free(point) for point in second] == [cost_free(point) for point in first]


def test_steps_are_computed_only_when_asked_for(tree: Tree) -> None:
    points = walk(fine(steps=4), tree)
    assert tree.epochs == 0
    next(points)
    assert tree.epochs == 3


def test_every_epoch_of_every_training_is_told(tree: Tree) -> None:
    told: list[int] = []
    tree.after_epoch = told.append
    tree.dense_point(0)
    for schedule, expected in (
        (fine(steps=1, retrain="lr_rewind", fine_tune_epochs=2), [1, 2]),
        (fine(steps=2), [1, 1]),
        (fine(steps=1, retrain="weight_rewind"), [1]),  # from the first of two dense epochs on
        (fine(steps=1, retrain="scratch", fine_tune_epochs=3), [1, 2, 3]),
        (coarse(steps=1, pruner="group_norm", sparse_epochs=2), [1, 2, 1]),
    ):
        assert told == [1, 2] or not told
        told.clear()
        list(walk(schedule, tree))
        assert told == expected
        told.clear()


def test_what_points_cost_adds_up_to_what_was_trained(tree: Tree) -> None:
    points = list(walk(coarse(pruner="bn_scale", sparse_epochs=2), tree))
    assert [point[n.EPOCHS] for point in [tree.dense_point(0), *points]] == [2, 3, 3]
    assert tree.epochs == 2 + 3 + 3


@pytest.mark.parametrize(
    "schedule",
    [fine(retrain=retrain) for retrain in RETRAININGS]
    + [coarse(retrain=retrain) for retrain in RETRAININGS if retrain != "weight_rewind"]
    + [coarse(pruner="growing_reg", sparse_epochs=1, scope="global"), fine(fine_tune_epochs=0)],
)
def test_every_point_is_whole(schedule: Schedule, tree: Tree) -> None:
    points = list(walk(schedule, tree))
    dense = tree.dense_point(0)
    chain = [dense, *points]
    told = schedule.columns() | tree.problem.methods.trained(schedule, tree.problem.dense)
    for before, point in zip(chain, points, strict=False):
        assert list(point) == list(n.POINT_COLUMNS)
        assert {column for column, value in point.items() if value is None} == {
            column for column, value in told.items() if value is None
        } | NOT_MEASURED_HERE
        assert all(math.isfinite(point[column]) for column in MEASURED_NUMBERS)
        assert 0 <= point[n.ACCURACY] <= 1
        assert before[n.SPARSITY] < point[n.SPARSITY] < 1
        assert before[n.COMPRESSION] < point[n.COMPRESSION] == dense[n.STORED_BYTES] / point[n.STORED_BYTES]
        assert point[n.PARAMS] < before[n.PARAMS]
        assert point[n.EFFECTIVE_MACS] < before[n.EFFECTIVE_MACS]
        assert point[n.PARENT_ID] == before[n.STEP_ID]
        assert {column: point[column] for column in told} == told
    assert [point[n.STEP] for point in points] == [1, 2]
    assert [point[n.REQUESTED_SPARSITY] for point in points] == [0.5, 0.75]
    structured = isinstance(schedule, StructuredSchedule)
    assert all((point[n.MACS] < dense[n.MACS]) == structured == (point[n.CHANNEL_SPARSITY] > 0) for point in points)


def test_the_dense_point(tree: Tree) -> None:
    point = tree.dense_point(0)
    assert (point[n.STEP], point[n.FAMILY], point[n.SPARSITY], point[n.COMPRESSION]) == (0, n.DENSE, 0, 1)
    assert point[n.STEP_ID] == tree.problem.root(0).id
    assert point[n.ACCURACY] == evaluate(tree.network(tree.problem.root(0)).model, tree.problem.data)
    assert set(point) == set(n.POINT_COLUMNS)
    assert tree.dense_point(1)[n.STEP_ID] != point[n.STEP_ID]


@pytest.mark.parametrize("schedule", [fine(importance="taylor"), coarse(importance="fpgm"), fine(retrain="weight_rewind")])
def test_accuracy_is_of_the_stored_network_and_before_of_the_cut_one(schedule: Schedule, tree: Tree) -> None:
    for node, point in zip(tree.chain(schedule), walk(schedule, tree), strict=True):
        assert point[n.ACCURACY] == evaluate(tree.network(node).model, tree.problem.data)
        assert node.parent is not None
        cut = steps.cut(tree.network(node.parent), node, tree.problem)
        assert point[n.ACCURACY_BEFORE] == evaluate(cut.model, tree.problem.data)


@pytest.mark.parametrize("schedule", [fine(fine_tune_epochs=0), coarse(fine_tune_epochs=0)])
def test_without_retraining_before_is_after(schedule: Schedule, tree: Tree) -> None:
    points = list(walk(schedule, tree))
    assert tree.epochs == 2
    assert all(point[n.ACCURACY_BEFORE] == point[n.ACCURACY] for point in points)


@pytest.mark.parametrize(
    ("schedule", "totals"),
    [
        (fine(fine_tune_epochs=2), [2, 4]),
        (fine(retrain="lr_rewind", fine_tune_epochs=3), [3, 6]),
        (fine(retrain="weight_rewind"), [2, 4]),
        (coarse(pruner="group_norm", sparse_epochs=2), [3, 6]),
    ],
)
def test_total_epochs_count_all_since_the_dense_network(
    schedule: Schedule, totals: list[int], problem: MakeProblem, tmp_path: Path
) -> None:
    tree = Tree(problem(dense={"epochs": 3, "rewind_epoch": 1}), Store(tmp_path))
    assert [point[n.TOTAL_EPOCHS] for point in walk(schedule, tree)] == totals
    assert tree.dense_point(0)[n.TOTAL_EPOCHS] == 0
    assert tree.dense_point(0)[n.EPOCHS] == 3
    assert tree.epochs == 3 + totals[-1]


def test_lr_rewinding_is_the_tail_of_the_dense_schedule_on_the_masked_weights(tree: Tree) -> None:
    schedule = fine(steps=1, retrain="lr_rewind", fine_tune_epochs=1)
    list(walk(schedule, tree))
    (node,) = tree.chain(schedule)
    made = tree.problem
    network = steps.cut(tree.network(node.root), node, made)
    dense = made.dense_recipe
    fit(
        network.model, made.data, dataclasses.replace(dense, start=1), node.seed,
        after_update=masking(network.model, network.masks),
    )  # fmt: skip
    assert same_state(state_of(network.model), state_of(tree.network(node).model))


def test_weight_rewinding_starts_from_the_stored_early_epoch_and_keeps_the_masks(tree: Tree) -> None:
    schedule = fine(retrain="weight_rewind")
    list(walk(schedule, tree))
    made = tree.problem
    root = made.root(0)
    content = tree.store.weights(tree.record(root), n.REWIND_FILE)
    assert content is not None
    early = decode(content, made.build, made.anatomy).model

    torch.manual_seed(root.seed)
    by_hand = made.build()
    fit(by_hand, made.data, dataclasses.replace(made.dense_recipe, stop=1), root.seed)
    assert same_state(state_of(by_hand), state_of(early))

    for node in tree.chain(schedule):
        stored = tree.network(node)
        model = made.build()
        model.load_state_dict(early.state_dict())
        hold = masking(model, stored.masks)
        hold(model)
        fit(model, made.data, dataclasses.replace(made.dense_recipe, start=1), node.seed, after_update=hold)
        assert same_state(state_of(model), state_of(stored.model))


@pytest.mark.parametrize("make", [fine, coarse])
def test_from_scratch_the_shape_and_masks_are_kept_and_the_weights_are_not(make: Any, tree: Tree) -> None:
    schedule = make(steps=1, retrain="scratch")
    list(walk(schedule, tree))
    (node,) = tree.chain(schedule)
    cut, stored = steps.cut(tree.network(node.root), node, tree.problem), tree.network(node)
    assert stored.removed == cut.removed
    assert all(torch.equal(stored.masks.get(name, torch.ones_like(mask)), mask) for name, mask in cut.masks.items())
    one, other = (torch.cat([p.flatten() for p in some.model.parameters() if p.dim() > 1]) for some in (cut, stored))
    assert one.shape == other.shape
    assert abs(float(torch.corrcoef(torch.stack([one, other]).detach())[0, 1])) < 0.35


def test_extending_a_schedule_whose_weights_are_gone_computes_them_again(tree: Tree) -> None:
    schedule, longer = fine(steps=2), fine(steps=3)
    points = list(walk(schedule, tree))
    contents = [tree.content(node) for node in tree.chain(schedule)]
    for step_id in tree.store.ids():
        tree.store.discard_weights(step_id)
    again = Tree(tree.problem, tree.store)
    extended = list(walk(longer, again))
    assert [point[n.REUSED] for point in extended] == [True, True, False]
    assert [point[n.STEP_ID] for point in extended[:2]] == [point[n.STEP_ID] for point in points]
    assert again.epochs == 2 + 2 + 1
    assert [again.content(node) for node in tree.chain(schedule)] == contents


@pytest.mark.parametrize("trial", [None, 0])
def test_weights_made_again_cost_the_step_after_them_nothing_and_leave_their_records_alone(
    trial: int | None, tree: Tree
) -> None:
    schedule = coarse(pruner="bn_scale", sparse_epochs=2, steps=3)
    nodes = tree.chain(schedule)
    for number in (1, 2):
        tree.point(nodes[number - 1], schedule, number, trial)
    before = {step_id: tree.store.storage.read(f"{step_id}/{n.STEP_FILE}") for step_id in tree.store.ids()}
    for step_id in before:
        tree.store.discard_weights(step_id)
    again = Tree(tree.problem, tree.store)
    assert again.point(nodes[2], schedule, 3, trial)[n.EPOCHS] == 2 + 1
    assert again.epochs == 2 + 3 * (2 + 1)
    assert {step_id: tree.store.storage.read(f"{step_id}/{n.STEP_FILE}") for step_id in before} == before


def test_weights_that_come_out_different_replace_the_record_and_not_who_paid(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = fine(steps=1)
    (node,) = tree.chain(schedule)
    tree.point(node, schedule, 1, trial=0)
    before = tree.record(node)
    tree.store.discard_weights(node.id)
    retrain = steps.retrain

    def elsewhere(*arguments: Any) -> Any:
        network = retrain(*arguments)
        with torch.no_grad():
            next(iter(network.model.parameters())).mul_(1.001)
        return network

    monkeypatch.setattr(steps, "retrain", elsewhere)
    again = Tree(tree.problem, tree.store)
    assert again.network(node).model
    record = again.record(node)
    assert record["checksums"] != before["checksums"]
    assert record[ASKED] == before[ASKED]
    assert again.point(node, schedule, 1, trial=0)[n.EPOCHS] == 1


def test_a_node_is_found_by_its_address(tree: Tree) -> None:
    schedule = coarse(pruner="group_norm", sparse_epochs=1, importance="taylor")
    list(walk(schedule, tree))
    for node in tree.chain(schedule):
        found = tree.node(node.id)
        assert found.id == node.id
        assert found.root.id == node.root.id
        assert tree.content(found) == tree.content(node)
    with pytest.raises(InputError, match="no whole record"):
        tree.node("0" * 16)


def test_seeds_have_dense_networks_of_their_own(tree: Tree) -> None:
    one, other = (next(walk(fine(steps=1, seed=seed), tree)) for seed in (0, 1))
    assert one[n.PARENT_ID] != other[n.PARENT_ID]
    first, second = (state_of(tree.network(tree.problem.root(seed)).model) for seed in (0, 1))
    assert not same_state(first, second)


def test_a_step_that_removes_no_weight_is_an_error(tree: Tree) -> None:
    with pytest.raises(steps.NothingRemovedError, match="removed nothing"):
        list(walk(fine(step_ratio=0.00001, steps=1), tree))
    assert tree.store.ids() == [tree.problem.root(0).id]


@pytest.mark.parametrize("kind", [UnstructuredSchedule, StructuredSchedule])
def test_a_first_level_of_nothing_retrains_what_there_is(kind: type[Schedule], tree: Tree) -> None:
    dense = tree.dense_point(0)
    kept, cut = walk(kind(levels=[0.0, 0.5]), tree)
    assert kept[n.SPARSITY] == kept[n.REQUESTED_SPARSITY] == 0 and kept[n.EPOCHS] == 1 and cut[n.SPARSITY] > 0.3
    assert kept[n.ACCURACY_BEFORE] == dense[n.ACCURACY] and kept[n.PARAMS] == dense[n.PARAMS]
    assert not same_state(*(state_of(tree.network(tree.node(point[n.STEP_ID])).model) for point in (dense, kept)))
    (scratch,) = walk(kind(levels=[0.0], retrain="scratch", fine_tune_epochs=2), tree)
    assert scratch[n.PARAMS] == dense[n.PARAMS] and scratch[n.EPOCHS] == 2


def test_a_penalty_of_strength_nothing_is_the_same_training_without_it(tree: Tree) -> None:
    def prepared(**fields: Any) -> dict[str, torch.Tensor]:
        node = tree.chain(coarse(steps=1, sparse_epochs=1, **fields))[0].parent
        assert node is not None
        return state_of(tree.network(node).model)

    usual, twice, none = (prepared(pruner="group_norm", strength=s) for s in (None, 2.0, 0.0))
    assert same_state(usual, prepared(pruner="group_norm", strength=1.0))
    assert not same_state(usual, twice) and not same_state(usual, none)
    settings = [tree.chain(coarse(steps=1, sparse_epochs=1, pruner="growing_reg", strength=s))[0].parent for s in (None, 2)]
    told = [[node.settings[name] for name in ("growing_reg", "growing_reg_delta")] for node in settings if node is not None]
    assert told[1] == [2 * value for value in told[0]]


def test_a_layer_that_lost_everything_is_flagged(tree: Tree) -> None:
    (point,) = walk(UnstructuredSchedule(step_ratio=0.9995, fine_tune_epochs=0), tree)
    network = tree.network(tree.node(point[n.STEP_ID]))
    empty = [name.removesuffix(".weight") for name, mask in network.masks.items() if not mask.any()]
    assert empty
    assert point[n.EMPTY_LAYERS] == empty


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_is_a_root_that_can_be_fine_tuned_but_not_rewound(
    suffix: str, problem: MakeProblem, tmp_path: Path
) -> None:
    made = problem()
    torch.manual_seed(5)
    model = made.build()
    fit(model, made.data, made.dense_recipe, seed=5)
    file = tmp_path / f"weights{suffix}"
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if suffix == ".pt":
        torch.save(state, file)
    else:
        safetensors.torch.save_file(state, file)
    given = problem(model=ModelSettings(name="cnn", arguments={"width": 4}, checkpoint=str(file)))
    tree = Tree(given, Store(tmp_path / "steps"))
    given.check_network()
    for retrain in ("lr_rewind", "weight_rewind"):
        with pytest.raises(InputError, match="fine_tune"):
            list(walk(fine(retrain=retrain), tree))
    assert tree.store.ids() == []
    assert tree.dense_point(0)[n.ACCURACY] == evaluate(model, made.data)
    assert same_state(state_of(tree.network(given.root(0)).model), state)
    assert [point[n.TOTAL_EPOCHS] for point in walk(fine(), tree)] == [1, 2]
    assert tree.epochs == 2
