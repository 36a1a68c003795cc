"""Which weights are ranked together, for unstructured pruning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.methods import Method, Registry
from trainables.networks.network import Masks
from trainables.pruning.levels import PARTS_PER_MILLION
from trainables.records import names as n


class WeightScope(Method):
    """How the weights to be removed are shared out among the layers."""

    @abstractmethod
    def masks(self, scores: Mapping[str, Tensor], removed_ppm: int) -> Masks:
        """The masks, True where a weight is kept, that remove ``removed_ppm`` millionths of all weights."""


class Global(WeightScope):
    """All weights in one ranking."""

    name = "global"

    def masks(self, scores: Mapping[str, Tensor], removed_ppm: int) -> Masks:
        """The lowest scores of all layers go."""
        kept = keep(torch.cat([score.flatten() for score in scores.values()]), removed_ppm)
        parts = kept.split([score.numel() for score in scores.values()])
        return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


class Layerwise(WeightScope):
    """The same share of each layer."""

    name = "layerwise"

    def masks(self, scores: Mapping[str, Tensor], removed_ppm: int) -> Masks:
        """The lowest scores of each layer go."""
        return {name: keep(score.flatten(), removed_ppm).view_as(score) for name, score in scores.items()}


def keep(scores: Tensor, removed_ppm: int) -> Tensor:
    """True for all but the ``removed_ppm`` millionths with the lowest scores; the count is exact even among ties."""
    removed = round(scores.numel() * removed_ppm / PARTS_PER_MILLION)
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[torch.topk(scores, removed, largest=False).indices] = False
    return kept


WEIGHT_SCOPES = Registry[WeightScope](n.SCOPE, WeightScope, (Global, Layerwise))
