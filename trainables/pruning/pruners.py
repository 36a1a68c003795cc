"""What prepares channels for a cut: nothing, or a training with a regulariser that makes those small that will go.

torch-pruning's pruners other than Base differ from Base only by a regulariser that must run in training before the cut.
The penalties weigh channels by their group's L2 norm whatever importance cuts later, so one regularised training serves
them all. A penalty acts at every update, so what a strength does grows with the updates of an epoch. The defaults are for
some hundreds of updates: with 351, strengths of 0.01, 0.002 and 0.001 growing by 0.002 took 1.5, 2 and 13 points off the
accuracy that these leave (``search/studies/comparison_short_budgets.yaml``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.methods import Method, Registry
from trainables.networks.anatomy import Anatomy, Group, tracing
from trainables.networks.torch_pruning_alone import tp
from trainables.records import names as n
from trainables.training.stepping import Hook


class Pruner(Method):
    """What happens to the network before its channels are scored."""

    regularises: ClassVar[bool] = False
    """Whether it trains with a penalty, for ``sparse_epochs`` before each cut."""
    strengths: ClassVar[tuple[str, ...]] = ()
    """Those of its settings that a schedule's ``strength`` multiplies."""


class Base(Pruner):
    """Nothing: the network is cut as it is."""

    name = "base"


class Regulariser(Pruner):
    """A training whose penalty makes channels small before they are cut."""

    regularises = True
    learning_rate: float = Field(0.02, gt=0, description="constant learning rate of the regularised training")

    @abstractmethod
    def penalty(self, model: nn.Module, anatomy: Anatomy) -> Hook:
        """The hook that adds the penalty to the gradients, to run between backward and the optimizer's step."""


class BnScale(Regulariser):
    """An L1 penalty on all BatchNorm scales."""

    name, source = "bn_scale", "Liu et al. 2017, arXiv:1708.06519"
    strengths = ("bn_scale",)
    bn_scale: float = Field(1e-3, ge=0, description="BNScale's L1 on BatchNorm scales, at every update (Liu et al. 2017)")

    def penalty(self, model: nn.Module, anatomy: Anatomy) -> Hook:
        """torch-pruning's BNScalePruner."""
        return _regularise(tp.pruner.BNScalePruner, model, anatomy, reg=self.bn_scale)


class GroupNorm(Regulariser):
    """A penalty on the norm of each group's channels, the stronger the smaller they are."""

    name, source = "group_norm", "Fang et al. 2023, arXiv:2301.12900"
    strengths = ("group_norm",)
    group_norm: float = Field(1e-4, ge=0, description="GroupNorm's group penalty, at every update (Fang et al. 2023)")

    def penalty(self, model: nn.Module, anatomy: Anatomy) -> Hook:
        """torch-pruning's GroupNormPruner."""
        return _regularise(tp.pruner.GroupNormPruner, model, anatomy, reg=self.group_norm)


class GrowingReg(Regulariser):
    """A penalty that grows as training goes on, on the channels of the smallest norms most."""

    name, source = "growing_reg", "Wang et al. 2021, arXiv:2012.09243"
    strengths = ("growing_reg", "growing_reg_delta")
    growing_reg: float = Field(3e-5, ge=0, description="initial strength of GrowingReg's penalty (Wang et al. 2021)")
    growing_reg_delta: float = Field(6e-5, ge=0, description="what GrowingReg's penalty grows by at each growth")
    growing_reg_interval: int = Field(5, ge=1, description="updates between two growths of GrowingReg's penalty")

    def penalty(self, model: nn.Module, anatomy: Anatomy) -> Hook:
        """torch-pruning's GrowingRegPruner, grown at every so many updates."""
        strengths = {"reg": self.growing_reg, "delta_reg": self.growing_reg_delta}
        pruner = _pruner(tp.pruner.GrowingRegPruner, model, anatomy, **strengths)
        return GrowingPenalty(model, pruner, self.growing_reg_interval)


def _pruner(kind: Any, model: nn.Module, anatomy: Anatomy, **strengths: float) -> Any:
    importance = tp.importance.MagnitudeImportance(p=2)
    with tracing(model):
        pruner = kind(model, anatomy.example, importance, **strengths, **anatomy.pruner_options(model))
    if hasattr(pruner, "_groups"):
        pruner._groups = [group for group in pruner._groups if _penalised(group)]
    return pruner


def _penalised(group: Group) -> bool:
    """Take out of a group what torch-pruning's penalties address wrongly; whether a layer is left.

    These are the inputs of grouped convolutions, transposed convolutions, and channels that were moved about.
    """
    group._group = [item for item in group if _addressed(item)]
    return any(isinstance(item.dep.target.module, nn.modules.conv._ConvNd | nn.Linear) for item in group)


def _addressed(item: Any) -> bool:
    module, inputs = item.dep.target.module, "in_channels" in item.dep.handler.__name__
    if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
        if getattr(module, "transposed", False):
            return False
        return max(item.idxs, default=-1) < module.weight.shape[1 if inputs else 0]
    return not isinstance(module, nn.modules.batchnorm._BatchNorm) or max(item.idxs, default=-1) < module.num_features


def _regularise(kind: Any, model: nn.Module, anatomy: Anatomy, **strengths: float) -> Hook:
    penalty = _pruner(kind, model, anatomy, **strengths)
    # GroupNorm divides by the range of a group's norms, which is 0 where one channel is left: nothing there can be cut.
    penalty._groups = [group for group in penalty._groups if len(group[0].idxs) > 1]
    hook: Hook = penalty.regularize
    return hook


class GrowingPenalty:
    """GrowingReg's hook, whose penalties grow every ``interval`` updates; its state is kept with the training's."""

    def __init__(self, model: nn.Module, pruner: Any, interval: int) -> None:
        self._pruner, self._interval, self._updates = pruner, interval, 0
        names = {module: name for name, module in model.named_modules()}
        self._groups = {f"strength.{names[group[0].dep.target.module]}": group for group in pruner._groups}

    def __call__(self, model: nn.Module) -> None:
        """Add the penalty to the gradients."""
        self._updates += 1
        if self._updates % self._interval == 0:
            self._pruner.update_reg()
        self._pruner.regularize(model)

    def state_dict(self) -> dict[str, Tensor]:
        """The updates so far, and the strength of each channel's penalty by the layer that leads its group."""
        strengths = {name: self._pruner.group_reg[group] for name, group in self._groups.items()}
        return {"updates": torch.tensor(self._updates), **strengths}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from that state."""
        self._updates = int(state["updates"])
        self._pruner.group_reg.update({group: state[name].clone() for name, group in self._groups.items()})


PRUNERS = Registry[Pruner](n.PRUNER, Pruner, (Base, BnScale, GroupNorm, GrowingReg))
