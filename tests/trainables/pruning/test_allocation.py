"""How scopes share out the weights that go among the layers: closed forms, exact counts, and what is spared."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trainables.networks.network import Masks, Network
from trainables.pruning import masks
from trainables.pruning.sample import Sample
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES, Erk, Lamp, TwoFour
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import parse_yaml
from trainables.schedule import UnstructuredSchedule
from trainables.settings import parse
from trainables.tree import Tree, walk

TARGETS = (300_000, 510_000, 657_001, 900_000, 980_000)
ALLOCATING = ("lamp", "erk")


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*layers)


def cut(model: nn.Module, before: Masks, scope: str, removed_ppm: int, spared: dict[str, float] | None = None) -> Masks:
    nothing: Sample = Sample(None, 0)  # type: ignore[arg-type]
    importance = WEIGHT_IMPORTANCES.make("magnitude")
    return masks.cut(Network(model, before), importance, WEIGHT_SCOPES.make(scope), removed_ppm, nothing, spared)


def kept(found: Masks) -> list[int]:
    return [int(mask.sum()) for mask in found.values()]


def test_lamp_scores_are_those_of_the_paper_by_hand() -> None:
    scores = Lamp().rescored({"a": torch.tensor([[3.0, 1.0], [2.0, 0.0]]), "b": torch.tensor([5.0, 12.0])})
    expected = {"a": [[1.0, 1 / 14], [4 / 13, 0.0]], "b": [25 / 169, 1.0]}
    for name, values in expected.items():
        torch.testing.assert_close(scores[name], torch.tensor(values, dtype=torch.float64))


def test_lamp_counts_neither_what_is_gone_nor_the_scale_of_a_layer() -> None:
    gone = Lamp().rescored({"a": torch.tensor([-1.0, 1.0, 2.0, -1.0])})["a"]
    torch.testing.assert_close(gone, torch.tensor([-1.0, 1 / 5, 1.0, -1.0], dtype=torch.float64))
    tiny = Lamp().rescored({"a": torch.tensor([1e-30, 2e-30]), "b": torch.zeros(3)})
    torch.testing.assert_close(tiny["a"], torch.tensor([1 / 5, 1.0], dtype=torch.float64))
    assert tiny["b"].tolist() == [0.0, 0.0, 0.0]


def erk_densities(shapes: list[tuple[int, ...]], removed: float) -> list[float]:
    """The densities as the paper has them: layers that would be denser than dense are dense, and the others make up."""
    sizes, whole = [math.prod(shape) for shape in shapes], set[int]()
    while True:
        others = [i for i in range(len(shapes)) if i not in whole]
        budget = (1 - removed) * sum(sizes) - sum(sizes[i] for i in whole)
        share = budget / sum(sum(shapes[i]) for i in others)
        full = {i for i in others if share * sum(shapes[i]) > sizes[i]}
        if not full:
            return [1.0 if i in whole else share * sum(shape) / sizes[i] for i, shape in enumerate(shapes)]
        whole |= full


@pytest.mark.parametrize("target", TARGETS)
def test_erk_keeps_of_each_layer_what_the_paper_says_to_the_weight(target: int) -> None:
    model = net()
    shapes = [tuple(layer.weight.shape) for layer in model if hasattr(layer, "weight")]
    densities = erk_densities(shapes, target / 1e6)
    found = cut(model, {}, "erk", target)
    for count, density, shape in zip(kept(found), densities, shapes, strict=True):
        assert abs(count - density * math.prod(shape)) <= 1
    if target == 300_000:
        assert densities[0] == densities[3] == 1 and found["0.weight"].all(), "small layers stay whole"


def test_within_a_layer_both_keep_the_largest() -> None:
    model = net()
    for scope in ALLOCATING:
        for name, mask in cut(model, {}, scope, 700_000).items():
            size = model.get_parameter(name).abs()
            assert not mask.any() or mask.all() or size[mask].min() >= size[~mask].max()


@pytest.mark.parametrize("scope", ALLOCATING)
def test_many_cuts_of_the_same_weights_are_one_cut(scope: str) -> None:
    """Nothing was retrained in between: what is left ranks as before, and a cut made again changes nothing."""
    model = net()
    found: Masks = {}
    for target in TARGETS:
        found = cut(model, found, scope, target)
        at_once, again = cut(model, {}, scope, target), cut(model, found, scope, target)
        for name, mask in found.items():
            assert torch.equal(mask, at_once[name]) and torch.equal(mask, again[name])


@pytest.mark.parametrize("scope", ALLOCATING)
def test_what_is_spared_stays_and_the_others_make_up_for_it(scope: str) -> None:
    model = net()
    total = sum(weight.numel() for weight in (layer.weight for layer in model if hasattr(layer, "weight")))
    found: Masks = {}
    for target in TARGETS:
        found = cut(model, found, scope, target, {"0.weight": 0.0, "2.weight": 0.4})
        sizes = {name: mask.numel() for name, mask in found.items()}
        assert found["0.weight"].all()
        least = math.ceil(0.6 * sizes["2.weight"] - 1e-9)
        assert int(found["2.weight"].sum()) >= least
        possible = sizes["0.weight"] + least
        assert sum(kept(found)) == max(possible, total - round(total * target / 1e6))
    limited: Tensor = found["2.weight"]
    size = model.get_parameter("2.weight").abs()
    assert size[limited].min() >= size[~limited].max()


def test_a_layer_keeps_at_least_its_best_weight_under_lamp() -> None:
    model = net()
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(1e-6)
    assert min(kept(cut(model, {}, "global", 980_000))) == 0
    assert min(kept(cut(model, {}, "lamp", 980_000))) >= 1


def test_erk_needs_no_more_than_the_shape_and_the_order() -> None:
    scores = Erk().rescored({"a": torch.tensor([[1.0, 3.0], [2.0, -1.0]])})["a"]
    torch.testing.assert_close(scores, torch.tensor([[4 / 2.5, 4 / 0.5], [4 / 1.5, -1.0]], dtype=torch.float64))


def test_two_of_four_consecutive_inputs_stay_at_each_place_of_a_kernel() -> None:
    model = net()
    for name, mask in cut(model, {}, "2:4", 500_000).items():
        size = model.get_parameter(name).detach().abs()
        flat, kept_flat = (some.movedim(1, -1).flatten(0, -2) for some in (size, mask))
        for start in range(0, flat.shape[1], 4):
            four, left = flat[:, start : start + 4], kept_flat[:, start : start + 4]
            assert bool((left.sum(1) == min(2, four.shape[1])).all())
            second = four.sort(dim=1, descending=True).values[:, min(2, four.shape[1]) - 1]
            assert torch.equal(left, four >= second[:, None])


def test_in_the_pattern_what_is_gone_stays_gone_and_a_limited_layer_stays_whole() -> None:
    model = net()
    before = {
        name: torch.ones_like(weight, dtype=torch.bool) for name, weight in model.named_parameters() if weight.dim() > 1
    }
    before["4.weight"][:, :3] = False
    found = cut(model, before, "2:4", 500_000, {"2.weight": 0.5})
    assert found["2.weight"].all() and not found["1.weight"].all()
    assert not any(bool((found[name] & ~mask).any()) for name, mask in before.items())
    assert set(found["4.weight"][:, :4].sum(1).tolist()) == {1}, "of the first four three were gone"
    pattern = TwoFour().masks({"a": torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])}, 500_000)["a"]
    assert pattern.tolist() == [[False, False, True, True, True]]


def test_a_step_in_the_pattern_is_stored_and_kept_in_it(tree: Tree) -> None:
    schedule = UnstructuredSchedule(scope="2:4", step_ratio=0.5, fine_tune_epochs=1)
    (point,) = list(walk(schedule, tree))
    network = tree.network(tree.chain(schedule)[0])
    for name, mask in network.masks.items():
        assert bool((network.model.get_parameter(name)[~mask] == 0).all())
        if mask.shape[1] % 4 == 0:
            assert bool((mask.movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1) == 2).all())
    assert 0.45 < point[n.SPARSITY] < 0.5 == point[n.REQUESTED_SPARSITY]


@pytest.mark.parametrize("fields", [{"step_ratio": 0.3}, {"step_ratio": 0.5, "steps": 2}, {"levels": (0.25, 0.5)}])
def test_the_pattern_has_one_sparsity(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"scope 2:4 removes 50% in one step; use step_ratio 0.5 and steps 1"):
        parse(UnstructuredSchedule, {"scope": "2:4", **fields}, "here")


def test_the_pattern_s_name_needs_no_quotes_in_a_study_file() -> None:
    assert parse_yaml("{scope: [2:4, global], one: 2:4, hours: 1:30:00, mapping: {2: 4}, half: 0.5}") == {
        "scope": ["2:4", "global"], "one": "2:4", "hours": "1:30:00", "mapping": {2: 4}, "half": 0.5,
    }  # fmt: skip
