"""What can lose something by itself: a layer its weights, and a group of layers, or a family of groups, its channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from trainables.networks.anatomy import Anatomy, families, groups_in, leader, losing, outputs_in, prunable, trace, weights


@dataclass(frozen=True)
class Unit:
    """Layers that lose something together: those that lead their groups, and all that lose an output then.

    ``size`` is how many weights, or output channels of all layers, they have; ``width`` is the most that one of them has.
    """

    leaders: tuple[str, ...]
    layers: tuple[str, ...]
    size: int
    width: int


def channel_units(model: nn.Module, anatomy: Anatomy) -> dict[str, Unit]:
    """Each group of layers that may lose channels, by the first that leads it; shuffled ones stand together."""
    graph = trace(model, anatomy)
    groups = {leader(group): group for group in groups_in(graph, model, anatomy)}
    related = [tuple(family.blocks) for family in families(graph, model, anatomy)]
    kin = {name: family for family in related for name in family}
    order, found = list(anatomy.widths), dict[str, Unit]()
    for leaders in dict.fromkeys(kin.get(name, (name,)) for name in sorted(groups, key=order.index)):
        own = [groups[name] for name in leaders if name in groups]
        losers = {name for group in own for item in group for name in losing(item)}
        layers = tuple(name for name in prunable(model) if name in losers)
        size, width = sum(outputs_in(group, anatomy) for group in own), max(anatomy.widths[name] for name in leaders)
        found[leaders[0]] = Unit(leaders, layers, size, width)
    return found


def weight_units(model: nn.Module, spared: Mapping[str, float]) -> dict[str, Unit]:
    """Each layer that may lose single weights, by name."""
    return {
        name.removesuffix(".weight"): Unit((name,), (name.removesuffix(".weight"),), weight.numel(), weight.numel())
        for name, weight in weights(model).items()
        if spared.get(name, 1.0) > 0
    }


def channels_alone(model: nn.Module, anatomy: Anatomy, name: str) -> Anatomy:
    """The anatomy in which only the unit of this name may lose channels."""
    units = channel_units(model, anatomy)
    others = (leader for first, unit in units.items() if first != name for leader in unit.leaders)
    return replace(anatomy, protected=(*anatomy.protected, *others))


def weights_alone(model: nn.Module, spared: Mapping[str, float], name: str) -> dict[str, float]:
    """What is spared where only the layer of this name may lose weights."""
    return {weight: spared.get(weight, 1.0) if weight == f"{name}.weight" else 0.0 for weight in weights(model)}
