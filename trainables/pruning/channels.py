"""Structured pruning: whole channels are removed with torch-pruning (Fang et al. 2023, arXiv:2301.12900).

torch-pruning finds which layers must lose the same channel together (a group), scores the channels of each group, and
rewrites the layers.
"""

from __future__ import annotations

import torch
from torch import nn

from trainables.networks.anatomy import Anatomy, Removed
from trainables.networks.torch_pruning_alone import tp
from trainables.pruning.channel_importances import ChannelImportance
from trainables.pruning.channel_scopes import ChannelScope
from trainables.pruning.sample import Sample


def cut(
    model: nn.Module, anatomy: Anatomy, importance: ChannelImportance, scope: ChannelScope, removed_ppm: int,
    round_to: int, sample: Sample,
) -> Removed:  # fmt: skip
    """Remove channels of ``model`` in place until ``removed_ppm`` millionths of the *dense* channels are gone.

    Returns the record of what was removed.
    """
    scorer = importance.scorer(model, sample)
    model.eval()
    pruner = tp.pruner.BasePruner(
        model,
        anatomy.example,
        scorer,
        **scope.options(model, anatomy, removed_ppm, round_to),
        **anatomy.pruner_options(model),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sample.seed)  # torch-pruning's random importance draws from torch's global generator
        pruner.step()
    return [(name, bool(out), [int(i) for i in indices]) for name, out, indices in pruner.pruning_history()]
