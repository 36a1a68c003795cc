"""Schedules against their closed forms, and addresses: equal where nothing that counts differs, and only there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import MakeProblem, cut_weights
from trainables.chain import MethodSettings, RegularisationSettings, RetrainSettings
from trainables.networks.anatomy import prunable
from trainables.networks.factory import ModelSettings
from trainables.networks.network import Masks
from trainables.node import Node
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.levels import LEVELS
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.words import recipe
from trainables.schedule import MixedSchedule, Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.settings import parse
from trainables.training.loop import DenseSettings
from trainables.training.retraining import RETRAININGS

ROOT = Node(None, {"kind": "dense", "seed": 0})
CLOSED_FORMS: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "geometric": ({"step_ratio": 0.3, "steps": 6}, lambda k: 1 - 0.7**k),
    "linear": ({"sparsity": 0.9, "steps": 4}, lambda k: 0.9 * k / 4),
    "cubic": ({"sparsity": 0.95, "steps": 5}, lambda k: 0.95 * (1 - (1 - k / 5) ** 3)),
    "explicit": ({"levels": (0.2, 0.55, 0.901), "steps": 3}, lambda k: (0.2, 0.55, 0.901)[k - 1]),
}


def ids(
    schedule: Schedule, retrain: dict[str, Any] | None = None, regularisation: dict[str, Any] | None = None
) -> list[str]:
    methods = MethodSettings(RetrainSettings(**(retrain or {})), RegularisationSettings(**(regularisation or {})))
    return [node.id for node in methods.chain(ROOT, schedule)]


def fine(**fields: Any) -> UnstructuredSchedule:
    return UnstructuredSchedule(**{"step_ratio": 0.3, "steps": 3, **fields})


def coarse(**fields: Any) -> StructuredSchedule:
    return StructuredSchedule(**{"step_ratio": 0.3, "steps": 3, **fields})


def test_every_schedule_has_a_closed_form() -> None:
    assert set(CLOSED_FORMS) == set(LEVELS)


@pytest.mark.parametrize("name", LEVELS)
def test_targets_are_whole_parts_per_million_of_the_closed_form(name: str) -> None:
    fields, closed = CLOSED_FORMS[name]
    targets = UnstructuredSchedule(schedule=name, **fields).targets()
    assert all(type(target) is int for target in targets)
    assert targets == [round(closed(k) * 1e6) for k in range(1, fields["steps"] + 1)]


@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("name", LEVELS)
def test_achieved_sparsity_is_the_closed_form_to_within_a_weight(name: str, scope: str, problem: MakeProblem) -> None:
    fields, closed = CLOSED_FORMS[name]
    model = problem().build()
    masks: Masks = {}
    for k, target in enumerate(UnstructuredSchedule(schedule=name, **fields).targets(), start=1):
        masks = cut_weights(model, masks, "magnitude", scope, target, seed=k)
        removed = {layer: int((~mask).sum()) for layer, mask in masks.items()}
        sizes = {layer: mask.numel() for layer, mask in masks.items()}
        assert set(masks) == {f"{layer}.weight" for layer in prunable(model)}
        if scope == "global":
            assert abs(sum(removed.values()) - closed(k) * sum(sizes.values())) <= 1
        else:
            assert all(abs(removed[layer] - closed(k) * sizes[layer]) <= 1 for layer in masks)


def test_equal_levels_share_an_address_whatever_schedule_asked() -> None:
    one_shot = fine(step_ratio=0.5, steps=1)
    assert ids(one_shot) == ids(UnstructuredSchedule(levels=(0.5,)))
    assert ids(one_shot) == ids(UnstructuredSchedule(schedule="linear", sparsity=0.5))
    assert ids(fine(step_ratio=0.5, steps=2)) == ids(UnstructuredSchedule(levels=[0.5, 0.75]))


@pytest.mark.parametrize("make", [fine, coarse])
def test_prefixes_share_their_steps_and_a_step_depends_on_all_before_it(make: Callable[..., Schedule]) -> None:
    long = ids(make(steps=5))
    assert long[:3] == ids(make(steps=3))
    assert len(set(long)) == 5
    direct = ids(make(schedule="explicit", levels=(0.3, 0.657), steps=2, step_ratio=None))
    assert direct[0] == long[0]
    assert direct[1] not in long


def mixed(**fields: Any) -> MixedSchedule:
    return MixedSchedule(**{"step_ratio": 0.3, "steps": 3, **fields})


UNLIKE = [
    fine(fine_tune_lr=0.1),
    fine(fine_tune_decay="constant"),
    mixed(channel_ratio=0.4),
    mixed(channel_ratio=0.5),
    fine(importance="taylor"),
    fine(importance="random"),
    fine(scope="layerwise"),
    fine(retrain="lr_rewind"),
    fine(retrain="lr_rewind", fine_tune_epochs=2),
    fine(retrain="weight_rewind"),
    fine(retrain="distill"),
    fine(retrain="recalibrate"),
    fine(fine_tune_epochs=2),
    fine(step_ratio=0.31),
    coarse(),
    coarse(importance="fpgm"),
    coarse(scope="global"),
    coarse(round_to=2),
    coarse(pruner="group_norm", sparse_epochs=1),
    coarse(pruner="group_norm", sparse_epochs=2),
    coarse(pruner="bn_scale", sparse_epochs=1),
]


def test_whatever_has_an_effect_changes_every_address() -> None:
    everything = [address for schedule in [fine(), *UNLIKE] for address in ids(schedule)]
    assert len(set(everything)) == len(everything)


WITHOUT_EFFECT: list[tuple[Schedule, dict[str, Any]]] = [
    (fine(retrain="lr_rewind"), {"learning_rate": 0.5}),
    (fine(retrain="lr_rewind"), {"decay": "constant"}),
    (fine(retrain="weight_rewind"), {"learning_rate": 0.5}),
    (fine(fine_tune_epochs=0), {"learning_rate": 0.5, "decay": "constant"}),
    (fine(importance="magnitude"), {"score_images": 7}),
    (fine(importance="random"), {"score_images": 7}),
    (fine(), {"temperature": 2.0, "teacher_weight": 0.5, "recalibration_images": 64}),
    (fine(retrain="recalibrate", fine_tune_epochs=2), {"learning_rate": 0.5, "temperature": 2.0}),
]
# What a schedule says itself is said over.
WITHOUT_EFFECT += [
    (fine(fine_tune_lr=0.1), {"learning_rate": 0.5}),
    (fine(fine_tune_decay="constant", retrain="distill"), {"decay": "constant"}),
]
WITH_EFFECT: list[tuple[Schedule, dict[str, Any]]] = [
    (fine(), {"learning_rate": 0.5}),
    (fine(), {"decay": "constant"}),
    (fine(fine_tune_decay="linear"), {"learning_rate": 0.5}),
    (coarse(), {"learning_rate": 0.5}),
    (fine(importance="taylor"), {"score_images": 7}),
    (fine(importance="taylor", retrain="weight_rewind"), {"score_images": 7}),
    (fine(importance="taylor", fine_tune_epochs=0), {"score_images": 7}),
    (fine(retrain="distill"), {"temperature": 2.0}),
    (fine(retrain="distill"), {"teacher_weight": 0.5}),
    (fine(retrain="distill"), {"learning_rate": 0.5}),
    (fine(retrain="recalibrate"), {"recalibration_images": 64}),
]


@pytest.mark.parametrize(("scope", "same"), [("local", True), ("global", False)])
def test_lamp_has_an_effect_of_its_own_only_where_all_groups_are_ranked_together(scope: str, same: bool) -> None:
    lamp, norm = (coarse(importance=name, scope=scope) for name in ("lamp", "magnitude_l2"))
    assert (ids(lamp) == ids(norm)) == (lamp == norm) == same
    assert lamp.columns()[n.IMPORTANCE] == ("magnitude_l2" if same else "lamp")


@pytest.mark.parametrize(("schedule", "changed"), WITHOUT_EFFECT)
def test_settings_without_effect_leave_the_address(schedule: Schedule, changed: dict[str, Any]) -> None:
    assert ids(schedule) == ids(schedule, changed)


@pytest.mark.parametrize(("schedule", "changed"), WITH_EFFECT)
def test_settings_with_effect_change_the_address(schedule: Schedule, changed: dict[str, Any]) -> None:
    assert not set(ids(schedule)) & set(ids(schedule, changed))


@pytest.mark.parametrize("importance", CHANNEL_IMPORTANCES)
def test_score_images_count_for_structured_scores_that_see_data(importance: str) -> None:
    schedule = coarse(importance=importance)
    assert (ids(schedule) != ids(schedule, {"score_images": 7})) is (importance in {"taylor", "hessian", "activation"})


def test_weight_rewinding_has_no_epochs_of_its_own_and_no_retraining_has_no_kind() -> None:
    assert ids(fine(retrain="weight_rewind", fine_tune_epochs=1)) == ids(fine(retrain="weight_rewind", fine_tune_epochs=9))
    assert ids(fine(retrain="fine_tune", fine_tune_epochs=0)) == ids(fine(retrain="lr_rewind", fine_tune_epochs=0))
    assert ids(fine(retrain="weight_rewind")) != ids(fine(retrain="lr_rewind", fine_tune_epochs=0))
    assert ids(fine(retrain="recalibrate", fine_tune_epochs=1)) == ids(fine(retrain="recalibrate", fine_tune_epochs=9))


def test_regularised_training_is_shared_by_importances_and_ratios() -> None:
    def first(**fields: Any) -> Node:
        return MethodSettings().chain(ROOT, coarse(pruner="group_norm", **fields))[0]

    base = first(sparse_epochs=2)
    assert base.parent is not None
    for other in (first(sparse_epochs=2, importance="random"), first(sparse_epochs=2, step_ratio=0.7)):
        assert other.parent is not None
        assert other.parent.id == base.parent.id
        assert other.id != base.id
    assert base.step_parent is ROOT
    assert base.root is ROOT


def test_only_the_pruners_own_strength_counts() -> None:
    group_norm, growing = (coarse(pruner=name, sparse_epochs=1) for name in ("group_norm", "growing_reg"))
    assert ids(group_norm) == ids(group_norm, regularisation={"growing_reg_delta": 0.5, "bn_scale": 0.5})
    assert ids(group_norm) != ids(group_norm, regularisation={"group_norm": 0.5})
    assert ids(growing) != ids(growing, regularisation={"growing_reg_delta": 0.5})
    assert ids(coarse()) == ids(coarse(), regularisation={"group_norm": 0.5, "learning_rate": 0.5})


def test_a_rate_is_part_of_the_address_only_where_it_differs_from_the_study_s() -> None:
    usual = RetrainSettings()
    same = fine(fine_tune_lr=usual.model_dump()["learning_rate"], fine_tune_decay=usual.model_dump()["decay"])
    assert ids(same) == ids(fine())
    assert ids(fine(fine_tune_lr=0.1)) == ids(fine(), {"learning_rate": 0.1}) != ids(fine())
    assert ids(coarse(fine_tune_decay="constant")) == ids(coarse(), {"decay": "constant"})


def test_a_mixed_schedule_begins_as_a_structured_one_and_goes_on_with_weights() -> None:
    schedule = mixed(channel_ratio=0.4, channel_steps=2, steps=5, channel_importance="fpgm")
    structured = coarse(step_ratio=0.4, steps=2, importance="fpgm")
    assert schedule.targets() == [400_000, 640_000, 300_000, 510_000, 657_000]
    assert ids(schedule)[:2] == ids(structured) and len(set(ids(schedule))) == 5
    assert not set(ids(schedule)) & set(ids(fine()))
    for steps in range(1, 5):
        beginning = mixed(channel_ratio=0.4, channel_steps=2, steps=steps, channel_importance="fpgm")
        assert ids(beginning) == ids(schedule)[:steps]
    assert mixed(channel_ratio=0.4, channel_steps=3, steps=4, channel_importance="fpgm").parts[0].steps == 3
    assert ids(mixed(levels=(0.3, 0.51), step_ratio=None, steps=3)) == ids(mixed())
    assert MixedSchedule(levels=(0.5,), channel_steps=2).steps == 3
    lost = [-math.log2(0.6), -math.log2(0.36)]
    more = [2 * lost[1] - k * math.log2(0.7) for k in (1, 2, 3)]
    assert schedule.halvings() == pytest.approx([*lost, *more])


def test_a_mixed_schedule_tells_of_each_step_how_its_network_was_made() -> None:
    schedule = mixed(channel_ratio=0.4, scope="lamp", round_to=2, fine_tune_lr=0.1)
    first, then = schedule.columns_at(1), schedule.columns_at(2)
    assert first == coarse(step_ratio=0.4, steps=1, round_to=2, fine_tune_lr=0.1).columns()
    assert [then[name] for name in (n.FAMILY, n.IMPORTANCE, n.SCOPE, n.PRUNER, n.STEP_RATIO, n.STEPS)] == [
        "mixed", "magnitude", "lamp", None, 0.3, 3,
    ]  # fmt: skip
    assert [then[name] for name in (n.CHANNEL_IMPORTANCE, n.CHANNEL_SCOPE, n.CHANNEL_RATIO, n.CHANNEL_STEPS)] == [
        "magnitude_l2", "local", 0.4, 1,
    ]  # fmt: skip
    told = recipe({**then, n.STEP: 3, n.FINE_TUNE_EPOCHS: 2})
    assert told == (
        "magnitude_l2, local, widths in multiples of 2, one cut of 40% of the channels; then magnitude, lamp; "
        "2 cuts of 30% each of the weights; 2 epochs of fine-tuning after each"
    )


def test_channels_are_not_cut_after_weights() -> None:
    below = MethodSettings().chain(ROOT, fine())[-1]
    for schedule in (coarse(), mixed()):
        with pytest.raises(InputError, match="cut the channels first"):
            MethodSettings().chain(below, schedule)
    assert MethodSettings().chain(MethodSettings().chain(ROOT, coarse())[-1], fine())


def test_seeds_of_random_draws_come_from_the_address() -> None:
    nodes = MethodSettings().chain(ROOT, fine())
    again = MethodSettings().chain(Node(None, dict(ROOT.settings)), fine())
    assert [node.seed for node in nodes] == [node.seed for node in again]
    assert len({node.seed for node in nodes}) == 3
    assert all(0 <= node.seed < 2**63 for node in nodes)


def test_the_dense_address_depends_on_all_that_made_it(problem: MakeProblem) -> None:
    roots = [
        problem().root(0), problem().root(1), problem(width=5).root(0), problem(precision="bf16").root(0),
        problem(threads=2).root(0), problem(dense={"epochs": 3}).root(0), problem(dense={"momentum": 0.8}).root(0),
        problem(dense={"threads": 2}).root(0), problem("resnet20").root(0),
    ]  # fmt: skip
    assert len({root.id for root in roots}) == len(roots)
    assert problem().root(0).id == problem(retrain=RetrainSettings(learning_rate=0.5)).root(0).id


def test_the_address_of_a_checkpoint_leaves_out_how_dense_networks_are_trained(problem: MakeProblem, tmp_path: Any) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"any")
    model = ModelSettings(name="cnn", arguments={"width": 4}, checkpoint=str(file))
    address = problem(model=model).root(0).id
    assert address == problem(model=model, dense={"epochs": 9, "learning_rate": 0.7, "warmup": 0.1}).root(0).id
    assert address != problem(model=model, dense={"batch_size": 64}).root(0).id
    file.write_bytes(b"other")
    assert address != problem(model=model).root(0).id


IMPOSSIBLE: list[tuple[type[Schedule], dict[str, Any], str]] = [
    (UnstructuredSchedule, {}, "step_ratio"),
    (UnstructuredSchedule, {"schedule": "geometric", "steps": 3}, "step_ratio"),
    (UnstructuredSchedule, {"schedule": "linear", "steps": 3}, "sparsity"),
    (UnstructuredSchedule, {"schedule": "cubic", "step_ratio": 0.3}, "sparsity"),
    (UnstructuredSchedule, {"schedule": "explicit"}, "levels"),
    (UnstructuredSchedule, {"levels": [0.5, 0.5]}, "rising"),
    (UnstructuredSchedule, {"levels": [0.5, 0.4]}, "rising"),
    (UnstructuredSchedule, {"levels": [0.5, 1.0]}, "less than 1"),
    (UnstructuredSchedule, {"levels": 0.5}, "levels"),
    (UnstructuredSchedule, {"levels": [0.5, 0.0]}, "rising"),
    (UnstructuredSchedule, {"levels": [1e-9]}, "less than a millionth"),
    (UnstructuredSchedule, {"levels": [0.0], "fine_tune_epochs": 0}, "give epochs"),
    (StructuredSchedule, {"step_ratio": 0.3, "strength": 0}, "no penalty"),
    (UnstructuredSchedule, {"levels": []}, "levels"),
    (UnstructuredSchedule, {"schedule": "explicit", "levels": [0.2, 0.5], "steps": 3}, "leave `steps` out"),
    (UnstructuredSchedule, {"levels": [0.2, 0.5], "steps": 3}, "leave `steps` out"),
    (UnstructuredSchedule, {"step_ratio": 0.98, "steps": 12}, "fewer steps"),
    (UnstructuredSchedule, {"step_ratio": 1.0}, "step_ratio"),
    (UnstructuredSchedule, {"step_ratio": 0.0}, "step_ratio"),
    (UnstructuredSchedule, {"step_ratio": 1e-17}, "greater than or equal to 0.000001"),
    (UnstructuredSchedule, {"step_ratio": 0.5, "steps": 10**9}, "less than or equal to 1000"),
    (UnstructuredSchedule, {"schedule": "linear", "sparsity": 1e-6, "steps": 3}, "fewer steps"),
    (UnstructuredSchedule, {"step_ratio": math.nan}, "step_ratio"),
    (UnstructuredSchedule, {"step_ratio": 0.3, "steps": 0}, "steps"),
    (UnstructuredSchedule, {"step_ratio": 0.3, "importance": "magnitud"}, "did you mean 'magnitude'"),
    (UnstructuredSchedule, {"step_ratio": 0.3, "pruner": "base"}, "pruner"),
    (StructuredSchedule, {"step_ratio": 0.3, "retrain": "weight_rewind"}, "weight_rewind"),
    (StructuredSchedule, {"step_ratio": 0.3, "sparse_epochs": 1}, "sparse_epochs"),
    (StructuredSchedule, {"step_ratio": 0.3, "pruner": "group_norm"}, "sparse_epochs"),
    (StructuredSchedule, {"step_ratio": 0.3, "pruner": "bn_scale", "sparse_epochs": 0}, "sparse_epochs"),
    (StructuredSchedule, {"step_ratio": 0.3, "scope": "layerwise"}, "local"),
    (UnstructuredSchedule, {"step_ratio": 0.3, "retrain": "lr_rewind", "fine_tune_lr": 0.1}, "has no fine_tune_lr"),
    (UnstructuredSchedule, {"step_ratio": 0.3, "retrain": "recalibrate", "fine_tune_decay": "linear"}, "leave it out"),
    (UnstructuredSchedule, {"step_ratio": 0.3, "fine_tune_lr": 0}, "fine_tune_lr"),
    (MixedSchedule, {"channel_ratio": 0.3}, "step_ratio"),
    (MixedSchedule, {"step_ratio": 0.3, "retrain": "weight_rewind"}, "weight_rewind"),
    (MixedSchedule, {"step_ratio": 0.3, "channel_steps": 0}, "channel_steps"),
    (MixedSchedule, {"step_ratio": 0.3, "channel_ratio": 0.9, "channel_steps": 12, "steps": 13}, "fewer channel_steps"),
    (MixedSchedule, {"step_ratio": 0.3, "scope": "2:4"}, "use step_ratio 0.5"),
    (MixedSchedule, {"levels": [0.5, 0.7], "steps": 2}, "leave `steps` out"),
]


@pytest.mark.parametrize(("kind", "fields", "told"), IMPOSSIBLE)
def test_impossible_schedules_are_refused_in_one_line(kind: type[Schedule], fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error:
        parse(kind, fields, "here")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_levels_alone_tell_the_steps() -> None:
    assert UnstructuredSchedule(levels=[0.2, 0.5]).steps == 2
    assert UnstructuredSchedule(schedule="explicit", levels=[0.2, 0.5]).steps == 2
    written = UnstructuredSchedule(levels=[0.2, 0.5]).model_dump()
    assert UnstructuredSchedule(**written).targets() == [200_000, 500_000]


@pytest.mark.parametrize("retrain", RETRAININGS)
def test_columns_describe_the_schedule(retrain: str) -> None:
    schedule = fine(retrain=retrain, importance="taylor", scope="layerwise", fine_tune_epochs=2, seed=3)
    told = schedule.columns()
    assert told == {
        "family": "unstructured", "importance": "taylor", "pruner": None, "scope": "layerwise", "schedule": "geometric",
        "step_ratio": 0.3, "steps": 3, "fine_tune_epochs": 2, "sparse_epochs": 0, "strength": None, "round_to": None,
        "retrain": retrain, "seed": 3, "fine_tune_lr": None, "fine_tune_decay": None, "channel_importance": None,
        "channel_scope": None, "channel_ratio": None, "channel_steps": None,
    }  # fmt: skip
    other = coarse(pruner="bn_scale", sparse_epochs=2, round_to=4).columns()
    assert other.keys() == told.keys()
    assert (other["pruner"], other["sparse_epochs"], other["round_to"]) == ("bn_scale", 2, 4)


def test_dense_recipes_are_checked_against_rewinding(problem: MakeProblem) -> None:
    made = problem(dense={"epochs": 2, "rewind_epoch": 1})
    made.check(fine(retrain="lr_rewind", fine_tune_epochs=2))
    made.check(fine(retrain="weight_rewind"))
    with pytest.raises(InputError, match="fine_tune_epochs"):
        made.check(fine(retrain="lr_rewind", fine_tune_epochs=3))
    with pytest.raises(InputError, match="rewind_epoch"):
        problem(dense={"epochs": 2, "rewind_epoch": 2}).check(fine(retrain="weight_rewind"))
    assert DenseSettings().rewind_epoch < DenseSettings().epochs


def test_all_importances_are_spelled_in_the_schedule() -> None:
    assert [fine(importance=name).importance for name in WEIGHT_IMPORTANCES] == list(WEIGHT_IMPORTANCES)
    assert [coarse(importance=name, scope="global").importance for name in CHANNEL_IMPORTANCES] == list(CHANNEL_IMPORTANCES)
