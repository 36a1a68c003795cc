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
    those of each slot, [slots, together].
    """

    group: Group
    scores: Tensor
    dense: int
    current: int
    together: int
    floor: int
    channels: Tensor

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
        ``total`` are the (dense, current) channels of all groups, those among them that can lose none.
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
        """The lowest of all, ``kept_width`` of all channels being left; with ``round_to`` it is missed a little."""
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
        ratio = ratio_for(kept_width(dense, removed_ppm, 1), current) if current else 0.0
        there = sum(len(one.scores) * one.together for one in groups)
        count = there - int(there * (1 - ratio))
        if count <= 0:
            return [None] * len(groups)
        threshold = _threshold(groups, count)
        return [_rounded(one, _below(one, threshold), round_to) for one in groups]


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
            some = [self._capped(groups[i]) for i in places]
            dense, current = (sum(counts) for counts in zip(*((one.dense, one.current) for one in some), strict=True))
            for i, slots in zip(places, self._lowest(some, (dense, current), removed_ppm, round_to), strict=True):
                chosen[i] = slots
        return chosen


def _plain(groups: Sequence[Scored]) -> bool:
    return all(one.together == 1 and one.floor == 0 for one in groups)


def _threshold(groups: Sequence[Scored], count: int) -> float:
    """The score of the last slot to go, for ``count`` channels to go or as nearly as many as can.

    Where channels go one by one and nothing is limited, slots that can't go are ranked among them, and their group is then
    left as it is: what torch-pruning does.
    """
    plain = _plain(groups)
    slots = [one.scores if plain else one.scores.sort().values[: one.spare] for one in groups]
    scores, order = torch.cat(slots).sort()
    weight = torch.cat([torch.full((len(some),), one.together) for some, one in zip(slots, groups, strict=True)])[order]
    gone = weight.cumsum(0)
    if not len(gone):
        return -math.inf
    return float(scores[int((gone - count).abs().argmin())])


def _below(one: Scored, threshold: float) -> Tensor:
    return (one.scores <= threshold).nonzero().view(-1)


def _rounded(one: Scored, going: Tensor, round_to: int) -> Tensor:
    """As many slots as leave a multiple of ``round_to`` channels, and what must stay."""
    if not len(going):
        return going
    count = len(going)
    if round_to > 1:
        step = round_to // math.gcd(round_to, one.together)
        left = len(one.scores) - count
        count = len(one.scores) - (left - left % step)
    if one.together > 1 or one.floor:
        count = min(count, one.spare)
    return going if count == len(going) else torch.argsort(one.scores)[:count]


def kept_width(dense: int, removed_ppm: int, round_to: int) -> int:
    """Channels that remain of ``dense``, at least one multiple of ``round_to`` and never more than there were."""
    exact = dense * (PARTS_PER_MILLION - removed_ppm) / PARTS_PER_MILLION
    return min(dense, max(round_to, round(exact / round_to) * round_to))


def ratio_for(kept: int, current: int) -> float:
    """The share that leaves ``kept`` of ``current`` channels where what is left is truncated."""
    return max(0.0, 1 - (kept + 0.5) / current)


CHANNEL_SCOPES = Registry[ChannelScope](n.SCOPE, ChannelScope, (Local, Global, Isomorphic))
