"""Structured pruning: whole channels are removed with torch-pruning (Fang et al. 2023, arXiv:2301.12900).

torch-pruning finds which layers must lose the same channel together (a group), scores the channels of each group, and
rewrites the layers. How many channels remain is computed here from the dense widths, because its own ratios are
truncated and drift from step to step. Its pruners other than Base differ from Base only by a regulariser that must run
in training before the cut (:func:`regulariser`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch_pruning as tp
from pydantic import Field
from torch import Tensor, nn

from trainables.networks.anatomy import Anatomy, Removed, groups, prunable, widths
from trainables.pruning.masks import PARTS_PER_MILLION
from trainables.settings import Settings

ActivationImportance = tp.importance.ActivationImportance


class HessianImportance(tp.importance.HessianImportance):  # type: ignore[misc]
    """Diagonal Fisher, mean of w² · g² over samples (LeCun et al. 1989, Optimal Brain Damage).

    torch-pruning 1.6.1 compares parameter *names* with a dictionary keyed by *parameters*, so that its own accumulation
    keeps only the last sample; the accumulation here keeps all.
    """

    def accumulate_grad(self, model: nn.Module) -> None:
        """Add the squared gradients of one sample."""
        for parameter in model.parameters():
            if parameter.grad is not None:
                self._accu_grad[parameter] = self._accu_grad.get(parameter, 0) + parameter.grad.detach().pow(2)
                self._counter[parameter] = self._counter.get(parameter, 0) + 1


IMPORTANCES: Mapping[str, Callable[[], Any]] = {
    "magnitude_l1": lambda: tp.importance.MagnitudeImportance(p=1),
    "magnitude_l2": lambda: tp.importance.MagnitudeImportance(p=2),
    "lamp": tp.importance.LAMPImportance,
    "fpgm": tp.importance.FPGMImportance,
    "bn_scale": tp.importance.BNScaleImportance,
    "taylor": tp.importance.TaylorImportance,
    "hessian": HessianImportance,
    "activation": ActivationImportance,
    "random": tp.importance.RandomImportance,
}
RANKS_LIKE = {("lamp", "local"): "magnitude_l2"}
"""(importance, scope) -> another importance that ranks alike, and whose name a schedule then has.

LAMP divides a squared norm by the sum of those that are no smaller, which changes no order within a group of layers.
"""
NEEDS_DATA = frozenset({"taylor", "hessian", "activation"})
SCOPES = ("local", "global")
PRUNERS = ("base", "bn_scale", "group_norm", "growing_reg")


class RegularisationSettings(Settings):
    """The regularised training before a cut.

    A penalty acts at every update, so what a strength does grows with the updates of an epoch. These are for some hundreds
    of updates: with 351, strengths of 0.01, 0.002 and 0.001 growing by 0.002 took 1.5, 2 and 13 points off the accuracy
    that these leave (``search/studies/comparison.yaml``).
    """

    learning_rate: float = Field(0.02, gt=0, description="constant learning rate of the regularised training")
    bn_scale: float = Field(1e-3, ge=0, description="BNScale's L1 on BatchNorm scales, at every update (Liu et al. 2017)")
    group_norm: float = Field(1e-4, ge=0, description="GroupNorm's group penalty, at every update (Fang et al. 2023)")
    growing_reg: float = Field(3e-5, ge=0, description="initial strength of GrowingReg's penalty (Wang et al. 2021)")
    growing_reg_delta: float = Field(6e-5, ge=0, description="what GrowingReg's penalty grows by at each growth")
    growing_reg_interval: int = Field(5, ge=1, description="updates between two growths of GrowingReg's penalty")

    def of(self, pruner: str) -> dict[str, float]:
        """The settings that have an effect with this pruner."""
        names = ["learning_rate", pruner] + (
            ["growing_reg_delta", "growing_reg_interval"] if pruner == "growing_reg" else []
        )
        return {name: getattr(self, name) for name in names}


def kept_width(dense: int, removed_ppm: int, round_to: int) -> int:
    """Channels that remain of ``dense``, at least one multiple of ``round_to`` and never more than there were."""
    exact = dense * (PARTS_PER_MILLION - removed_ppm) / PARTS_PER_MILLION
    return min(dense, max(round_to, round(exact / round_to) * round_to))


def cut(
    model: nn.Module, anatomy: Anatomy, importance: Any, scope: str, removed_ppm: int, round_to: int, seed: int
) -> Removed:
    """Remove channels of ``model`` in place until ``removed_ppm`` millionths of the *dense* channels are gone.

    Scope ``local`` leaves ``kept_width`` channels in every group; ``global`` ranks all groups' channels together. Returns
    the record of what was removed. ``importance`` is ready to score (see ``trainables.pruning.scores``).
    """
    model.eval()
    pruner = _pruner(model, anatomy, importance, scope, removed_ppm, round_to)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # RandomImportance draws from torch's global generator
        pruner.step()
    return [(name, bool(out), [int(i) for i in indices]) for name, out, indices in pruner.pruning_history()]


def _pruner(
    model: nn.Module, anatomy: Anatomy, importance: Any, scope: str, removed_ppm: int, round_to: int
) -> tp.pruner.BasePruner:
    common: dict[str, Any] = {
        "example_inputs": anatomy.example,
        "importance": importance,
        "ignored_layers": anatomy.ignored(model),
        "in_channel_groups": {},  # the default dictionaries are shared between instances
        "out_channel_groups": {},
        "num_heads": {},
    }
    if scope == "local":
        now = widths(model)
        ratios = {
            module: _ratio(kept_width(anatomy.widths[name], removed_ppm, round_to), now[name])
            for name, module in prunable(model).items()
            if name not in anatomy.keep
        }
        return tp.pruner.BasePruner(model, pruning_ratio=0.0, pruning_ratio_dict=ratios, **common)
    roots = list(_root_widths(model, anatomy))
    dense, current = sum(d for d, _ in roots), sum(c for _, c in roots)
    ratio = _ratio(kept_width(dense, removed_ppm, 1), current)
    return tp.pruner.BasePruner(
        model, global_pruning=True, pruning_ratio=ratio, round_to=round_to if round_to > 1 else None, **common
    )


def _ratio(kept: int, current: int) -> float:
    """The ratio that makes torch-pruning, which truncates ``current * (1 - ratio)``, keep exactly ``kept``."""
    return max(0.0, 1 - (kept + 0.5) / current)


def _root_widths(model: nn.Module, anatomy: Anatomy) -> Iterator[tuple[int, int]]:
    """(dense, current) channels of each group, told by the layer that leads it."""
    names = {module: name for name, module in prunable(model).items()}
    for group in groups(model, anatomy):
        name = names[group[0].dep.target.module]
        yield anatomy.widths[name], len(group[0].idxs)


def regulariser(
    model: nn.Module, anatomy: Anatomy, pruner: str, settings: Mapping[str, float]
) -> Callable[[nn.Module], None]:
    """The hook that adds the pruner's penalty to the gradients, to run between backward and the optimizer's step.

    The penalties weigh channels by their group L2 norm whatever importance cuts later, so one regularised training
    serves them all.
    """
    common: dict[str, Any] = {
        "importance": tp.importance.MagnitudeImportance(p=2),
        "ignored_layers": anatomy.ignored(model),
        "in_channel_groups": {},
        "out_channel_groups": {},
        "num_heads": {},
    }
    if pruner == "growing_reg":
        strength, delta = settings["growing_reg"], settings["growing_reg_delta"]
        growing = tp.pruner.GrowingRegPruner(model, anatomy.example, reg=strength, delta_reg=delta, **common)
        return GrowingReg(model, growing, int(settings["growing_reg_interval"]))
    kind = {"bn_scale": tp.pruner.BNScalePruner, "group_norm": tp.pruner.GroupNormPruner}[pruner]
    penalty = kind(model, anatomy.example, reg=settings[pruner], **common)
    # GroupNorm divides by the range of a group's norms, which is 0 where one channel is left: nothing there can be cut.
    penalty._groups = [group for group in penalty._groups if len(group[0].idxs) > 1]
    hook: Callable[[nn.Module], None] = penalty.regularize
    return hook


class GrowingReg:
    """The hook of GrowingReg, whose penalties grow every ``interval`` updates; its state is kept with the training's."""

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
