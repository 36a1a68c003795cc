"""How the weights to be removed are shared out among the layers, for unstructured pruning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.methods import Method, Registry
from trainables.networks.network import Masks
from trainables.pruning.levels import PARTS_PER_MILLION
from trainables.records import names as n

Scores = Mapping[str, Tensor]
"""A score for each prunable weight, by its name; below 0 where it is gone, infinite where it must stay."""


class WeightScope(Method):
    """How the weights to be removed are shared out among the layers; it takes the scores of any importance."""

    only: ClassVar[float | None] = None
    """The one sparsity that it can have, in one step; None if it can have any."""

    def rescored(self, scores: Scores) -> Scores:
        """The scores to rank by, which keep the order within each layer; what is gone stays below 0."""
        return scores

    @abstractmethod
    def masks(self, scores: Scores, removed_ppm: int) -> Masks:
        """The masks, True where a weight is kept, that remove ``removed_ppm`` millionths of all weights."""


class Global(WeightScope):
    """All weights in one ranking."""

    name = "global"

    def masks(self, scores: Scores, removed_ppm: int) -> Masks:
        """The lowest scores of all layers go."""
        kept = keep(torch.cat([score.flatten() for score in scores.values()]), removed_ppm)
        parts = kept.split([score.numel() for score in scores.values()])
        return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


class Layerwise(WeightScope):
    """The same share of each layer."""

    name = "layerwise"

    def masks(self, scores: Scores, removed_ppm: int) -> Masks:
        """The lowest scores of each layer go."""
        return {name: keep(score.flatten(), removed_ppm).view_as(score) for name, score in scores.items()}


class Lamp(Global):
    """One ranking of squared scores over the sum of those of their layer that are no smaller."""

    name, source = "lamp", "Lee et al. 2021, arXiv:2010.07611"

    def rescored(self, scores: Scores) -> Scores:
        """The best of each layer have 1, so no layer is emptied before all of them have one weight left."""
        return {name: _lamp(score.flatten()).view_as(score) for name, score in scores.items()}


def _lamp(scores: Tensor) -> Tensor:
    """Of each score its square over the sum of its own and all larger squares; of equal ones the first is the smaller."""
    values, order = scores.double().sort(stable=True)
    squares = (values.clamp(min=0) / values.max().clamp(min=torch.finfo(torch.float64).tiny)).square()
    sums = squares.flip(0).cumsum(0).flip(0)
    quotients = torch.where(sums > 0, squares / sums, 0.0).where(values >= 0, values)
    return torch.empty_like(quotients).scatter_(0, order, quotients)


class Erk(Global):
    """As many are kept of each layer as the sum of its dimensions tells: large layers are the sparsest."""

    name, source = "erk", "Evci et al. 2020, arXiv:1911.11134"

    def rescored(self, scores: Scores) -> Scores:
        """The inverse of the proportion at which a weight is kept; so counts are rounded as Sainte-Laguë rounds seats.

        A layer keeps min(its weights, e · the sum of its dimensions); e is the same for all, and falls as more must go.
        """
        return {name: _erk(score.flatten(), sum(score.shape)).view_as(score) for name, score in scores.items()}


def _erk(scores: Tensor, dimensions: int) -> Tensor:
    order = scores.argsort(descending=True, stable=True)
    places = torch.arange(1, len(order) + 1, dtype=torch.float64)
    ranked = torch.empty_like(places).scatter_(0, order, dimensions / (places - 0.5))
    return ranked.where(scores >= 0, scores.double())


class TwoFour(WeightScope):
    """Two of four consecutive inputs of every row: half of the weights, in the pattern of sparse tensor cores."""

    name, source, only = "2:4", "Mishra et al. 2021, arXiv:2104.08378", 0.5

    def masks(self, scores: Scores, removed_ppm: int) -> Masks:  # noqa: ARG002 - a schedule can't ask for another
        """The two best of each four, at each place of a kernel; a layer that is limited stays whole.

        Of what is left over where inputs are no multiple of four two stay, so that less than half of such a layer goes.
        """
        return {name: _two_of_four(score) & (score >= 0) for name, score in scores.items()}


def _two_of_four(scores: Tensor) -> Tensor:
    """True for two of four along the second dimension."""
    if bool(scores.isposinf().any()):
        return torch.ones_like(scores, dtype=torch.bool)
    rows = scores.movedim(1, -1)
    inputs = rows.shape[-1]
    fours = F.pad(rows, (0, -inputs % 4), value=-torch.inf).unflatten(-1, (-1, 4))
    best = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, fours.topk(2).indices, True)
    return best.flatten(-2)[..., :inputs].movedim(-1, 1)


def keep(scores: Tensor, removed_ppm: int) -> Tensor:
    """True for all but the ``removed_ppm`` millionths with the lowest scores; the count is exact even among ties."""
    removed = round(scores.numel() * removed_ppm / PARTS_PER_MILLION)
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[torch.topk(scores, removed, largest=False).indices] = False
    return kept


WEIGHT_SCOPES = Registry[WeightScope](n.SCOPE, WeightScope, (Global, Layerwise, Lamp, Erk, TwoFour))
