"""Scores of single weights, for unstructured pruning."""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods import Method, Registry
from trainables.networks.anatomy import weights
from trainables.networks.network import Network
from trainables.pruning.sample import Sample
from trainables.records import names as n


class WeightImportance(Method):
    """How much each prunable weight matters."""

    @abstractmethod
    def scores(self, network: Network, sample: Sample) -> dict[str, Tensor]:
        """A score, not negative, for each weight: a tensor of its shape by its name (``networks.network.weights``)."""


class Magnitude(WeightImportance):
    """|w|."""

    name, source = "magnitude", "Han et al. 2015, arXiv:1506.02626"

    def scores(self, network: Network, sample: Sample) -> dict[str, Tensor]:  # noqa: ARG002
        """|w|."""
        return {name: weight.detach().abs() for name, weight in weights(network.model).items()}


class Taylor(WeightImportance):
    """|w · ∂L/∂w|, the first-order change of the loss when w goes."""

    name, source = "taylor", "Molchanov et al. 2019, arXiv:1906.10771; as SNIP, Lee et al. 2019, arXiv:1810.02340"
    score_images: int = Field(256, ge=1, description="training images that taylor, hessian and activation scores see")

    def scores(self, network: Network, sample: Sample) -> dict[str, Tensor]:
        """|w · ∂L/∂w|, of the mean loss over the sample."""
        sample.gradients(network.model, self.score_images)
        found = {}
        for name, weight in weights(network.model).items():
            # Where no gradient arrives, in a layer that is frozen or runs in training alone, nothing changes the loss.
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            found[name] = (weight.detach() * gradient).abs()
        return found


class Random(WeightImportance):
    """Uniform noise: the control that every importance must beat."""

    name, control = n.RANDOM, True

    def scores(self, network: Network, sample: Sample) -> dict[str, Tensor]:
        """Uniform noise, drawn by the step's seed."""
        random = sample.random()
        return {name: torch.rand(weight.shape, generator=random) for name, weight in weights(network.model).items()}


WEIGHT_IMPORTANCES = Registry[WeightImportance](n.IMPORTANCE, WeightImportance, (Magnitude, Taylor, Random))
