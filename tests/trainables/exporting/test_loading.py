"""The lines of docs/loading.md read an exported file as this program does, and import none of it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tests import ROOT
from tests.conftest import MakeProblem
from trainables.exporting.network_file import content_of, load
from trainables.networks.network import BITMASK, DENSE, INDICES, Network
from trainables.pruning.sample import Sample
from trainables.schedule import StructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree, walk

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
SHARES = (0.99, 0.5, 0.01)
"""Of weights kept, each of which is cheapest in another encoding."""


@pytest.fixture
def loader(tmp_path: Path) -> dict[str, Any]:
    (block,) = BLOCK.findall((ROOT / "docs" / "loading.md").read_text())
    assert not re.search(r"trainables|search|analysis", block) and len(block.splitlines()) < 60
    (tmp_path / "loader.py").write_text(block)
    return runpy.run_path(str(tmp_path / "loader.py"))


def masked(network: Network) -> Network:
    """The network with weights of every encoding removed."""
    draw = torch.Generator().manual_seed(0)
    names = [name for name, weight in network.model.named_parameters() if weight.dim() == 4 and weight.numel() > 100]
    for name, share in zip(names, SHARES, strict=False):
        weight = network.model.get_parameter(name)
        network.masks[name] = torch.rand(weight.shape, generator=draw) < share
        weight.data *= network.masks[name]
    return network


def test_all_encodings_of_a_network_that_lost_channels(
    loader: dict[str, Any], problem: MakeProblem, tmp_path: Path
) -> None:
    tree, file = Tree(problem(width=6), Store(tmp_path / "steps")), tmp_path / "net.safetensors"
    schedule = StructuredSchedule(step_ratio=0.3, fine_tune_epochs=0)
    list(walk(schedule, tree))
    file.write_bytes(content_of(masked(tree.network(tree.chain(schedule)[-1])), tree.problem))
    endings = {f".{name.rpartition('.')[2]}" for name in safetensors.torch.load_file(file)}
    assert {DENSE, BITMASK, INDICES} <= endings
    about, state = loader["read"](file)
    assert about["export"]["classes"] == list(tree.problem.data.classes)
    images, _ = Sample(tree.problem.data, 0).images(8)
    with torch.no_grad():
        assert torch.equal(loader["fill"](tree.problem.build(), state)(images), load(file).model(images))


def test_depthwise_convolutions_have_as_many_groups_as_channels(loader: dict[str, Any]) -> None:
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, width, 3), nn.Conv2d(width, width, 3, groups=width), nn.BatchNorm2d(width))

    narrow, images = net(3).eval(), torch.ones(2, 1, 8, 8)
    assert torch.equal(loader["fill"](net(5), narrow.state_dict())(images), narrow(images))
