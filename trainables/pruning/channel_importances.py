"""Scores of channels, for structured pruning; torch-pruning computes them (Fang et al. 2023, arXiv:2301.12900)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.overrides import TorchFunctionMode

from trainables.methods import Method, Registry
from trainables.networks.anatomy import Group, flattens
from trainables.networks.torch_pruning_alone import tp
from trainables.pruning.channel_scopes import ChannelScope
from trainables.pruning.sample import Sample, ready
from trainables.records import names as n
from trainables.training.kernels import trainable

Scorer = Any
"""torch-pruning's importance: from a group to its channels' scores, a tensor, or None where it has nothing to score."""


class ChannelImportance(Method):
    """How much each channel of each group matters."""

    @abstractmethod
    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:
        """What scores the groups of ``model``, once it has seen what it needs of the ``sample``."""

    @classmethod
    def ranks_as(cls, scope: type[ChannelScope]) -> type[ChannelImportance]:  # noqa: ARG003
        """The importance that ranks alike within this scope, and whose name a schedule then has."""
        return cls

    def refuses(self, group: Group) -> str | None:  # noqa: ARG002 - for those that do
        """Why the channels of a group would be scored wrongly, or None."""
        return None


class MagnitudeL1(ChannelImportance):
    """L1 norm of a channel's weights."""

    name, source = "magnitude_l1", "Li et al. 2017, arXiv:1608.08710"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:  # noqa: ARG002
        """The norms."""
        return tp.importance.MagnitudeImportance(p=1)


class MagnitudeL2(ChannelImportance):
    """L2 norm of a channel's weights."""

    name, source = "magnitude_l2", "Li et al. 2017, arXiv:1608.08710"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:  # noqa: ARG002
        """The norms."""
        return tp.importance.MagnitudeImportance(p=2)


class Lamp(ChannelImportance):
    """Squared norm of a channel over the sum of those that are no smaller; with local scope it ranks as magnitude_l2."""

    name, source = "lamp", "Lee et al. 2021, arXiv:2010.07611"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:  # noqa: ARG002
        """The quotients."""
        return tp.importance.LAMPImportance()

    @classmethod
    def ranks_as(cls, scope: type[ChannelScope]) -> type[ChannelImportance]:
        """The quotient changes no order within a group of layers."""
        return cls if scope.across_groups else MagnitudeL2


class Fpgm(ChannelImportance):
    """Distance of a filter to all others of its layer: near the geometric median, it can be spared."""

    name, source = "fpgm", "He et al. 2019, arXiv:1811.00250"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:  # noqa: ARG002
        """The distances."""
        importance = tp.importance.FPGMImportance()

        def score(group: Group) -> torch.Tensor | None:
            with _SummedDistances():
                scores: torch.Tensor | None = importance(group)
            return scores

        return score


class _SummedDistances(TorchFunctionMode):
    """Of many vectors the sums of distances, which torch-pruning asks for, without the matrix and half of its work."""

    MANY, BLOCK = 2048, 1024

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.cdist or args[0].shape[1] <= self.MANY:  # as ever, to the last bit, for those that are fewer
            return func(*args, **(kwargs or {}))
        vectors = args[0][0]
        sums = vectors.new_zeros(len(vectors))
        for i in range(0, len(vectors), self.BLOCK):
            for j in range(i, len(vectors), self.BLOCK):
                distances = torch.cdist(vectors[i : i + self.BLOCK], vectors[j : j + self.BLOCK])
                sums[i : i + self.BLOCK] += distances.sum(1)
                if j > i:
                    sums[j : j + self.BLOCK] += distances.sum(0)
        return sums.view(1, 1, -1)


class BnScale(ChannelImportance):
    """|γ| of the BatchNorm that follows."""

    name, source = "bn_scale", "Liu et al. 2017, arXiv:1708.06519"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:  # noqa: ARG002
        """The scales."""
        return tp.importance.BNScaleImportance()


class FromData(ChannelImportance):
    """What scores with training images."""

    score_images: int = Field(256, ge=1, description="training images that taylor, hessian and activation scores see")


class Taylor(FromData):
    """|w · ∂L/∂w|, the first-order change of the loss when a channel goes."""

    name, source = "taylor", "Molchanov et al. 2019, arXiv:1906.10771"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:
        """From the gradient of the mean loss."""
        sample.gradients(model, self.score_images)
        return _without_nan(tp.importance.TaylorImportance())


def _without_nan(importance: Scorer) -> Scorer:
    """Scores of a group whose gradients all vanish are 0: torch-pruning divides them by their mean."""

    def score(group: Group) -> torch.Tensor | None:
        scores = importance(group)
        dead = scores is not None and len(scores) > 0 and bool(scores.isnan().all())
        return torch.zeros_like(scores) if dead else scores

    return score


class HessianImportance(tp.importance.HessianImportance):  # type: ignore[misc]
    """torch-pruning's, with all samples.

    torch-pruning 1.6.1 compares parameter *names* with a dictionary keyed by *parameters*, so that its own accumulation
    keeps only the last sample; the accumulation here keeps all.
    """

    def accumulate_grad(self, model: nn.Module) -> None:
        """Add the squared gradients of one sample."""
        for parameter in model.parameters():
            if parameter.grad is not None:
                self._accu_grad[parameter] = self._accu_grad.get(parameter, 0) + parameter.grad.detach().pow(2)
                self._counter[parameter] = self._counter.get(parameter, 0) + 1


class Hessian(FromData):
    """Diagonal Fisher, mean of w² · g² over samples."""

    name, source = "hessian", "LeCun et al. 1989, Optimal Brain Damage"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:
        """From the gradients of single images."""
        importance = HessianImportance()
        images, labels = sample.images(self.score_images)
        ready(model)
        for image, truth in zip(images, labels, strict=True):
            model.zero_grad()
            with trainable(model):
                loss = sample.data.task.summed(model(image[None]), truth[None])
            loss.backward()
            for parameter in model.parameters():
                if parameter.grad is None:  # it is frozen, or runs in training alone: nothing changes the loss
                    parameter.grad = torch.zeros_like(parameter)
            importance.accumulate_grad(model)
        return _without_nan(importance)


class ActivationImportance(tp.importance.ActivationImportance):  # type: ignore[misc]
    """torch-pruning's, also where layers take some of the channels each, or none runs in evaluation."""

    def __call__(self, group: Group) -> torch.Tensor | None:
        """The means; 0 where no layer that takes the channels has run."""
        scores: torch.Tensor | None = super().__call__(group)
        takers = [item.dep.target.module for item in group if "prune_in_channels" in item.dep.handler.__name__]
        takers = [module for module in takers if isinstance(module, nn.Conv2d | nn.Linear)]
        if scores is None and takers and not any(hasattr(module, "_importance") for module in takers):
            return torch.zeros(len(group[0].idxs))
        return scores

    def _reduce(self, scores: list[torch.Tensor], channels: list[list[int]]) -> torch.Tensor:
        """torch-pruning goes by the length of the first."""
        count = 1 + max(max(some) for some in channels)
        if len(scores[0]) < count:
            first = torch.zeros(count).index_put_((torch.tensor(channels[0]),), scores[0])
            scores, channels = [first, *scores[1:]], [list(range(count)), *channels[1:]]
        reduced: torch.Tensor = super()._reduce(scores, channels)
        return reduced


class Activation(FromData):
    """Mean |activation| of a channel."""

    name = "activation"

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:
        """From one forward pass."""
        importance = ActivationImportance()
        images, _ = sample.images(self.score_images)
        ready(model)
        with importance.compute_importance(model), torch.no_grad():
            model(images)
        return importance

    def refuses(self, group: Group) -> str | None:
        """A flattened channel becomes several inputs, which torch-pruning 1.6.1 doesn't put together again."""
        if flattens(group):
            return "channels of {leader} are flattened before a linear layer, and torch-pruning scores them wrongly"
        return None


class Random(ChannelImportance):
    """Uniform noise: the control that every importance must beat."""

    name, control = n.RANDOM, True

    def scorer(self, model: nn.Module, sample: Sample) -> Scorer:  # noqa: ARG002
        """Noise of torch's global generator, which a cut seeds."""
        return tp.importance.RandomImportance()


CHANNEL_IMPORTANCES = Registry[ChannelImportance](
    n.IMPORTANCE,
    ChannelImportance,
    (MagnitudeL1, MagnitudeL2, Lamp, Fpgm, BnScale, Taylor, Hessian, Activation, Random),
)
