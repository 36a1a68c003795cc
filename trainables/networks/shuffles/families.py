"""Layers whose channels are shuffled together: what of them can go, and how it is cut."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.networks.shuffles.flow import Flow, Forward, Label, flow_of, is_depthwise, width_of
from trainables.networks.torch_pruning_alone import tp

FAR = 8
"""How many slots more or less than asked are tried."""


@dataclass(frozen=True)
class Family:
    """Layers whose channels are shuffled together, with the channels of each that go at once; ``slots`` times there are."""

    blocks: Mapping[str, int]
    slots: int


def families(model: nn.Module, forward: Forward) -> list[Family]:
    """The families of a network: layers of which each channel is seen to reach others that make channels."""
    try:
        flow = flow_of(model, forward, {})
    except Exception:  # a network that can't be given numbers has none, and what it moves is for the gate to find
        return []
    sets: list[set[str]] = []
    for some in filter(None, flow.mixed):
        touching = [others for others in sets if others & some]
        sets = [others for others in sets if not others & some] + [some.union(*touching)]
    makers = flow.takers.keys()
    return [
        _family(model, roots) for roots in sets if all(takers & makers for name in roots for takers in flow.takers[name])
    ]


def _family(model: nn.Module, roots: set[str]) -> Family:
    widths = {name: width_of(model.get_submodule(name)) for name in sorted(roots)}
    unit = math.gcd(*widths.values())
    return Family({name: width // unit for name, width in widths.items()}, unit)


def groups(graph: Any, model: nn.Module, forward: Forward, roots: list[str]) -> list[Any]:
    """torch-pruning's groups of what these layers make and of what takes it, each channel in its place."""
    flow = flow_of(model, forward, {})
    return [_group(graph, model, flow, root) for root in roots]


def _group(graph: Any, model: nn.Module, flow: Flow, root: str) -> Any:
    group, source = tp.dependency.Group(), graph.module2node[model.get_submodule(root)]
    group._DG = graph

    def add(name: str, places: list[int], channels: list[int]) -> None:
        module = model.get_submodule(name)
        pruner, target = graph.get_pruner_of_module(module), graph.module2node[module]
        handler = pruner.prune_out_channels if name == root else pruner.prune_in_channels
        group.add_dep(tp.dependency.Dependency(handler, handler, source, target), places)
        group[-1].root_idxs = channels

    everything = list(range(len(flow.takers[root])))
    add(root, everything, everything)
    for name, labels in flow.inputs.items():
        if taken := [(place, label[1]) for place, label in enumerate(labels) if label is not None and label[0] == root]:
            add(name, [place for place, _ in taken], [channel for _, channel in taken])
    return group


def choose(
    model: nn.Module, forward: Forward, family: Family, scores: Mapping[str, Tensor], slots: int
) -> dict[str, list[int]]:
    """The channels of each layer of a family that go, of those that may the ones of least score.

    As many go as there are in ``slots`` slots, or in the nearest number of slots that can go; none if no number near can.
    They are still a family then: a shuffle that has a channel a group moves nothing, and the next cut wouldn't know of it.
    """
    whole = flow_of(model, forward, {}).takers
    near = range(max(1, slots - FAR), min(family.slots, slots + FAR + 1))
    for count in sorted(near, key=lambda count: abs(count - slots)):
        with suppress(Exception):  # the network fails with so many less, or hands on others then
            narrow = flow_of(model, forward, {name: count * block for name, block in family.blocks.items()})
            if family.blocks.keys() <= set().union(*narrow.mixed):
                return {name: _lowest(some, whole[name], narrow.takers[name], name) for name, some in scores.items()}
    return {}


def _lowest(scores: Tensor, whole: list[frozenset[str]], narrow: list[frozenset[str]], name: str) -> list[int]:
    staying, going = Counter(narrow), []
    for channel in scores.argsort(descending=True, stable=True).tolist():
        if staying[whole[channel]] > 0:
            staying[whole[channel]] -= 1
        else:
            going.append(channel)
    if staying.total():
        raise ValueError(f"{name} can't lose so many channels")
    return sorted(going)


@torch.no_grad()
def cut(model: nn.Module, forward: Forward, removed: Mapping[str, list[int]]) -> None:
    """Take these output channels from the layers of a family, and from all that takes them; ValueError if it can't be."""
    whole, narrow = (flow_of(model, forward, gone) for gone in ({}, {name: len(some) for name, some in removed.items()}))
    orders = {name: _order_of(whole.takers[name], narrow.takers[name], gone, name) for name, gone in removed.items()}
    for name, labels in narrow.inputs.items():
        if any(label is not None and label[0] in orders for label in labels):
            wanted = [(label[0], orders[label[0]][label[1]]) if label and label[0] in orders else label for label in labels]
            _take(model.get_submodule(name), _places(whole.inputs[name], wanted, name))
    for name, order in orders.items():
        module: Any = model.get_submodule(name)
        _select(module, order, 0)
        setattr(module, "out_features" if isinstance(module, nn.Linear) else "out_channels", len(order))


def _order_of(whole: list[frozenset[str]], narrow: list[frozenset[str]], gone: list[int], name: str) -> list[int]:
    """The channels that stay, in the order in which the narrower network hands them on."""
    staying: dict[frozenset[str], list[int]] = {}
    for channel in sorted({*range(len(whole))} - {*gone}):
        staying.setdefault(whole[channel], []).append(channel)
    return _drawn(staying, narrow, f"these channels of {name} can't go")


def _places(whole: list[Label | None], wanted: list[Label | None], name: str) -> list[int]:
    """Where the wanted labels stand among a layer's inputs."""
    places: dict[Label | None, list[int]] = {}
    for place, label in enumerate(whole):
        places.setdefault(label, []).append(place)
    return _drawn(places, wanted, f"{name} would be handed other channels than it takes")


def _drawn(heaps: dict[Any, list[int]], wanted: list[Any], complaint: str) -> list[int]:
    """For each one that is wanted the next of its heap; ValueError with the complaint if there is none."""
    try:
        return [heaps[one].pop(0) for one in wanted]
    except (KeyError, IndexError):
        raise ValueError(complaint) from None


def _take(module: Any, places: list[int]) -> None:
    """Keep these input channels of a layer, in this order."""
    if is_depthwise(module):
        _select(module, places, 0)
        module.in_channels = module.out_channels = module.groups = len(places)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        _select(module, places, 0)
        module.num_features = len(places)
    elif isinstance(module, nn.Linear):
        _select(module, places, 1)
        module.in_features = len(places)
    elif isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1:
        _select(module, places, 1)
        module.in_channels = len(places)
    else:
        raise ValueError(f"channels that are moved about reach a {type(module).__name__}")


def _select(module: nn.Module, places: list[int], dim: int) -> None:
    """Keep these places of all tensors of a layer along their first dimension, or of its weight along another."""
    for name, parameter in module.named_parameters(recurse=False):
        if dim < parameter.dim() and (dim == 0 or name == "weight"):
            kept = parameter.detach().index_select(dim, torch.tensor(places, device=parameter.device))
            setattr(module, name, nn.Parameter(kept, parameter.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.dim() and dim == 0:
            setattr(module, name, buffer[places])
