"""Which channels are ranked together, for structured pruning; and how many of them stay.

How many channels remain is computed from the *dense* widths, because torch-pruning's own ratios are truncated and drift
from step to step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import nn

from trainables.methods import Method, Registry
from trainables.networks.anatomy import Anatomy, groups, prunable, widths
from trainables.pruning.levels import PARTS_PER_MILLION
from trainables.records import names as n


class ChannelScope(Method):
    """How the channels to be removed are shared out among the groups of layers."""

    across_groups: ClassVar[bool]
    """Whether channels of different groups are compared."""

    @abstractmethod
    def options(self, model: nn.Module, anatomy: Anatomy, removed_ppm: int, round_to: int) -> dict[str, Any]:
        """Arguments of torch-pruning's BasePruner that remove ``removed_ppm`` millionths of the dense channels in all."""


class Local(ChannelScope):
    """The same share of every group of layers."""

    name, across_groups = "local", False

    def options(self, model: nn.Module, anatomy: Anatomy, removed_ppm: int, round_to: int) -> dict[str, Any]:
        """``kept_width`` channels of every layer."""
        now = widths(model)
        ratios = {
            module: ratio_for(kept_width(anatomy.widths[name], removed_ppm, round_to), now[name])
            for name, module in prunable(model).items()
            if name not in anatomy.keep
        }
        return {"pruning_ratio": 0.0, "pruning_ratio_dict": ratios}


class Global(ChannelScope):
    """One ranking of all channels."""

    name, across_groups = "global", True

    def options(self, model: nn.Module, anatomy: Anatomy, removed_ppm: int, round_to: int) -> dict[str, Any]:
        """``kept_width`` of all channels together; with ``round_to`` it is missed a little."""
        roots = list(_root_widths(model, anatomy))
        dense, current = sum(d for d, _ in roots), sum(c for _, c in roots)
        ratio = ratio_for(kept_width(dense, removed_ppm, 1), current)
        return {"global_pruning": True, "pruning_ratio": ratio, "round_to": round_to if round_to > 1 else None}


def kept_width(dense: int, removed_ppm: int, round_to: int) -> int:
    """Channels that remain of ``dense``, at least one multiple of ``round_to`` and never more than there were."""
    exact = dense * (PARTS_PER_MILLION - removed_ppm) / PARTS_PER_MILLION
    return min(dense, max(round_to, round(exact / round_to) * round_to))


def ratio_for(kept: int, current: int) -> float:
    """The ratio that makes torch-pruning, which truncates ``current * (1 - ratio)``, keep exactly ``kept``."""
    return max(0.0, 1 - (kept + 0.5) / current)


def _root_widths(model: nn.Module, anatomy: Anatomy) -> Iterator[tuple[int, int]]:
    """(dense, current) channels of each group, told by the layer that leads it."""
    names = {module: name for name, module in prunable(model).items()}
    for group in groups(model, anatomy):
        name = names[group[0].dep.target.module]
        yield anatomy.widths[name], len(group[0].idxs)


CHANNEL_SCOPES = Registry[ChannelScope](n.SCOPE, ChannelScope, (Local, Global))
