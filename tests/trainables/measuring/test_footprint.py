"""Parameters and multiply-accumulates against formulas written by hand."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import MakeProblem, cut_weights
from trainables.measuring.footprint import footprint, module_macs, shape_id
from trainables.networks.anatomy import weights
from trainables.networks.network import Network
from trainables.schedule import StructuredSchedule
from trainables.tree import Tree, walk

DIGIT = (1, 8, 8)
FIRST = "features.0"


def cnn_macs(w: int) -> int:
    """3x3 convolutions of widths w w (8x8 pixels), 2w 2w (4x4), 4w 4w (2x2), and a linear layer to 10 classes."""
    return 9 * (64 * (w + w * w) + 16 * (2 * w * w + 4 * w * w) + 4 * (8 * w * w + 16 * w * w)) + 40 * w


def cnn_weights(w: int) -> int:
    return 9 * (w + w * w + 2 * w * w + 4 * w * w + 8 * w * w + 16 * w * w) + 40 * w


def cnn_params(w: int) -> int:
    """The weights, scale and shift of BatchNorm, and the classifier's bias."""
    return cnn_weights(w) + 2 * (w + w + 2 * w + 2 * w + 4 * w + 4 * w) + 10


@pytest.mark.parametrize("width", [1, 4, 7])
def test_counts_of_the_dense_cnn(width: int, problem: MakeProblem) -> None:
    counts = footprint(Network(problem(width=width).build()), DIGIT)
    assert counts.macs == counts.effective_macs == cnn_macs(width)
    assert counts.params == cnn_params(width)
    assert counts.prunable_params == cnn_weights(width)
    assert sum(total for _, total in counts.layers.values()) == cnn_weights(width)
    assert counts.empty_layers == []


def test_masks_reduce_effective_macs_and_params_but_not_macs(problem: MakeProblem) -> None:
    model = problem().build()
    mask = torch.ones(4, 1, 3, 3, dtype=torch.bool)
    mask.view(-1)[:9] = False  # one of four filters
    counts = footprint(Network(model, {f"{FIRST}.weight": mask}), DIGIT)
    assert counts.layers[FIRST] == (27, 36)
    assert counts.macs == cnn_macs(4)
    assert counts.effective_macs == cnn_macs(4) - 9 * 64
    assert counts.params == cnn_params(4) - 9
    assert counts.prunable_params == cnn_weights(4) - 9


def test_an_empty_layer_is_named_and_executes_nothing_effective(problem: MakeProblem) -> None:
    model = problem().build()
    counts = footprint(Network(model, {f"{FIRST}.weight": torch.zeros(4, 1, 3, 3, dtype=torch.bool)}), DIGIT)
    assert counts.empty_layers == [FIRST]
    assert counts.effective_macs == cnn_macs(4) - 9 * 64 * 4


def test_weights_that_happen_to_be_zero_count(problem: MakeProblem) -> None:
    model = problem().build()
    for weight in weights(model).values():
        weight.data.zero_()
    assert footprint(Network(model), DIGIT).params == cnn_params(4)


def test_structured_counts_are_those_of_a_narrower_network(tree: Tree, problem: MakeProblem) -> None:
    schedule = StructuredSchedule(step_ratio=0.5, fine_tune_epochs=0)
    (point,) = walk(schedule, tree)
    assert point["macs"] == point["effective_macs"] == cnn_macs(2)
    assert point["params"] == cnn_params(2)
    assert point["sparsity"] == 1 - cnn_weights(2) / cnn_weights(4)
    assert point["shape_id"] == shape_id(problem(width=2).build())


def test_the_shape_is_that_of_the_dense_network_whatever_is_masked(problem: MakeProblem) -> None:
    model, other = problem().build(), problem().build()
    masks = cut_weights(model, {}, "magnitude", "global", 900_000, seed=0)
    assert footprint(Network(model, masks), DIGIT).shape_id == shape_id(other)
    assert shape_id(problem(width=5).build()) != shape_id(other)
    assert shape_id(problem("resnet20").build()) != shape_id(other)


def test_macs_are_told_for_every_prunable_layer(problem: MakeProblem) -> None:
    macs = module_macs(problem("resnet20", 8).build(), DIGIT)
    assert macs["stem.0"] == 64 * 8 * 9
    assert macs["classifier"] == 32 * 10
    assert macs["stage2.0.shortcut.0"] == 16 * 8 * 16
    assert all(count > 0 for count in macs.values())
