"""Networks as others write them: several outputs, views, what they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import MakeProblem, digits_problem
from trainables.networks.factory import ModelSettings, build
from trainables.networks.reproducible import reproducible
from trainables.networks.running import channels_last, copied, count_auxiliary, only_logits, with_auxiliary
from trainables.problem import Problem
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree

STEP = UnstructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=1)


def with_outputs(problem: MakeProblem = digits_problem, network: str = "several_outputs", **fields: Any) -> Problem:
    settings = ModelSettings(name=f"tests.odd_networks:{network}", keep=("second",), **fields)
    return problem(model=settings, trusted=True)


@pytest.mark.parametrize(
    ("fields", "dense", "retrained"),
    [({}, True, False), ({"auxiliary": 0}, False, False), ({"auxiliary_in_retraining": True}, True, True)],
)
def test_auxiliary_losses_train_the_dense_network_alone(
    fields: dict[str, Any], dense: bool, retrained: bool, problem: MakeProblem, tmp_path: Path
) -> None:
    made = with_outputs(problem, **fields)
    tree, node = Tree(made, Store(tmp_path)), made.chain(STEP)[0]
    with reproducible(node.root.seed):
        untrained: Any = made.build()
    networks: list[Any] = [untrained, tree.network(node.root).model, tree.network(node).model]
    before, trained, after = (network.second.weight for network in networks)
    assert torch.equal(before, trained) is not dense
    assert torch.equal(trained, after) is not retrained


def test_auxiliary_losses_are_in_an_address_where_they_count(problem: MakeProblem) -> None:
    plain, off, on = (with_outputs(problem, **f) for f in ({}, {"auxiliary": 0}, {"auxiliary_in_retraining": True}))
    assert plain.root(0).settings["auxiliary"] == 0.3
    assert "auxiliary" not in off.root(0).settings
    assert "auxiliary" not in plain.chain(STEP)[0].settings
    assert on.chain(STEP)[0].settings["auxiliary"] == 0.3
    assert on.root(0).id == plain.root(0).id
    assert "off in retraining" in plain.told["Auxiliary outputs"][0]
    for name in ("auxiliary", "head_first"):  # the first adds its losses by itself
        one, other = (problem(model=ModelSettings(name=f"tests.odd_networks:{name}", **f), trusted=True)
                      for f in ({}, {"auxiliary": 1, "auxiliary_in_retraining": True}))  # fmt: skip
        assert one.chain(STEP)[0].id == other.chain(STEP)[0].id
        assert not one.told


class Several(nn.Module):
    """Puts out what it is told to, made of two heads."""

    def __init__(self, put_out: Any) -> None:
        super().__init__()
        self.a, self.b, self.put_out = nn.Linear(64, 10), nn.Linear(64, 10), put_out

    def forward(self, x: Tensor) -> Any:
        return self.put_out(self.a(x.flatten(1)), self.b(x.flatten(1)))


@pytest.mark.parametrize(
    ("put_out", "name", "others"),
    [
        (lambda a, b: (a, b, b), None, 2),
        (lambda a, b: {"aux": b, "logits": a}, None, 1),
        (lambda a, b: [b, None, a.argmax(1), a[:, :3], a.unsqueeze(2)], None, 0),
        (lambda a, b: {"one": b, "two": a}, "two", 1),
        (lambda a, b: {"logits": a, "same": a, "loss": b.sum()}, None, 0),
        (lambda a, b: a + b, None, 0),
    ],
)  # fmt: skip
def test_other_outputs_like_the_logits_are_auxiliary(put_out: Any, name: str | None, others: int) -> None:
    model = Several(put_out)
    only_logits(model, name)
    assert count_auxiliary(model, (1, 8, 8)) == others
    images = torch.randn(3, 1, 8, 8)
    logits, found = with_auxiliary(model, images)
    torch.testing.assert_close(model(images), logits)
    loss = F.cross_entropy(logits, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert len(found) == others
    assert model(images).shape == (3, 10)


def test_a_network_of_torchvision_with_auxiliary_heads_takes_part() -> None:
    settings = ModelSettings(name="torchvision:googlenet")
    with torch.device("meta"):
        model = build(settings, 10, (3, 64, 64), trusted=False, check=False)
        logits, others = with_auxiliary(model.train(), torch.zeros(2, 3, 64, 64))
    assert [tuple(one.shape) for one in (logits, *others)] == [(2, 10)] * 3


def test_a_network_that_views_its_features_is_trained_and_scored(problem: MakeProblem, tmp_path: Path) -> None:
    """Images lie channels-last in memory, and what a convolution makes of them can't be viewed in other shapes."""
    made = problem(model=ModelSettings(name="tests.odd_networks:viewed"), trusted=True)
    images = torch.zeros(2, 8, 8, 1).permute(0, 3, 1, 2)
    assert channels_last(made.build())(images).shape == (2, 10)
    tree = Tree(made, Store(tmp_path))
    schedule = StructuredSchedule(importance="taylor", step_ratio=0.5, steps=1, fine_tune_epochs=1)
    node = made.chain(schedule)[0]
    assert 0 < tree.network(node).model.features[2][0].weight.shape[0] < 12  # type: ignore[index,union-attr]
    other = channels_last(problem(model=ModelSettings(name="tests.odd_networks:residual"), trusted=True).build())
    inner = [
        m.weight for m in other.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1 and m.kernel_size == (3, 3)
    ]
    assert inner and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in inner)


def test_what_a_network_keeps_of_a_pass_is_copied_without_its_history() -> None:
    model: Any = build(ModelSettings(name="tests.odd_networks:keeps_features"), 10, (1, 8, 8), trusted=True)
    model(torch.zeros(2, 1, 8, 8))
    twin: Any = copied(model)
    kept = twin.body[1].maps["all"][0]
    assert kept.grad_fn is None and torch.equal(kept, model.body[1].maps["all"][0])
    assert twin.head.weight is not model.head.weight and twin.head.weight.requires_grad


def test_a_buffer_that_a_pass_computed_is_copied_as_its_value() -> None:
    model = nn.BatchNorm1d(3)
    model.running_mean = model.weight * 2  # a buffer with a graph, which deepcopy refuses
    twin = copied(model)
    assert twin.running_mean is not None and twin.running_mean.grad_fn is None
    torch.testing.assert_close(twin.running_mean, model.running_mean.detach())
