"""What scores may see beside the network: a few fixed training images, and randomness of the step's own.

A network that is scored is in eval mode and in fp32, and BatchNorm's statistics are not touched: scoring changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.data.dataset import Data
from trainables.data.preparation import as_evaluated
from trainables.networks.running import channels_last
from trainables.training.feeding import normalise, training_tensors
from trainables.training.kernels import trainable

BATCH = 256


@dataclass(frozen=True)
class Sample:
    """The training images and the randomness of one step, both drawn by its ``seed``, on the CPU.

    Scores are computed there wherever training runs: torch-pruning mixes devices badly, and the set is small.
    """

    data: Data
    seed: int

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` training images, normalised [N, C, H, W], and their labels."""
        images, labels = training_tensors(self.data, "cpu")
        order = torch.randperm(len(labels), generator=self.random())[:count]
        return normalise(as_evaluated(images[order], self.data), self.data), labels[order]

    def random(self) -> torch.Generator:
        """A generator that draws the same for the same step."""
        return torch.Generator().manual_seed(self.seed)

    def gradients(self, model: nn.Module, count: int) -> None:
        """Leave the gradient of the mean loss over ``count`` images in every parameter."""
        images, labels = self.images(count)
        ready(model)
        for some, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            with trainable(model):
                loss = self.data.task.summed(model(some), truth) / len(labels)
            loss.backward()
        for parameter in model.parameters():
            if parameter.grad is None:  # it is frozen, or runs in training alone: nothing changes the loss
                parameter.grad = torch.zeros_like(parameter)


def ready(model: nn.Module) -> None:
    """Put ``model`` into eval mode, without gradients, for scores."""
    channels_last(model).eval()
    model.zero_grad()
