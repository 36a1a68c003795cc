"""Networks of several outputs: which is the logits, and when the losses of the others count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import MakeProblem, digits_problem
from trainables.networks.factory import ModelSettings, build
from trainables.networks.outputs import count_auxiliary, only_logits, with_auxiliary
from trainables.networks.reproducible import reproducible
from trainables.problem import Problem
from trainables.schedule import UnstructuredSchedule
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
