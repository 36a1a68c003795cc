"""Attention, so that it can be pruned: which modules of a network are one, and how heads are taken from them.

torch-pruning follows channels through layers, and loses them in the reshapes of attention. To it an attention is one layer,
whose inputs are those of the query, key and value projection, and whose outputs are those of the output projection. Between
these two whole heads are removed here. The dimensions of a head stay as they are, and with them the scale 1/√d.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.networks.attention.multihead import MultiheadAttention
from trainables.networks.torch_pruning_alone import tp

IN_NAMES = ("qkv", "in_proj", "to_qkv", "qkv_proj", "Wqkv")
OUT_NAMES = ("proj", "out_proj", "to_out", "merge", "o", "out", "o_proj")
HEAD_NAMES = ("num_heads", "n_heads", "heads", "nhead", "num_attention_heads")
"""How modules call the two projections, and the number of heads."""
LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)
"""What an attention has no more of than these two."""
KEEP, FULL = "keep_heads", "full"
"""The method of a module that has more to keep for each head, and the attribute of a layer that counts removed channels."""
SWIN, VIT = "torchvision.models.swin_transformer", "torchvision.models.vision_transformer"


def adapt(model: nn.Module) -> None:
    """Let every ``nn.MultiheadAttention`` and every Swin window attention of torchvision take fewer heads, in place."""
    made: dict[nn.Module, nn.Module] = {}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.MultiheadAttention and MultiheadAttention.takes(child):
                setattr(module, name, made.setdefault(child, MultiheadAttention(child)))
        if SWIN in sys.modules:
            importlib.import_module("trainables.networks.attention.windows").adapt(module)


@dataclass(frozen=True)
class Heads:
    """The heads of an attention ``module``: ``first`` makes query, key and value, ``last`` the outputs.

    A head has ``size`` channels, which is 1 if nothing tells how many heads there are. Of an ``own`` module fewer heads are
    computed; any other computes all, from zeros where there are none, so that its reshapes stay right.
    """

    module: nn.Module
    first: nn.Linear
    last: nn.Linear
    size: int
    own: bool

    @property
    def width(self) -> int:
        """Channels of all heads that are left."""
        return self.first.out_features // 3

    def rows(self, channels: Iterable[int]) -> list[int]:
        """The outputs of ``first`` that make these channels."""
        return [part * self.width + channel for part in range(3) for channel in channels]

    def remove(self, channels: Iterable[int]) -> None:
        """Remove the heads of these channels, which must be whole ones; ValueError otherwise."""
        gone = sorted(set(channels))
        heads = sorted({channel // self.size for channel in gone})
        whole = len(gone) == len(heads) * self.size and gone[0] >= 0 and gone[-1] < self.width
        if not whole or len(gone) == self.width:
            raise ValueError(f"there are {self.width // self.size} heads of {self.size} channels, and not {gone[:9]}")
        rows = _others(self.first.out_features, self.rows(gone))
        if not self.own:
            _spread(self.first, rows)
            _gather(self.last, _others(self.width, gone))
        columns = _others(self.width, gone)
        _narrow(self.first, 0, rows)
        _narrow(self.last, 1, columns)
        if self.own:
            left = _others(self.module.num_heads, heads)  # type: ignore[arg-type]
            self.module.num_heads = len(left)  # type: ignore[assignment]
            if keep := getattr(self.module, KEEP, None):
                keep(left)
            elif hasattr(self.module, "attn_dim"):
                self.module.attn_dim = len(columns)  # type: ignore[assignment]


def heads_of(module: Any) -> Heads | None:
    """The heads of a module that is an attention with one layer for query, key and value; None if it isn't."""
    if not isinstance(module, nn.Module):  # a parameter, among torch-pruning's layers
        return None
    if isinstance(module, MultiheadAttention):
        return Heads(module, module.in_proj, module.out_proj, module.head_dim, own=True)
    first, last = _child(module, IN_NAMES), _child(module, OUT_NAMES)
    if first is None or last is None:
        return None
    if hasattr(module, KEEP) or _of_timm(module):
        return Heads(module, first, last, module.head_dim, own=True)  # type: ignore[arg-type]
    if any(isinstance(inner, LAYERS) and inner not in (first, last) for inner in module.modules()):
        return None
    count = next((getattr(module, name) for name in HEAD_NAMES if isinstance(getattr(module, name, None), int)), 0)
    outputs, inputs = getattr(first, FULL, first.out_features), getattr(last, FULL, last.in_features)
    size = inputs // count if count > 0 and inputs % count == 0 else 1
    return Heads(module, first, last, size, own=False) if outputs == 3 * inputs else None


def _child(module: nn.Module, names: Iterable[str]) -> nn.Linear | None:
    for name in names:
        found = module._modules.get(name)
        found = found[0] if isinstance(found, nn.Sequential) and len(found) else found
        if isinstance(found, nn.Linear):
            return found
    return None


def _of_timm(module: Any) -> bool:
    """Whether it is timm's plain attention, which counts its own heads."""
    known = getattr(sys.modules.get("timm.layers.attention"), "Attention", None)
    return type(module) is known and module.gate is None and isinstance(module.norm, nn.Identity)


class Spread(nn.Linear):
    """A linear layer that puts out zeros where its outputs were removed; ``full`` is how many there are with these."""

    full: int
    kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """From [..., inputs] to [..., full]."""
        made = super().forward(x)
        return made.new_zeros(*made.shape[:-1], self.full).index_copy(-1, self.kept, made)


class Gathered(nn.Linear):
    """A linear layer that takes no notice of inputs that were removed; ``full`` is how many there are with these."""

    full: int
    kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """From [..., full] to [..., outputs]."""
        return super().forward(x.index_select(-1, self.kept))


def _spread(layer: nn.Linear, left: list[int]) -> None:
    if not isinstance(layer, Spread):
        _count_all(layer, layer.out_features, Spread)
    layer.kept = layer.kept[left]  # type: ignore[index]


def _gather(layer: nn.Linear, left: list[int]) -> None:
    if not isinstance(layer, Gathered):
        _count_all(layer, layer.in_features, Gathered)
    layer.kept = layer.kept[left]  # type: ignore[index]


def _count_all(layer: nn.Linear, full: int, kind: type[nn.Linear]) -> None:
    layer.__class__ = kind
    layer.full = full  # type: ignore[assignment]
    layer.register_buffer("kept", torch.arange(full, device=layer.weight.device), persistent=False)


def _narrow(layer: nn.Linear, dim: int, left: list[int]) -> None:
    """Keep these outputs (dim 0) or inputs (dim 1) of a layer."""
    layer.weight = narrowed(layer.weight, dim, left)
    if dim == 0:
        layer.out_features = len(left)
        if layer.bias is not None:
            layer.bias = narrowed(layer.bias, 0, left)
    else:
        layer.in_features = len(left)


def narrowed(parameter: Tensor, dim: int, left: list[int]) -> nn.Parameter:
    """A parameter of what is ``left`` along ``dim``."""
    chosen = parameter.detach().index_select(dim, torch.tensor(left, device=parameter.device))
    return nn.Parameter(chosen, requires_grad=parameter.requires_grad)


def _others(count: int, gone: Iterable[int]) -> list[int]:
    without = set(gone)
    return [i for i in range(count) if i not in without]


class Ends(tp.pruner.BasePruningFunc):  # type: ignore[misc]
    """torch-pruning's way to cut an attention's inputs and outputs."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """Outputs of the last projection."""
        tp.prune_linear_out_channels(_heads(layer).last, idxs)
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """Inputs of the first projection."""
        tp.prune_linear_in_channels(_heads(layer).first, idxs)
        return layer

    def get_out_channels(self, layer: nn.Module) -> int:
        """Outputs that are left."""
        return _heads(layer).last.out_features

    def get_in_channels(self, layer: nn.Module) -> int:
        """Inputs that are left."""
        return _heads(layer).first.in_features


def _heads(module: nn.Module) -> Heads:
    found = heads_of(module)
    assert found is not None, "a module of one kind is an attention, and another of this kind isn't"
    return found


def kinds(model: nn.Module) -> dict[type[nn.Module], Ends]:
    """The classes of the attentions of ``model``, as torch-pruning is told of layers that it doesn't know."""
    found: dict[type[nn.Module], bool] = {}
    for module in model.modules():
        found[type(module)] = found.get(type(module), True) and heads_of(module) is not None
    return {kind: Ends() for kind, all_are in found.items() if all_are}


def settle(model: nn.Module) -> None:
    """Let torchvision's vision transformer know its width after a cut: it reshapes by it."""
    kind = getattr(sys.modules.get(VIT), "VisionTransformer", ())
    for module in model.modules():
        if isinstance(module, kind):
            module.hidden_dim = getattr(module.conv_proj, "out_channels", module.hidden_dim)
