"""Training with some removed channels given back, at zero, so that layers have widths that a processor is fast at.

BatchNorm, activations and pooling can lose more at odd widths than a few channels cost. A channel whose weights are zero,
as are those that take it, adds nothing to what a network computes: up to rounding it trains as it would without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.networks.anatomy import Anatomy, Removed, families, groups_in, leader, replay, slots_of, trace
from trainables.networks.attention.heads import heads_of
from trainables.networks.network import Masks, Network
from trainables.networks.oracle import FixedStatistics, WrongCutError, plain_attention, survivors
from trainables.settings import Settings

MULTIPLE = 8
MOST_ADDED = 0.25
"""The largest share of a layer's width that may be added (``benchmarks/widths.py`` has what it gives)."""
PADDED = "pad_channels"
"""The setting of a step whose training is padded; of others it isn't there."""


class Padding(Settings):
    """How cut networks are retrained, whatever the method."""

    pad_channels: bool = Field(
        False,
        description=f"train cut layers at a multiple of {MULTIPLE} channels, those added zero, where that adds at most "
        f"{MOST_ADDED:.0%}: often faster (docs/speed.md), and rounded otherwise",
    )


def paddable(dense: nn.Module, anatomy: Anatomy) -> bool:
    """Whether channels of zeros change nothing: not where statistics are taken over channels.

    Networks that shuffle channels aren't padded either.
    """
    if families(trace(dense, anatomy), dense, anatomy):
        return False
    with FixedStatistics() as found, found.watching(dense), plain_attention(), torch.no_grad():
        anatomy.forward_example(dense)
    return not found.acted and not any(found.taken.values())


def padded_width(width: int, dense: int) -> int:
    """The width that a layer is trained at, of as many channels as it had once at most."""
    wide = -(-width // MULTIPLE) * MULTIPLE
    return wide if wide <= dense and wide - width <= MOST_ADDED * width else width


@dataclass(frozen=True)
class Padded:
    """A network with channels that are held at zero; ``places`` are those of the true network's elements in each tensor."""

    model: nn.Module
    places: Mapping[str, Tensor]
    kept: dict[nn.Parameter, Tensor]
    """Of each parameter that has zeros to be held, ones where it has none."""

    @torch.no_grad()
    def hold(self, _model: nn.Module) -> None:
        """Zero what was added, and what masks have removed; run after every update."""
        for parameter, kept in self.kept.items():
            if (kept.device, kept.stride()) != (parameter.device, parameter.stride()):  # training has moved the model
                self.kept[parameter] = torch.empty_like(parameter).copy_(kept)
        torch._foreach_mul_(list(self.kept), list(self.kept.values()))

    def hold_gradients(self) -> None:
        """Have gradients of what was added be zero too, for what looks at all of a gradient at once."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and _lacks(self.places, name, parameter):
                parameter.register_hook(_Times(_ones_at(self.places[name], parameter)))

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give the true network the values that it has come to."""
        trained = dict(_everything(self.model))
        for name, tensor in _everything(model):
            value = trained[name]
            tensor.copy_(value.flatten()[self.places[name].to(value.device)] if name in self.places else value)


def pad(network: Network, build: Callable[[], nn.Module], anatomy: Anatomy) -> Padded | None:
    """``network`` with channels given back; None where there are none to give. ``build`` makes the dense architecture.

    The network itself stays as it is.
    """
    model = build()
    fewer = _fewer(model, network.removed, anatomy)
    if fewer is None:
        return None
    try:
        wider = survivors(model, fewer, anatomy)
        places = {name: _places(left, wider[name]) for name, left in survivors(model, network.removed, anatomy).items()}
        replay(model, fewer, anatomy)
    except (WrongCutError, ValueError):  # layers that share a weight have lost the same, and would get back others
        return None
    true, wide = dict(_everything(network.model)), dict(_everything(model))
    if any(place.lt(0).any() for place in places.values()) or any(
        true[name].shape != wide[name].shape for name in wide.keys() - places.keys()
    ):
        return None
    with torch.no_grad():
        for name, tensor in wide.items():
            tensor.copy_(_spread(true[name], places[name], tensor) if name in places else true[name])
    return Padded(model, places, _kept(model, places, network.masks))


def _fewer(dense: nn.Module, removed: Removed, anatomy: Anatomy) -> Removed | None:
    """A record of fewer channels, each layer's in one cut of the dense network; None if there is nothing to give back.

    Heads, and channels that go several at once, stay removed.
    """
    graph = trace(dense, anatomy)
    single = {leader(group) for group in groups_in(graph, dense, anatomy) if slots_of(group) == 1}
    heads: Removed = []
    left: dict[tuple[str, bool], tuple[int, list[int]]] = {}
    for name, out, indices in removed:
        module, gone = dense.get_submodule(name), set(indices)
        if heads_of(module):
            heads.append((name, out, indices))
            continue
        count = graph.get_out_channels(module) if out else graph.get_in_channels(module)
        _, now = left.get((name, out), (count, list(range(count))))
        left[name, out] = count, [channel for i, channel in enumerate(now) if i not in gone]
    fewer, given = heads, 0
    for (name, out), (count, now) in left.items():
        back = padded_width(len(now), count) - len(now) if name in single and out else 0
        fewer.append((name, out, sorted(set(range(count)) - set(now))[back:]))
        given += back
    return fewer if given else None


def _places(left: Tensor, wider: Tensor) -> Tensor:
    """Where in a padded tensor the elements are that its true one has left; negative for one that isn't there."""
    where = torch.full((int(torch.cat([left.flatten(), wider.flatten(), torch.zeros(1).long()]).max()) + 1,), -1)
    where[wider.flatten()] = torch.arange(wider.numel())
    return where[left]


def _spread(values: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """``values`` at their places, zeros elsewhere."""
    wide = torch.zeros(like.numel(), dtype=values.dtype, device=values.device)
    wide[places.flatten().to(values.device)] = values.flatten()
    return wide.view(like.shape)


def _kept(model: nn.Module, places: Mapping[str, Tensor], masks: Masks) -> dict[nn.Parameter, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        if name in masks:
            found[parameter] = _spread(masks[name].to(parameter.dtype), places[name], parameter)
        elif _lacks(places, name, parameter):
            found[parameter] = _ones_at(places[name], parameter)
    return found


def _lacks(places: Mapping[str, Tensor], name: str, parameter: Tensor) -> bool:
    """Whether the true network has less of a parameter."""
    return name in places and places[name].numel() < parameter.numel()


def _ones_at(places: Tensor, parameter: Tensor) -> Tensor:
    return _spread(torch.ones(places.shape, dtype=parameter.dtype), places, parameter)


class _Times:
    """Multiplies gradients, on the device that they are on."""

    def __init__(self, kept: Tensor) -> None:
        self._kept = kept

    def __call__(self, gradient: Tensor) -> Tensor:
        self._kept = self._kept.to(gradient.device)
        return gradient * self._kept


def _everything(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Its parameters and buffers, by all their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
