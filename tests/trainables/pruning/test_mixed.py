"""Masks on cut shapes: what they count, what they are stored as, and what limits mean there."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import MakeProblem
from trainables.networks.anatomy import weights, widths
from trainables.networks.factory import ModelSettings
from trainables.networks.network import Network
from trainables.records import names as n
from trainables.schedule import MixedSchedule, StructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree, walk


def kept_of(network: Network) -> dict[str, int]:
    """The weights that are left, by layer; one that is whole has no mask."""
    return {
        name: int(network.masks[name].sum()) if name in network.masks else weight.numel()
        for name, weight in weights(network.model).items()
    }


@pytest.mark.parametrize("scope", ["global", "lamp", "erk"])
def test_weights_go_of_what_the_channels_have_left(scope: str, tree: Tree) -> None:
    schedule = MixedSchedule(channel_ratio=0.5, step_ratio=0.5, steps=3, scope=scope)
    points, nodes = list(walk(schedule, tree)), tree.chain(schedule)
    dense = sum(weight.numel() for weight in weights(tree.problem.build()).values())
    assert [point[n.FAMILY] for point in points] == ["structured", "mixed", "mixed"]
    first = tree.network(nodes[0])
    left = sum(weight.numel() for weight in weights(first.model).values())
    gone: dict[str, torch.Tensor] = {}
    for node, point, share in zip(nodes, points, (1.0, 0.5, 0.25), strict=True):
        network = tree.network(node)
        assert widths(network.model) == widths(first.model) and network.removed == first.removed
        kept = sum(kept_of(network).values())
        assert kept == left - round(left * (1 - share))
        assert point[n.SPARSITY] == pytest.approx(1 - kept / dense)
        for name, mask in network.masks.items():
            assert not (gone.get(name, torch.zeros_like(mask)) & mask).any()
            assert (network.model.get_parameter(name)[~mask] == 0).all()
            gone[name] = ~mask
    assert [point[n.MACS] for point in points] == [points[0][n.MACS]] * 3
    assert points[0][n.COMPRESSION] < points[1][n.COMPRESSION] < points[2][n.COMPRESSION]


def test_the_cuts_of_channels_are_those_of_structured_pruning_and_paid_once(tree: Tree) -> None:
    (structured,) = list(walk(StructuredSchedule(step_ratio=0.5), tree))
    first, then = list(walk(MixedSchedule(channel_ratio=0.5, step_ratio=0.5), tree))
    assert first[n.STEP_ID] == structured[n.STEP_ID] == then[n.PARENT_ID]
    assert first[n.REUSED] and first[n.EPOCHS] == 0 and not then[n.REUSED]


@pytest.mark.parametrize("retrain", ["scratch", "distill", "recalibrate"])
def test_every_retraining_of_cut_channels_holds_masks_on_them(retrain: str, tree: Tree) -> None:
    schedule = MixedSchedule(channel_ratio=0.5, step_ratio=0.7, retrain=retrain)
    point, node = list(walk(schedule, tree))[-1], tree.chain(schedule)[-1]
    network = tree.network(node)
    assert all(bool((network.model.get_parameter(name)[~mask] == 0).all()) for name, mask in network.masks.items())
    assert point[n.SPARSITY] > 0.85


def test_what_a_layer_lost_with_its_channels_counts_against_its_limit(problem: MakeProblem, tmp_path: object) -> None:
    limited, kept = "features.10", "features.3"
    model = ModelSettings(name="cnn", arguments={"width": 4}, max_sparsity={limited: 0.6}, keep=(kept,))
    made = problem(model=model)
    tree = Tree(made, Store(tmp_path / "steps"))  # type: ignore[operator]
    schedule = MixedSchedule(channel_ratio=0.25, step_ratio=0.8, steps=2, fine_tune_epochs=0)
    list(walk(schedule, tree))
    dense = {name: weight.numel() for name, weight in weights(made.build()).items()}
    network = tree.network(tree.chain(schedule)[-1])
    left = kept_of(network)
    assert f"{kept}.weight" not in network.masks
    least = 0.4 * dense[f"{limited}.weight"]
    assert least <= left[f"{limited}.weight"] < least + 1 < network.masks[f"{limited}.weight"].numel()
