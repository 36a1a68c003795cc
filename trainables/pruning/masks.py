"""Unstructured pruning: single weights are set to zero and held there by masks of our own.

A mask is a boolean tensor of its weight's shape, True where the weight is kept. ``torch.nn.utils.prune`` is not used:
its hooks double the state dict, break ``deepcopy`` and torch-pruning, and its amounts are relative to what remains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from trainables.networks.limits import spare
from trainables.networks.network import Masks, Network
from trainables.pruning.sample import Sample
from trainables.pruning.weight_importances import WeightImportance
from trainables.pruning.weight_scopes import WeightScope


def cut(
    network: Network, importance: WeightImportance, scope: WeightScope, removed_ppm: int, sample: Sample,
    spared: Mapping[str, float] | None = None,
) -> Masks:  # fmt: skip
    """The masks that remove ``removed_ppm`` millionths of all prunable weights, those removed already among them.

    A weight once removed stays removed. Of the weights in ``spared`` no more than a share may go.
    """
    scores = {}
    for name, score in importance.scores(network, sample).items():
        # Scores are never negative, so weights that are gone rank below every weight that is left.
        there, gone = score.detach().cpu().float(), network.masks.get(name)
        scores[name] = there if gone is None else there.masked_fill(~gone, -1.0)
    scores = dict(scope.rescored(scores))
    if not spared:
        return scope.masks(scores, removed_ppm)
    scores = {name: spare(score, spared[name]) if name in spared else score for name, score in scores.items()}
    return {name: mask | scores[name].isposinf() for name, mask in scope.masks(scores, removed_ppm).items()}


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
