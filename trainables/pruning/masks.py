"""Unstructured pruning: single weights are set to zero and held there by masks of our own.

A mask is a boolean tensor of its weight's shape, True where the weight is kept. ``torch.nn.utils.prune`` is not used:
its hooks double the state dict, break ``deepcopy`` and torch-pruning, and its amounts are relative to what remains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from trainables.networks.anatomy import prunable
from trainables.networks.network import Masks

Score = Callable[[Tensor, Tensor | None, torch.Generator], Tensor]

PARTS_PER_MILLION = 1_000_000


def magnitude(weight: Tensor, _gradient: Tensor | None, _random: torch.Generator) -> Tensor:
    """|w| (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    return weight.abs()


def taylor(weight: Tensor, gradient: Tensor | None, _random: torch.Generator) -> Tensor:
    """|w · ∂L/∂w|, the first-order change of the loss when w goes (Molchanov et al. 2019, arXiv:1906.10771; SNIP)."""
    assert gradient is not None, "taylor scores need gradients"
    return (weight * gradient).abs()


def random(weight: Tensor, _gradient: Tensor | None, random: torch.Generator) -> Tensor:
    """Uniform noise: the control that every importance must beat."""
    return torch.rand(weight.shape, generator=random)


IMPORTANCES: Mapping[str, Score] = {"magnitude": magnitude, "taylor": taylor, "random": random}
NEEDS_GRADIENTS = frozenset({"taylor"})


def _global(scores: Mapping[str, Tensor], removed_ppm: int) -> Masks:
    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = _keep(flat, removed_ppm)
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def _layerwise(scores: Mapping[str, Tensor], removed_ppm: int) -> Masks:
    return {name: _keep(score.flatten(), removed_ppm).view_as(score) for name, score in scores.items()}


def _keep(scores: Tensor, removed_ppm: int) -> Tensor:
    """True for all but the ``removed_ppm`` millionths with the lowest scores; the count is exact even among ties."""
    removed = round(scores.numel() * removed_ppm / PARTS_PER_MILLION)
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[torch.topk(scores, removed, largest=False).indices] = False
    return keep


SCOPES: Mapping[str, Callable[[Mapping[str, Tensor], int], Masks]] = {"global": _global, "layerwise": _layerwise}


def cut(model: nn.Module, masks: Masks, importance: str, scope: str, removed_ppm: int, seed: int) -> Masks:
    """The masks that remove ``removed_ppm`` millionths of all prunable weights, those removed already among them.

    ``model`` holds gradients if the importance needs them (NEEDS_GRADIENTS). A weight once removed stays removed.
    """
    draw = torch.Generator().manual_seed(seed)
    scores = {}
    for name, weight in weights(model).items():
        gradient = None if weight.grad is None else weight.grad.cpu()
        score = IMPORTANCES[importance](weight.detach().cpu(), gradient, draw).float()
        # Scores are never negative, so weights that are gone rank below every weight that is left.
        scores[name] = score.masked_fill(~masks[name], -1.0) if name in masks else score
    return SCOPES[scope](scores, removed_ppm)


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable weights by their names in the state dict."""
    return {f"{name}.weight": module.weight for name, module in prunable(model).items()}  # type: ignore[misc]


def masking(model: nn.Module, masks: Masks) -> Callable[[nn.Module], None]:
    """A hook that zeroes what is masked; run after every update, or momentum revives pruned weights in two steps."""
    parameters = dict(model.named_parameters())
    pairs = {parameters[name]: ~mask for name, mask in masks.items()}

    @torch.no_grad()
    def apply(_model: nn.Module) -> None:
        for weight, gone in pairs.items():
            if gone.device != weight.device:  # training has moved the model, and masks follow it once
                pairs[weight] = gone.to(weight.device)
            weight.masked_fill_(pairs[weight], 0.0)

    return apply
