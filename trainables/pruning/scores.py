"""Scores that need data: what a few fixed training images tell about weights and channels.

The network is in eval mode and in fp32, and BatchNorm's statistics are not touched: scoring changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.data.dataset import Data
from trainables.pruning import channels as structured
from trainables.training.loop import normalise, training_tensors

BATCH = 256


def draw(data: Data, count: int, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """``count`` training images, normalised [N, C, H, W], and their labels, drawn by ``seed``."""
    images, labels = training_tensors(data, device)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count].to(device)
    return normalise(images[order], data), labels[order]


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Leave the gradient of the mean cross-entropy in every parameter."""
    _ready(model)
    for some, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        loss = F.cross_entropy(model(some), truth, reduction="sum") / len(labels)
        loss.backward()


def structured_importance(name: str, model: nn.Module, images: Tensor | None, labels: Tensor | None) -> Any:
    """A torch-pruning importance of this name that has seen what it needs to see."""
    importance = structured.IMPORTANCES[name]()
    if name not in structured.NEEDS_DATA:
        return importance
    assert images is not None
    assert labels is not None
    if name == "taylor":
        gradients(model, images, labels)
    elif name == "hessian":
        _accumulate_samples(importance, model, images, labels)
    else:
        _ready(model)
        with importance.compute_importance(model), torch.no_grad():
            model(images)
    return importance


def _accumulate_samples(importance: Any, model: nn.Module, images: Tensor, labels: Tensor) -> None:
    _ready(model)
    for image, truth in zip(images, labels, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None]), truth[None]).backward()
        importance.accumulate_grad(model)


def _ready(model: nn.Module) -> None:
    model.to(memory_format=torch.channels_last).eval()
    model.zero_grad()
