"""Masks: exact counts, the right weights, monotone, and held through training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import MakeProblem, state_of
from tests.conftest import cut_weights as cut
from trainables.data.dataset import Data
from trainables.networks.anatomy import prunable, weights
from trainables.networks.network import Masks
from trainables.pruning.masks import masking
from trainables.pruning.sample import Sample
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES
from trainables.schedule import UnstructuredSchedule
from trainables.training.loop import LearningRate, Recipe, fit
from trainables.tree import Tree, walk

ANY_SPARSITY = [name for name, scope in WEIGHT_SCOPES.items() if scope.only is None]
TARGETS = (300_000, 510_000, 657_001, 980_000)
RECIPE = Recipe(LearningRate((0.0, 3.0), (0.1, 0.1)), 0, 3, 128, 0.9, 5e-4, "fp32")


def fresh(problem: MakeProblem) -> nn.Module:
    torch.manual_seed(0)
    return problem().build()


def flat(masks: Masks) -> torch.Tensor:
    return torch.cat([mask.flatten() for mask in masks.values()])


@pytest.mark.parametrize("scope", ANY_SPARSITY)
@pytest.mark.parametrize("importance", WEIGHT_IMPORTANCES)
def test_counts_are_exact_and_a_removed_weight_stays_removed(
    importance: str, scope: str, problem: MakeProblem, data: Data
) -> None:
    model = fresh(problem)
    masks: Masks = {}
    for seed, target in enumerate(TARGETS):
        before, masks = masks, cut(model, masks, importance, scope, target, seed, data)
        assert list(masks) == [f"{name}.weight" for name in prunable(model)]
        parts = list(masks.values()) if scope == "layerwise" else [flat(masks)]
        assert [int((~part).sum()) for part in parts] == [round(part.numel() * target / 1e6) for part in parts]
        assert not any(bool((masks[name] & ~before[name]).any()) for name in before)


@pytest.mark.parametrize("importance", WEIGHT_IMPORTANCES)
def test_what_is_kept_scores_at_least_what_is_removed(importance: str, problem: MakeProblem, data: Data) -> None:
    model = fresh(problem)
    mask = flat(cut(model, {}, importance, "global", 500_000, data=data))
    score = torch.cat([w.detach().flatten().abs() for w in weights(model).values()])
    if importance == "taylor":
        torch.manual_seed(0)
        twin = problem().build().eval()
        images, labels = Sample(data, 0).images(64)
        F.cross_entropy(twin(images), labels).backward()
        score = torch.cat([(w * w.grad).detach().flatten().abs() for w in weights(twin).values()])
        assert score[mask].min() >= score[~mask].max() - 1e-6
    elif importance == "magnitude":
        assert score[mask].min() >= score[~mask].max()
    else:
        assert score[mask].min() < score[~mask].max(), "a random choice does not look at magnitudes"


def test_random_masks_come_from_the_seed_alone(problem: MakeProblem) -> None:
    model = fresh(problem)
    before = torch.get_rng_state()
    one, same, other = (flat(cut(model, {}, "random", "global", 500_000, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("scope", ANY_SPARSITY)
def test_counts_are_exact_among_ties(scope: str, problem: MakeProblem) -> None:
    model = problem().build()
    for weight in weights(model).values():
        nn.init.constant_(weight, 0.5)
    masks: Masks = {}
    for target in TARGETS:
        before, masks = masks, cut(model, masks, "magnitude", scope, target, seed=0)
        parts = list(masks.values()) if scope == "layerwise" else [flat(masks)]
        assert [int((~part).sum()) for part in parts] == [round(part.numel() * target / 1e6) for part in parts]
        assert not any(bool((masks[name] & ~before[name]).any()) for name in before)


@pytest.mark.parametrize("seed", range(3))
def test_weights_that_training_left_at_zero_go_after_those_already_removed(seed: int) -> None:
    model = nn.Sequential(nn.Linear(1000, 1, bias=False))
    nn.init.zeros_(weights(model)["0.weight"])
    kept = (torch.rand(1, 1000, generator=torch.Generator().manual_seed(seed)) < 0.7).logical_or(torch.arange(1000) < 400)
    before = {"0.weight": kept}
    mask = cut(model, before, "magnitude", "global", 500_000, seed=0)["0.weight"]
    assert int((~mask).sum()) == 500
    assert not (mask & ~kept).any()


def test_layerwise_leaves_the_same_share_everywhere_and_global_does_not(problem: MakeProblem) -> None:
    model = fresh(problem)
    with torch.no_grad():
        next(iter(weights(model).values())).mul_(100)
    shares = {
        scope: [float(mask.float().mean()) for mask in cut(model, {}, "magnitude", scope, 700_000, 0).values()]
        for scope in ("global", "layerwise")
    }
    assert shares["global"][0] == 1.0
    assert max(abs(share - 0.3) for share in shares["layerwise"]) < 0.02


def test_masks_survive_momentum_and_weight_decay(problem: MakeProblem, data: Data) -> None:
    model = fresh(problem)
    masks = cut(model, {}, "magnitude", "global", 800_000, seed=0)
    hold = masking(model, masks)
    hold(model)
    start = state_of(model)
    fit(model, data, RECIPE, seed=0, after_update=hold)
    for name, weight in weights(model).items():
        assert (weight[~masks[name]] == 0).all()
    assert any(not torch.equal(weight, start[name]) for name, weight in weights(model).items())


def test_without_the_hook_training_revives_what_was_removed(problem: MakeProblem, data: Data) -> None:
    model = fresh(problem)
    masks = cut(model, {}, "magnitude", "global", 800_000, seed=0)
    masking(model, masks)(model)
    fit(model, data, RECIPE, seed=0)
    assert any(bool((weight[~masks[name]] != 0).any()) for name, weight in weights(model).items())


def test_masks_follow_a_model_to_its_device_once(problem: MakeProblem, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh(problem)
    masks = cut(model, {}, "magnitude", "global", 800_000, seed=0)
    copies: list[torch.Tensor] = []
    to = torch.Tensor.to

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        moved = to(tensor, *args, **kwargs)
        if moved is not tensor:
            copies.append(moved)
        return moved

    monkeypatch.setattr(torch.Tensor, "to", counted)
    masking(model, masks)(model)
    assert not copies
    hold = masking(model.to("meta"), masks)  # another device, on every machine
    copies.clear()
    for _ in range(3):
        hold(model)
    assert [mask.device.type for mask in copies] == ["meta"] * len(masks)


def test_masking_touches_nothing_but_what_is_masked(problem: MakeProblem, data: Data) -> None:
    model = fresh(problem)
    before = state_of(model)
    masks = cut(model, {}, "magnitude", "global", 300_000, seed=0)
    masking(model, masks)(model)
    for name, tensor in model.state_dict().items():
        expected = before[name] * masks[name] if name in masks else before[name]
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("retrain", ["fine_tune", "lr_rewind", "weight_rewind"])
@pytest.mark.parametrize("scope", ANY_SPARSITY)
def test_stored_steps_are_nested_and_exactly_zero_where_masked(retrain: str, scope: str, tree: Tree) -> None:
    schedule = UnstructuredSchedule(step_ratio=0.5, steps=3, scope=scope, retrain=retrain, fine_tune_epochs=1)
    points = list(walk(schedule, tree))
    gone: dict[str, torch.Tensor] = {}
    for node, point in zip(tree.chain(schedule), points, strict=True):
        network = tree.network(node)
        for name, mask in network.masks.items():
            assert not (gone.get(name, torch.zeros_like(mask)) & mask).any()
            assert (network.model.state_dict()[name][~mask] == 0).all()
            gone[name] = ~mask
        total = sum(weight.numel() for weight in weights(network.model).values())
        assert point["sparsity"] == pytest.approx(sum(int((~m).sum()) for m in network.masks.values()) / total, abs=1e-12)
        roundings = len(network.masks) if scope == "layerwise" else 1
        assert abs(point["sparsity"] - point["requested_sparsity"]) * total <= roundings
