"""What pruning must know of a network: its prunable layers, its classifier, and which layers lose a channel together.

torch-pruning's dependency graph finds these groups (Fang et al. 2023, arXiv:2301.12900).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.networks.torch_pruning_alone import tp
from trainables.records.names import InputError

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

Group = Any
"""torch-pruning's Group: the layers that lose a channel together, and which channels."""

Removed = list[tuple[str, bool, list[int]]]
"""torch-pruning's history: (module name, output channels?, channel indices) of each cut, in order."""


def prunable(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name, in the order of ``named_modules``; InputError if there are none."""
    layers: dict[str, nn.Module] = {name: m for name, m in model.named_modules() if isinstance(m, PRUNABLE)}
    if not layers:
        raise InputError(
            f"model.name: {type(model).__name__} has no convolution or linear layer to prune; use another model"
        )
    return layers


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable weights by their names in the state dict."""
    return {f"{name}.weight": module.weight for name, module in prunable(model).items()}  # type: ignore[misc]


def classifier(model: nn.Module, classes: int) -> dict[str, nn.Module]:
    """The layer that makes the logits, by name: the last one with ``classes`` outputs. It keeps all of them.

    Raises InputError if there is none, because structured pruning would then cut logits.
    """
    for name, module in reversed(prunable(model).items()):
        if module.weight.shape[0] == classes:  # type: ignore[index]
            return {name: module}
    raise InputError(
        f"model.name: {type(model).__name__} has no layer of {classes} outputs, one a class; let it end in such a layer"
    )


@dataclass(frozen=True)
class Anatomy:
    """What torch-pruning must know of a dense network: an input, the layers that keep their outputs, the widths."""

    example: Tensor
    keep: tuple[str, ...]
    widths: Mapping[str, int]

    @classmethod
    def of(cls, model: nn.Module, shape: tuple[int, int, int], keep: tuple[str, ...]) -> Anatomy:
        """The anatomy of the dense ``model`` for inputs of ``shape`` [C, H, W]; ``keep`` names the classifier."""
        return cls(torch.zeros(1, *shape), keep, widths(model))

    def ignored(self, model: nn.Module) -> list[nn.Module]:
        """The modules of ``model`` whose output channels stay."""
        return [model.get_submodule(name) for name in self.keep]

    def pruner_options(self, model: nn.Module) -> dict[str, Any]:
        """What every pruner of torch-pruning is given; its default dictionaries are shared between instances."""
        empty: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
        return {"ignored_layers": self.ignored(model), **empty}

    def channel_sparsity(self, model: nn.Module) -> float:
        """Fraction of the prunable layers' output channels that is gone, the classifier's left out."""
        now = widths(model)
        names = [name for name in self.widths if name not in self.keep]
        return 1 - sum(now[name] for name in names) / max(1, sum(self.widths[name] for name in names))


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every prunable layer."""
    return {name: int(module.weight.shape[0]) for name, module in prunable(model).items()}  # type: ignore[index]


def replay(model: nn.Module, removed: Removed, anatomy: Anatomy) -> None:
    """Give a dense ``model`` the shapes that it has after the cuts in ``removed``; ValueError for channels it hasn't."""
    if not removed:
        return
    graph = tp.DependencyGraph().build_dependency(model, anatomy.example)
    for name, out, indices in removed:
        module = model.get_submodule(name)
        count = graph.get_out_channels(module) if out else graph.get_in_channels(module)
        if not set(indices) <= set(range(count)):  # torch-pruning would pass over them
            raise ValueError(f"{name} has {count} channels, and not all of {indices[:9]}")
        if indices:
            graph.load_pruning_history([(name, out, list(indices))])


def flattens(group: Group) -> bool:
    """Whether the group's channels become several inputs each of a linear layer."""
    return any(len(item.idxs) > len(group[0].idxs) for item in group)


def groups(model: nn.Module, anatomy: Anatomy) -> list[Group]:
    """torch-pruning's groups: the layers that lose a channel together, with all their channels."""
    graph = tp.DependencyGraph().build_dependency(model, anatomy.example)
    return list(graph.get_all_groups(ignored_layers=anatomy.ignored(model), root_module_types=[nn.Conv2d, nn.Linear]))
