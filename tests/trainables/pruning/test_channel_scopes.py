"""Rankings of channels: within kinds of groups, as torch-pruning has them, and with a cap for each layer."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import nn

from tests.conftest import MakeProblem
from trainables.chain import MethodSettings, RetrainSettings
from trainables.networks.anatomy import groups, leader, widths
from trainables.node import Node
from trainables.problem import Problem
from trainables.pruning import channels
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES, Scored, kept_width
from trainables.pruning.sample import Sample
from trainables.schedule import StructuredSchedule

TARGETS = (300_000, 600_000, 850_000)
ROOT = Node(None, {"kind": "dense", "seed": 0})


@pytest.fixture(scope="module")
def resnet(problem: MakeProblem) -> Problem:
    return problem("resnet20", 8)


def uneven(problem: Problem) -> nn.Module:
    """A network whose layers have weights of different sizes, so that global ranking prefers some."""
    torch.manual_seed(0)
    model = problem.build()
    with torch.no_grad():
        for i, parameter in enumerate(p for p in model.parameters() if p.dim() == 4):
            parameter.mul_(0.3 + 0.7 * (i % 5))
    return model


def cut(problem: Problem, model: nn.Module, scope: str, removed_ppm: int, **settings: Any) -> None:
    importance, sample = CHANNEL_IMPORTANCES.make("magnitude_l2"), Sample(problem.data, 0)
    channels.cut(model, problem.anatomy, importance, CHANNEL_SCOPES.make(scope, settings), removed_ppm, 1, sample)


def kinds(problem: Problem, model: nn.Module) -> list[set[str]]:
    found: dict[Any, set[str]] = {}
    for group in groups(model, problem.anatomy):
        found.setdefault(Scored(group, torch.zeros(1), 1, 1, 1, 0, torch.zeros(1, 1), 1).topology, set()).add(leader(group))
    return sorted(found.values(), key=len)


def test_the_kinds_of_a_resnet_are_the_insides_of_its_blocks_and_its_streams(resnet: Problem) -> None:
    found = kinds(resnet, resnet.build())
    blocks = {f"stage{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)}
    assert [len(kind) for kind in found] == [1, 1, 1, 9] and found[-1] == blocks


def test_isomorphic_removes_what_torch_pruning_s_own_removes(resnet: Problem) -> None:
    model = uneven(resnet)
    theirs, ours, everywhere = (copy.deepcopy(model) for _ in range(3))
    pruner = tp.pruner.BasePruner(
        theirs, resnet.anatomy.example, tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5,
        global_pruning=True, isomorphic=True, **resnet.anatomy.pruner_options(theirs),
    )  # fmt: skip
    pruner.step()
    cut(resnet, ours, "isomorphic", 500_000)
    cut(resnet, everywhere, "global", 500_000)
    assert widths(ours) == widths(theirs) != widths(everywhere)
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


def test_each_kind_loses_the_same_share_whatever_the_others_scores(resnet: Problem) -> None:
    model, of_kinds = uneven(resnet), kinds(resnet, resnet.build())
    dense = resnet.anatomy.widths
    for target in TARGETS:
        cut(resnet, model, "isomorphic", target)
        now = widths(model)
        for kind in of_kinds:
            whole, left = (sum(counts[name] for name in kind) for counts in (dense, now))
            # A layer that would lose everything keeps what it has.
            assert left == kept_width(whole, target, 1) or min(now[name] for name in kind) == 1


MOST_TOGETHER = 4
"""Layers of the ResNet's widest group, whose channels go together."""


@pytest.mark.parametrize("scope", ["global", "isomorphic"])
@pytest.mark.parametrize("share", [0.4, 0.75])
def test_no_layer_loses_more_than_the_cap(share: float, scope: str, resnet: Problem) -> None:
    free, capped, dense = uneven(resnet), uneven(resnet), resnet.anatomy.widths
    losing = {leader(group) for group in groups(free, resnet.anatomy)}
    for target in TARGETS:
        cut(resnet, free, scope, target)
        cut(resnet, capped, scope, target, max_channel_share=share)
        now = widths(capped)
        assert all(now[name] >= math.ceil(dense[name] * (1 - share) - 1e-9) for name in losing)
        if target <= 1e6 * share - 100_000:  # what some may not lose, others do
            whole, left = resnet.anatomy.channels(capped)
            assert scope != "global" or left == pytest.approx(kept_width(whole, target, 1), abs=MOST_TOGETHER / 2)
    assert any(widths(free)[name] < math.ceil(dense[name] * (1 - share)) for name in losing)


def test_a_cap_is_part_of_the_address_only_where_there_is_one() -> None:
    def address(scope: str, **settings: Any) -> str:
        schedule = StructuredSchedule(step_ratio=0.3, scope=scope)
        return MethodSettings(RetrainSettings(**settings)).chain(ROOT, schedule)[-1].id

    assert (
        "max_channel_share"
        not in MethodSettings().chain(ROOT, StructuredSchedule(step_ratio=0.3, scope="global"))[0].settings
    )
    assert address("local") == address("local", max_channel_share=0.5)
    for scope in ("global", "isomorphic"):
        assert len({address(scope), address(scope, max_channel_share=0.5), address(scope, max_channel_share=0.6)}) == 3
