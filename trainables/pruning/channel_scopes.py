"""Which channels are ranked together, for structured pruning; and how many of them stay.

How many channels remain is computed from the *dense* widths, because torch-pruning's own ratios are truncated and drift
from step to step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods import Method, Registry
from trainables.networks.anatomy import Group
from trainables.pruning.levels import PARTS_PER_MILLION
from trainables.records import names as n


@dataclass(frozen=True)
class Scored:
    """A group of layers that may be cut, with a score for each slot: the ``together`` channels that go at once.

    ``dense`` and ``current`` are the channels of the layer that leads it, ``floor`` those that must stay; ``channels`` are
    those of each slot, [slots, together]. With a slot go ``cost`` channels of all layers of the group.
    """

    group: Group
    scores: Tensor
    dense: int
    current: int
    together: int
    floor: int
    channels: Tensor
    cost: float

    @property
    def spare(self) -> int:
        """Slots that may go."""
        return max(0, len(self.scores) - max(1, math.ceil(self.floor / self.together)))

    @property
    def topology(self) -> Hashable:
        """The same for groups in which layers of the same types lose channels in the same order."""
        items = (item.dep for item in self.group)
        return tuple((type(dep.source.module), type(dep.target.module), "out" in dep.handler.__name__) for dep in items)


class ChannelScope(Method):
    """How the channels to be removed are shared out among the groups of layers."""

    across_groups: ClassVar[bool]
    """Whether channels of different groups are compared."""

    @abstractmethod
    def choose(
        self, groups: Sequence[Scored], total: tuple[int, ...], removed_ppm: int, round_to: int
    ) -> Sequence[Tensor | None]:
        """For each group the slots that go, so that ``removed_ppm`` millionths of the dense channels are gone in all.

        None where the scope takes no part in a group; the record of a cut has the others, were it with no slot.
        ``total`` are the (dense, current) channels of all layers, those among them that can lose none.
        """


class Local(ChannelScope):
    """The same share of every group of layers."""

    name, across_groups = "local", False

    def choose(
        self,
        groups: Sequence[Scored],
        total: tuple[int, ...],  # noqa: ARG002
        removed_ppm: int,
        round_to: int,
    ) -> Sequence[Tensor | None]:
        """All but ``kept_width`` channels of every group."""
        return [_lowest(one, one.current // one.together - _kept(one, removed_ppm, round_to)) for one in groups]


def _kept(one: Scored, removed_ppm: int, round_to: int) -> int:
    step = round_to // math.gcd(round_to, one.together)
    return kept_width(one.dense // one.together, removed_ppm, step)


def _lowest(one: Scored, count: int) -> Tensor | None:
    count = min(count, one.spare)
    return torch.topk(one.scores, k=count, largest=False).indices if count > 0 else None


class Global(ChannelScope):
    """One ranking of all channels."""

    name, across_groups = "global", True
    max_channel_share: float | None = Field(
        None, gt=0, lt=1, description="the largest share of a layer's channels that a ranking of several layers may take"
    )

    def choose(
        self, groups: Sequence[Scored], total: tuple[int, ...], removed_ppm: int, round_to: int
    ) -> Sequence[Tensor | None]:
        """The lowest of all, so that ``kept_width`` of all layers' channels are left, or as nearly as many as can be."""
        return self._lowest([self._capped(one) for one in groups], total, removed_ppm, round_to)

    def _capped(self, one: Scored) -> Scored:
        if self.max_channel_share is None:
            return one
        least = math.ceil(one.dense * (1 - self.max_channel_share) - 1e-9)
        return replace(one, floor=max(one.floor, least))

    @staticmethod
    def _lowest(
        groups: Sequence[Scored], total: tuple[int, ...], removed_ppm: int, round_to: int
    ) -> Sequence[Tensor | None]:
        dense, current = total
        count = current - kept_width(dense, removed_ppm, 1)
        if count <= 0 or not groups:
            return [None] * len(groups)
        orders = [one.scores.argsort(stable=True) for one in groups]
        ends = [_ends(one, round_to) for one in groups]
        taken = _bites(groups, orders, ends, count)
        return [order[: end[bites - 1] if bites else 0] for order, end, bites in zip(orders, ends, taken, strict=True)]


class Isomorphic(Global):
    """One ranking for all groups of layers of the same topology, and the same share of each such kind."""

    name, source = "isomorphic", "Fang et al. 2024, arXiv:2407.04616"

    def choose(
        self,
        groups: Sequence[Scored],
        total: tuple[int, ...],  # noqa: ARG002 - each kind has a total of its own, of what can still be cut of it
        removed_ppm: int,
        round_to: int,
    ) -> Sequence[Tensor | None]:
        """The lowest of each kind."""
        chosen: list[Tensor | None] = [None] * len(groups)
        for kind in dict.fromkeys(one.topology for one in groups):
            places = [i for i, one in enumerate(groups) if one.topology == kind]
            # Groups of a kind have equally many layers, so it is enough to count those of the layer that leads each.
            some = [replace(self._capped(groups[i]), cost=groups[i].together) for i in places]
            counts = sum(one.dense for one in some), sum(len(one.scores) * one.together for one in some)
            for i, slots in zip(places, self._lowest(some, counts, removed_ppm, round_to), strict=True):
                chosen[i] = slots
        return chosen


def _ends(one: Scored, round_to: int) -> Tensor:
    """How many slots can go: what is left is a multiple of ``round_to`` channels, and not less than must stay."""
    step = round_to // math.gcd(round_to, one.together)
    counts = torch.arange(1, one.spare + 1)
    return counts[(len(one.scores) - counts) % step == 0]


def _bites(groups: Sequence[Scored], orders: Sequence[Tensor], ends: Sequence[Tensor], count: int) -> list[int]:
    """How often each group loses what it can lose at a time, the lowest first, for ``count`` channels to go in all."""
    zero = torch.zeros(1, dtype=torch.long)
    costs = [one.cost * end.diff(prepend=zero).double() for one, end in zip(groups, ends, strict=True)]
    scores = [one.scores[order][end - 1] for one, order, end in zip(groups, orders, ends, strict=True)]
    ranks = torch.cat(scores).argsort(stable=True)
    missed = (torch.cat(costs)[ranks].cumsum(0) - count).abs()
    last = int(missed.argmin()) + 1 if len(missed) else 0
    owners = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(end) for end in ends]))
    found: list[int] = owners[ranks[:last]].bincount(minlength=len(groups)).tolist()
    return found


def kept_width(dense: int, removed_ppm: int, round_to: int) -> int:
    """Channels that remain of ``dense``, at least one multiple of ``round_to`` and never more than there were."""
    exact = dense * (PARTS_PER_MILLION - removed_ppm) / PARTS_PER_MILLION
    return min(dense, max(round_to, round(exact / round_to) * round_to))


class Narrowed(ChannelScope):
    """As many channels of each group as the largest of these widths that it has; no choice of a study, but of the gate.

    Layers that become as wide as others, or odd, show what a network decides by its widths.
    """

    name, across_groups = "narrowed", False
    widths: tuple[int, ...] = Field((), description="widths that layers are left with")

    def choose(
        self,
        groups: Sequence[Scored],
        total: tuple[int, ...],  # noqa: ARG002
        removed_ppm: int,  # noqa: ARG002
        round_to: int,  # noqa: ARG002
    ) -> Sequence[Tensor | None]:
        """All but so many."""
        kept = [max((width for width in self.widths if width <= one.current), default=one.current) for one in groups]
        return [_lowest(one, len(one.scores) - max(1, k // one.together)) for one, k in zip(groups, kept, strict=True)]


CHANNEL_SCOPES = Registry[ChannelScope](n.SCOPE, ChannelScope, (Local, Global, Isomorphic))
