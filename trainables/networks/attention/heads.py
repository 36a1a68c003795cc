"""Attention, so that it can be pruned: which modules of a network are one, and how heads are taken from them.

torch-pruning follows channels through layers, and loses them in the reshapes of attention. To it an attention is one layer,
whose inputs are those of the projections of queries, keys and values, and whose outputs are those of the output projection.
Between these whole heads are removed here. The dimensions of a head stay as they are, and with them the scale 1/√d.

Most modules reshape by the width of their inputs or by their number of heads, and some add inputs to outputs. So a module
that isn't known to do without is given zeros for inputs and heads that were removed, and its other outputs are dropped.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from trainables.networks.attention import parts
from trainables.networks.attention.multihead import MultiheadAttention
from trainables.networks.torch_pruning_alone import tp

IN_NAMES = ("qkv", "in_proj", "to_qkv", "qkv_proj", "Wqkv", "c_attn")
APART_NAMES = (
    ("q", "k", "v"), ("query", "key", "value"), ("queries", "keys", "values"), ("to_q", "to_k", "to_v"),
    ("q_proj", "k_proj", "v_proj"), ("q_linear", "k_linear", "v_linear"), ("wq", "wk", "wv"), ("Wq", "Wk", "Wv"),
    ("W_q", "W_k", "W_v"), ("w_q", "w_k", "w_v"), ("w_qs", "w_ks", "w_vs"),
)  # fmt: skip
OUT_NAMES = (
    "proj", "out_proj", "to_out", "merge", "o", "out", "o_proj", "c_proj", "out_linear", "fc", "fc_out", "wo", "Wo",
    "W_o", "w_o",
)  # fmt: skip
HEAD_NAMES = ("num_heads", "n_heads", "heads", "nhead", "num_attention_heads", "n_head", "nheads", "h")
"""How modules call the projections, and the number of heads."""
LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)
"""What an attention has no more of than these."""
KEEP = "keep_heads"
"""The method of a module that has more to keep for each head."""
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
    """The heads of an attention ``module``: one or three ``firsts`` make query, key and value, ``last`` the outputs.

    A head has ``size`` channels, which is 1 if there is one head, or nothing tells how many there are. Of an ``own`` module
    fewer heads are computed; any other computes all, from zeros where there are none, so that its reshapes stay right.
    """

    module: nn.Module
    firsts: tuple[nn.Module, ...]
    last: nn.Module
    size: int
    own: bool

    @property
    def width(self) -> int:
        """Channels of all heads that are left."""
        return sum(map(parts.outputs_of, self.firsts)) // 3

    def rows(self, channels: Iterable[int]) -> list[tuple[nn.Module, list[int]]]:
        """The outputs that make these channels: those of the query, the key and the value."""
        starts = (0,) if len(self.firsts) > 1 else (0, self.width, 2 * self.width)
        return [(one, [start + channel for channel in channels]) for one in self.firsts for start in starts]

    def remove(self, channels: Iterable[int]) -> None:
        """Remove the heads of these channels, which must be whole ones; ValueError otherwise."""
        gone = sorted(set(channels))
        heads = sorted({channel // self.size for channel in gone})
        whole = len(gone) == len(heads) * self.size and gone[0] >= 0 and gone[-1] < self.width
        if not whole or len(gone) == self.width:
            raise ValueError(f"there are {self.width // self.size} heads of {self.size} channels, and not {gone[:9]}")
        columns, rows = parts.others(self.width, gone), self.rows(gone)
        for one in self.firsts:
            left = parts.others(parts.outputs_of(one), [row for layer, some in rows if layer is one for row in some])
            if not self.own:
                parts.spread(one, left)
            parts.narrow(one, 0, left)
        if not self.own:
            parts.gather(self.last, columns)
        parts.narrow(self.last, 1, columns)
        if self.own:
            left = parts.others(self.module.num_heads, heads)  # type: ignore[arg-type]
            self.module.num_heads = len(left)  # type: ignore[assignment]
            if keep := getattr(self.module, KEEP, None):
                keep(left)
            elif hasattr(self.module, "attn_dim"):
                self.module.attn_dim = len(columns)  # type: ignore[assignment]

    def remove_inputs(self, channels: Iterable[int]) -> None:
        """Remove these inputs of the module."""
        count = parts.inputs_of(self.firsts[0])
        left = parts.others(count, channels)
        if not self.own:
            parts.widen(self.module, parts.part_of(self.firsts[0]).axis, count, left)
        for one in self.firsts:
            if not self.own:
                parts.gather(one, left)
            parts.narrow(one, 1, left)

    def remove_outputs(self, channels: Iterable[int]) -> None:
        """Remove these outputs of the module."""
        count = parts.outputs_of(self.last)
        left = parts.others(count, channels)
        if not self.own:
            parts.choose(self.module, parts.part_of(self.last).axis, count, left)
            parts.spread(self.last, left)
        parts.narrow(self.last, 0, left)


def heads_of(module: Any) -> Heads | None:
    """The heads of a module that is an attention of query, key and value alike; None if it isn't."""
    if not isinstance(module, nn.Module):  # a parameter, among torch-pruning's layers
        return None
    if isinstance(module, MultiheadAttention):
        return Heads(module, (module.in_proj,), module.out_proj, module.head_dim, own=True)
    last = _child(module, OUT_NAMES) if len(module._modules) > 1 else None  # most modules have none, and are asked often
    firsts = _firsts(module) if last is not None else ()
    if last is None or not firsts:
        return None
    if len(firsts) == 1 and (hasattr(module, KEEP) or _of_timm(module)):
        return Heads(module, firsts, last, module.head_dim, own=True)  # type: ignore[arg-type]
    return _alike(module, firsts, last)


def _alike(module: nn.Module, firsts: tuple[nn.Module, ...], last: nn.Module) -> Heads | None:
    """The heads of a module that nobody knows, if it has these layers alone, of as many channels for each part."""
    if any(isinstance(inner, LAYERS) and inner not in (*firsts, last) for inner in module.modules()):
        return None
    count = next((getattr(module, name) for name in HEAD_NAMES if isinstance(getattr(module, name, None), int)), 0)
    if not count and not (len(firsts) == 1 and isinstance(last, nn.Linear)):  # torch-pruning may follow what it reshapes
        return None
    inputs = getattr(last, "full_inputs", parts.inputs_of(last))
    outputs = {getattr(one, "full_outputs", parts.outputs_of(one)) for one in firsts}
    size = inputs // count if count > 1 and inputs % count == 0 else 1
    return Heads(module, firsts, last, size, own=False) if outputs == {3 * inputs // len(firsts)} else None


def _firsts(module: nn.Module) -> tuple[nn.Module, ...]:
    if fused := _child(module, IN_NAMES):
        return (fused,)
    for names in APART_NAMES:
        found = [one for name in names if (one := _child(module, (name,)))] if names[0] in module._modules else []
        if len(set(found)) == len(names) and len({(type(one), parts.inputs_of(one)) for one in found}) == 1:
            return tuple(found)
    return ()


def _child(module: nn.Module, names: Iterable[str]) -> nn.Module | None:
    for name in names:
        found = module._modules.get(name)
        found = found[0] if isinstance(found, nn.Sequential) and len(found) else found
        if parts.is_layer(found):
            return found
    return None


def _of_timm(module: Any) -> bool:
    """Whether it is timm's plain attention, which counts its own heads."""
    known = getattr(sys.modules.get("timm.layers.attention"), "Attention", None)
    return type(module) is known and module.gate is None and isinstance(module.norm, nn.Identity)


class Ends(tp.pruner.BasePruningFunc):  # type: ignore[misc]
    """torch-pruning's way to cut an attention's inputs and outputs."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """Outputs of the last projection."""
        _heads(layer).remove_outputs(idxs)
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """Inputs of the first projections."""
        _heads(layer).remove_inputs(idxs)
        return layer

    def get_out_channels(self, layer: nn.Module) -> int:
        """Outputs that are left."""
        return parts.outputs_of(_heads(layer).last)

    def get_in_channels(self, layer: nn.Module) -> int:
        """Inputs that are left."""
        return parts.inputs_of(_heads(layer).firsts[0])


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
