"""The gate and its oracle: any network is cut right, or the layers that can't be are named and stay whole."""

from __future__ import annotations

import copy
import itertools
import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from tests import odd_networks
from tests.conftest import MakeProblem, digits_problem
from trainables import steps
from trainables.data.dataset import DataSettings, load
from trainables.networks import oracle
from trainables.networks.anatomy import Anatomy, Removed, groups_in, leader, member, survey, trace, widths
from trainables.networks.architectures import MODELS
from trainables.networks.factory import ModelSettings, build
from trainables.networks.limits import Wishes
from trainables.networks.network import Network, decode, encode
from trainables.networks.running import copied, evaluating
from trainables.problem import Problem
from trainables.pruning import compatibility, gates
from trainables.pruning import gate as gate_module
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.channels import cut_by
from trainables.pruning.gate import Gate, gate, refuse_weights
from trainables.pruning.pruners import PRUNERS
from trainables.records.names import InputError
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.training.loop import DenseSettings

DIGIT = (1, 8, 8)
CUT_WHOLE = {
    "auxiliary", "several_outputs", "head_first", "shuffled", "grouped_shuffle", "crossed_split", "gated_halves",
    "concatenated", "other_norms", "parallel", "pixel_shuffle", "weight_norm", "spectral_norm", "old_weight_norm",
    "conv1d", "conv3d", "lstm", "transposed", "grouped", "depthwise", "group_norm", "one_channel", "squeeze",
    "versioned", "residual", "attention", "own_attention",
    "attention_of_three", "attention_by_chunks", "attention_of_fixed_width", "encoder_layer", "vision_transformer",
    "shifted_windows", "positions", "flattened", "norms_by_hand", "blurred", "attention_of_maps",
    "class_token", "split_stream", "ghost", "lazy", "own_constant", "forgetful",
    "keeps_features", "spaced_names", "frozen_statistics", "named_inputs",
    "viewed", "squeezed", "double_inside", "tells_features", "rms_norm", "glu",
    "pooled_pairs", "averaged_shortcut", "compiled", "compiled_whole", "two_tasks",
}  # fmt: skip
"""Of which nothing is protected."""
PROTECTED = {
    "padded_shortcut": ({"body.0.0"}, "another network's"),
    "concatenated_zeros": ({"body.0.0"}, ""),
    "fused_qkv": ({"qkv"}, "shape"),
    "crossed_attention": ({"a.0"}, ""),
    "attention_of_two_scales": ({"body.1.qkv"}, "loses track of its channels"),
    "fixed_scale": ({"body.1.c.0"}, "[1, 20, 1, 1]"),
    "fixed_view": ({"body.1.0"}, ""),
    "gru": ({"b.0"}, ""),
    "frozen_stem": ({"body.1.0"}, "body.2.0 is frozen"),
    "tied": ({"body.1.0"}, "one parameter"),
    "joined_norm": ({"body.1.a", "body.1.b"}, "body.2 normalises its channels with others"),
    "norm_of_halves": ({"body.1.c"}, "body.2 normalises its channels with others"),
    "begins_with_nothing": ({"body.1.c"}, "another network's"),
    "learned_queries": ({"down"}, "shapes"),
    "faint_branch": ({"body.1.a"}, "another network's"),
    "behind_a_threshold": ({"body.1.c"}, "another network's"),
    "other_order_in_training": ({"a.0"}, "another network's"),
    "half_zero": ({"body.1.c.0"}, "another network's"),
    "shortcut_by_width": ({"body.3.c.0", "body.4.c.0"}, "another network's"),
    "tokens_as_channels": ({"a.mix", "b.mix"}, "must match the size"),
    "two_halves_by_view": ({"body.0.0"}, "shape"),
    "split_attention": ({"body.1.up"}, "shape"),
    "seen_by_means": ({"body.0.0"}, "loses track of its channels"),
}
"""Of which at least these lead what is protected, with words of a reason."""
NONE_LEFT = "no channel can go"
REFUSED = {
    "frozen": NONE_LEFT, "nothing_to_cut": NONE_LEFT, "cells": NONE_LEFT,
    "experts": "which layers run depends on the images", "exits_early": "which layers run depends on the images",
    "layers_in_a_list": "values that its state dict doesn't have",
    "fails_in_training": "it can't be trained, before anything is removed",
    "hooked": "holds on to the network", "closure_over_itself": "holds on to the network",
}  # fmt: skip
SITUATIONS = [
    name
    for name, made in vars(odd_networks).items()
    if callable(made) and getattr(made, "__annotations__", {}).get("num_classes") and name != "hungry"
]


def factory(name: str) -> Any:
    settings = ModelSettings(name=f"tests.odd_networks:{name}")
    return lambda: build(settings, 10, DIGIT, trusted=True, check=False)


@cache
def looked_at(name: str) -> Gate:
    return gate(factory(name), DIGIT, 10, Wishes())


def random_cut(model: nn.Module, anatomy: Anatomy, scope: str, removed_ppm: int, seed: int = 5) -> Removed:
    importance = tp.importance.RandomImportance()
    return cut_by(model, anatomy, importance, CHANNEL_SCOPES.make(scope), removed_ppm, 1, seed)


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_passes_the_gate_is_cut_right_whatever_the_draw(name: str) -> None:
    found = looked_at(name)
    if name in REFUSED:
        assert REFUSED[name] in str(found.refused)
        return
    assert found.refused is None
    assert (name not in CUT_WHOLE) or not found.protected | found.fixed
    leaders, words = PROTECTED.get(name, (set(), ""))
    assert leaders <= set(found.protected)
    assert words in " ".join(found.protected.values())
    torch.manual_seed(1)
    dense = factory(name)()
    anatomy = found.anatomy(survey(dense, DIGIT))
    for scope in ("local", "global"):
        model, removed = copied(dense), []
        for seed, removed_ppm in enumerate((150_000, 600_000, 850_000, 950_000)):  # grouped convolutions become depthwise
            removed = removed + random_cut(model, anatomy, scope, removed_ppm, seed)
            assert oracle.compare(dense, removed, anatomy, seed) < oracle.EXACT
            gate_module.train_a_step(copied(model), anatomy, 10)
            stored = decode(encode(Network(model, {}, removed)), factory(name), anatomy).model
            inputs = torch.randn(3, *DIGIT)
            torch.testing.assert_close(evaluating(stored)(inputs), evaluating(model)(inputs))
            assert stored(inputs).shape == (3, 10)
    assert widths(model) != widths(dense)


@pytest.mark.parametrize(("kind", "fixed"), [("norm", True), ("mean", False)])
def test_layers_by_hand_have_one_network_s_means_if_they_keep_the_channels(kind: str, fixed: bool) -> None:
    """Six of eight channels, the others zero: what both normalise by differs, and so does the mean that is put out."""
    whole, cut = (nn.Sequential(odd_networks.NormByHand(width, 1) if fixed else odd_networks.Mean()) for width in (8, 6))
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    x[:, 6:] = 0
    plain = whole(x)[:, :6]
    with oracle.FixedStatistics() as first, first.watching(cut):
        one = cut(x[:, :6])
    with oracle.FixedStatistics(first.taken) as second, second.watching(whole):
        other = whole(x)[:, :6]
    assert not first.acted and second.acted == fixed
    torch.testing.assert_close(other, one if fixed else plain)
    assert not torch.allclose(plain, one)


def test_of_filters_by_channel_a_single_one_may_be_left() -> None:
    assert looked_at("blurred").floors == {}
    dense = factory("blurred")()
    anatomy, model = survey(dense, DIGIT), copied(dense)
    removed: Removed = []
    for removed_ppm in (900_000, 999_999):  # one of the three has a single one before the others
        removed += random_cut(model, anatomy, "local", removed_ppm)
    assert {len(one.filt) for one in model.modules() if isinstance(one, odd_networks.Blur)} == {1}
    assert oracle.compare(dense, removed, anatomy) < oracle.EXACT


def test_blocks_that_repeat_are_narrowed_down_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x + m.b(m.a(x) * m.g.view(1, 20, 1, 1))

    def make() -> nn.Module:
        layers = {"a": odd_networks.block(12, 20), "b": odd_networks.block(20, 12)}
        blocks = [odd_networks.Module(fixed, g=nn.Parameter(torch.ones(20)), **copy.deepcopy(layers)) for _ in range(6)]
        return odd_networks.Net(10, 12, odd_networks.block(1, 12), *blocks)

    tries: list[Any] = []
    first = gate_module._Trial._try
    monkeypatch.setattr(gate_module._Trial, "_try", lambda self, *given: tries.append(given) or first(self, *given))
    assert set(gate(make, DIGIT, 10, Wishes()).protected) == {f"body.{i}.a.0" for i in range(1, 7)}
    narrowing, others, rest = 3, 3, 10  # of 7 groups by halves; three of the other blocks alone; the cuts that are right
    assert len(tries) == 1 + narrowing + others + rest


CLINGING = ("hooked", "closure_over_itself")
"""Networks that copies of them hold on to, which are told before they are surveyed."""


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name not in ("frozen", *CLINGING)])
def test_single_weights_of_every_such_network_can_go(name: str, problem: MakeProblem) -> None:
    made, bad = factory(name), name in ("layers_in_a_list", "fails_in_training")
    assert (refuse_weights(made, survey(made(), DIGIT), 10, {}) is not None) is bad


@pytest.mark.parametrize("family", ["unstructured", "structured"])
@pytest.mark.parametrize("name", CLINGING)
def test_a_network_that_its_copies_hold_on_to_is_refused(name: str, family: str) -> None:
    found = gates._look(ModelSettings(name=f"tests.odd_networks:{name}"), 10, DIGIT, True, family)
    assert "holds on to the network" in str(found.refused)


def test_a_layer_of_one_channel_that_holds_others_back_is_told_with_them() -> None:
    protected = looked_at("attention_along_channels").protected
    assert protected.keys() == {"body.1.along", "body.0.0", "body.1.c.1"}


def test_drawn_layers_put_out_values_of_unit_size_however_deep_the_network() -> None:
    blocks = [odd_networks.Module(lambda m, x: x + F.silu(m.c(x)), c=nn.Conv2d(12, 12, 3, padding=1)) for _ in range(30)]
    model = evaluating(odd_networks.Net(10, 12, odd_networks.block(1, 12), *blocks).double())
    inputs = torch.randn(2, *DIGIT, dtype=torch.float64)
    sizes: list[float] = []
    with torch.no_grad():
        oracle._draw(model, torch.Generator().manual_seed(0), weights=True)
        oracle._scale(model, inputs)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(lambda _, __, output: sizes.append(float(output.square().mean().sqrt())))
        model(inputs)
    assert sizes == pytest.approx([1.0] * 32)


def test_colours_that_keep_channels_of_their_own_are_never_cut_below_one_each() -> None:
    def make() -> nn.Module:
        first = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1, groups=3), nn.BatchNorm2d(12), nn.ReLU())
        return odd_networks.Net(10, 14, first, odd_networks.block(12, 16, 1), odd_networks.block(16, 14))

    shape = (3, 8, 8)
    dense = make()
    anatomy = gate(make, shape, 10, Wishes()).anatomy(survey(dense, shape))
    model, removed = copied(dense), []
    for seed, removed_ppm in enumerate((600_000, 850_000, 950_000, 999_999)):
        removed = removed + random_cut(model, anatomy, "local", removed_ppm, seed)
        assert oracle.compare(dense, removed, anatomy) < oracle.EXACT


def test_a_layer_that_never_runs_is_told_as_such() -> None:
    assert looked_at("runs_nothing").fixed == {"projector": "no image passes through it"}


def test_a_step_compares_its_cut_with_the_network_before_it() -> None:
    settings = ModelSettings(name="tests.odd_networks:shortcut_by_width")
    bad = Problem(load(DataSettings()), model=settings, dense=DenseSettings(epochs=1, threads=1), trusted=True)
    bad.__dict__["gate"] = replace(bad.gate, protected={"body.1.c.0": ""})  # as if it hadn't come upon these widths
    node = bad.chain(StructuredSchedule(importance="random", step_ratio=0.29, steps=1))[-1]
    with pytest.raises(oracle.WrongCutError, match="a cut of 29 % of the channels is wrong: outputs are another network's"):
        steps.cut(Network(bad.build()), node, bad)  # 14 channels become as many as the 10 before them


def test_the_oracle_sees_channels_that_are_paired_wrongly() -> None:
    dense = factory("padded_shortcut")()
    anatomy = survey(dense, DIGIT)
    # As many channels go before the padding as after it, so that all shapes fit.
    removed: Removed = [("body.0.0", True, [0, 3, 5])]
    with pytest.raises(oracle.WrongCutError):
        oracle.compare(dense, removed, anatomy)
    assert oracle.compare(dense, [("body.2.0", True, [0, 3, 5])], anatomy) < oracle.EXACT


def test_survivors_are_the_flat_indices_of_what_is_left() -> None:
    dense = factory("flattened")()
    left = oracle.survivors(dense, [("2.0", True, [1, 7])], survey(dense, DIGIT))
    kept = [i for i in range(12) if i not in {1, 7}]
    assert left["2.0.weight"].shape == (10, 10, 3, 3)
    assert left["2.1.running_var"].tolist() == kept
    assert left["4.weight"][0].tolist() == [16 * i + j for i in kept for j in range(16)]
    assert left["6.weight"].flatten().tolist() == list(range(240))


def test_statistics_over_channels_are_no_difference() -> None:
    dense = factory("group_norm")()
    anatomy = survey(dense, DIGIT)
    cut = copy.deepcopy(dense)
    removed = random_cut(cut, anatomy, "local", 500_000)
    assert oracle.compare(dense, removed, anatomy) < oracle.EXACT


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [1, 5])
def test_nothing_of_the_networks_of_the_literature_is_protected(name: str, width: int) -> None:
    found = digits_problem(name, width).gate
    assert not found.protected
    assert not found.fixed
    assert not found.moved
    assert (found.outputs, found.weights, found.told()) == (("classifier",), 0.0, [])


def test_the_gate_draws_nothing_and_says_the_same_every_time() -> None:
    states = [torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()]  # type: ignore[index]
    one, other = (gate(factory("tied"), DIGIT, 10, Wishes()) for _ in range(2))
    assert one == other
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[index]
    assert states[2] == random.getstate()


@pytest.mark.parametrize("name", ["auxiliary", "several_outputs", "head_first"])
def test_the_layers_that_make_the_logits_keep_their_outputs(name: str) -> None:
    found = looked_at(name)
    assert set(found.outputs) == ({"head"} if name == "head_first" else {"head", "second"})
    assert found.moved


def test_heads_go_whole_and_the_width_between_attentions_channel_by_channel() -> None:
    dense = factory("vision_transformer")()
    anatomy = looked_at("vision_transformer").anatomy(survey(dense, DIGIT))
    removed = random_cut(copy.deepcopy(dense), anatomy, "local", 200_000)
    gone = {name: indices for name, _, indices in removed}
    heads = [name for name in gone if name.endswith("self_attention")]
    assert [len(gone[name]) for name in heads] == [8, 8]  # one of three
    assert all(gone[name][0] % 8 == 0 for name in heads)
    between = next(indices for name, indices in gone.items() if len(indices) == 5)
    assert len({later - earlier for earlier, later in itertools.pairwise(between)}) > 1


TOGETHER = {"grouped": 8, "group_norm": 6, "vision_transformer": 8, "attention": 8, "ghost": 4}
"""Channels that go at once at most: one of each group, a head's, or what two copies of one hang on."""
COUPLED = {"residual": 3, "depthwise": 2, "squeeze": 2}
"""Layers that lose a channel together, where no layer loses so many at once."""


@pytest.mark.parametrize("removed_ppm", [200_000, 500_000, 800_000])
@pytest.mark.parametrize("name", ["flattened", *TOGETHER, *COUPLED])
def test_what_is_achieved_is_within_a_step_of_what_is_asked(name: str, removed_ppm: int) -> None:
    dense = factory(name)()
    anatomy = looked_at(name).anatomy(survey(dense, DIGIT))
    layers, together = anatomy.widths.keys() - {*anatomy.keep}, TOGETHER.get(name, 1)
    local, over_all = copy.deepcopy(dense), copy.deepcopy(dense)
    random_cut(local, anatomy, "local", removed_ppm)
    for layer, now in widths(local).items():
        share = max(together, anatomy.widths[layer] * (1 - removed_ppm / 1e6))
        assert layer in anatomy.keep or abs(now - share) <= together / 2 + 1e-9
    random_cut(over_all, anatomy, "global", removed_ppm)
    total, left = (
        sum(width for layer, width in found.items() if layer in layers) for found in (anatomy.widths, widths(over_all))
    )
    assert abs(left - round(total * (1 - removed_ppm / 1e6))) <= TOGETHER.get(name, COUPLED.get(name, 1)) / 2 + 1e-9
    assert anatomy.channel_sparsity(over_all) == pytest.approx(1 - left / total)


def test_a_global_cut_makes_up_for_what_stays() -> None:
    dense = factory("residual")()
    anatomy = replace(survey(dense, DIGIT), protected=("body.0.0",))
    model = copy.deepcopy(dense)
    random_cut(model, anatomy, "global", 300_000)
    assert widths(model)["body.1.c.1.0"] == 16
    assert anatomy.channels(model) == (80, 56)
    random_cut(model, anatomy, "global", 900_000)  # as nearly as can be
    assert anatomy.channels(model) == (80, 50)


def test_all_layers_that_stay_with_one_that_is_kept_count_as_whole() -> None:
    found = gate(factory("residual"), DIGIT, 10, Wishes(keep=("body.1.c.1.0",)))
    sizes = {"body.0.0": 9 * 16, "body.1.c.0.0": 9 * 16 * 20, "body.1.c.1.0": 9 * 16 * 20}
    sizes |= {"body.2.c.0.0": 9 * 16 * 12, "body.2.c.1.0": 9 * 16 * 12, "head": 160}
    # All but the layer that no other hangs on: what goes into the one that is kept stays too.
    locked = sum(size for name, size in sizes.items() if name not in {"body.2.c.0.0", "head"})
    assert found.weights == pytest.approx(locked / sum(sizes.values()), abs=1e-4)
    assert found.macs == pytest.approx(64 * locked / (64 * (sum(sizes.values()) - 160) + 160), abs=1e-4)


@pytest.mark.parametrize("scope", CHANNEL_SCOPES)
@pytest.mark.parametrize("name", ["shuffled", "crossed_split", "gated_halves", "pixel_shuffle"])
def test_moved_channels_go_as_asked(name: str, scope: str) -> None:
    dense = factory(name)()
    anatomy = survey(dense, DIGIT)
    total = sum(width for layer, width in anatomy.widths.items() if layer not in anatomy.keep)
    for removed_ppm in (200_000, 300_000, 500_000):
        model = copy.deepcopy(dense)
        random_cut(model, anatomy, scope, removed_ppm)
        assert anatomy.channel_sparsity(model) == pytest.approx(removed_ppm / 1e6, abs=8 / total)


def test_a_shuffled_network_is_cut_by_every_importance_and_trained_by_every_pruner() -> None:
    made = replace(digits_problem("cnn", 4), model=ModelSettings(name="tests.odd_networks:shuffled"), trusted=True)
    found = compatibility.refusals(made, CHANNEL_IMPORTANCES, PRUNERS)
    assert not found["importance"]
    assert not found["pruner"]


def test_a_layer_that_takes_some_of_a_family_s_channels_is_scored_by_them() -> None:
    dense = factory("shuffled")()
    anatomy = survey(dense, DIGIT)
    graph = trace(dense, anatomy)
    group = next(some for some in groups_in(graph, dense, anatomy) if leader(some) == "body.0.0")
    taken = {member(item): (item.idxs, item.root_idxs) for item in group}
    # The second half goes to the first unit's layers; of the first, each second place of the shuffle goes on.
    assert taken["body.1.c.0.0"] == (list(range(12)), list(range(12, 24)))
    assert taken["body.2.c.0.0"] == ([0, 2, 4, 6, 8, 10], [6, 7, 8, 9, 10, 11])


def test_shared_layers_are_stored_and_counted_once(problem: MakeProblem) -> None:
    for name in ("tied", "two_names"):
        model = factory(name)()
        single = {id(p): p.numel() for p in model.parameters()}
        stored = encode(Network(model))
        assert len(stored) < 4 * sum(single.values()) + 4000
        again = decode(stored, factory(name), survey(model, DIGIT)).model
        assert len({id(p) for p in again.parameters()}) == len(single)
        first, second = (again.get_parameter(f"body.{i}.0.weight") for i in (1, 2))
        assert first is second


def structured(made: Problem) -> dict[str, Any]:
    return dict(made.chain(StructuredSchedule(step_ratio=0.5))[0].settings)


def with_model(problem: MakeProblem, name: str = "cnn", **fields: Any) -> Problem:
    settings = ModelSettings(name=name, arguments={"width": 4} if name == "cnn" else {}, **fields)
    return problem(model=settings, trusted=True)


def test_limits_are_in_a_step_s_settings_where_there_are_any(problem: MakeProblem) -> None:
    plain, kept = with_model(problem), with_model(problem, keep=("features.3",))
    assert not {"protected", "floors", "outputs", "spared"} & set(structured(plain))
    assert structured(kept)["protected"] == ["features.0", "features.3"]
    assert kept.root(0).id == plain.root(0).id
    weights = UnstructuredSchedule(step_ratio=0.5)
    assert "spared" not in plain.chain(weights)[0].settings
    assert kept.chain(weights)[0].settings["spared"] == {"features.3.weight": 0.0}
    floor = with_model(problem, least_channels=3)
    assert set(structured(floor)["floors"].values()) == {3}


@pytest.mark.parametrize("scope", CHANNEL_SCOPES)
def test_what_the_user_protects_stays(scope: str, problem: MakeProblem) -> None:
    fields: dict[str, Any] = {"keep": ("features.1*",), "max_sparsity": {"features.7": 0.25}, "least_channels": 2}
    made = with_model(problem, **fields)
    model = made.build()
    random_cut(model, made.anatomy, scope, 800_000)
    now, dense = widths(model), made.anatomy.widths
    assert all(now[name] == dense[name] for name in dense if name.startswith("features.1"))
    assert now["features.7"] == dense["features.7"] or now["features.7"] >= 0.75 * dense["features.7"]
    assert min(now.values()) >= 2
    assert now != dense


def test_an_unknown_pattern_is_refused_with_the_nearest(problem: MakeProblem) -> None:
    for fields in ({"keep": ("feature.3",)}, {"max_sparsity": {"feature.3": 0.5}}):
        with pytest.raises(InputError, match=r"features\.3"):
            _ = with_model(problem, **fields).gate


def test_a_process_of_its_own_gives_the_same_answer(problem: MakeProblem) -> None:
    made = with_model(problem, "tests.odd_networks:fixed_view")
    assert made.gate == looked_at("fixed_view")
    assert made.anatomy.protected == tuple(made.gate.protected)
