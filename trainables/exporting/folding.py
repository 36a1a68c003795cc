"""BatchNorm folded into the layer before it, as inference can do without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from trainables.networks.running import copied

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def folded(model: nn.Module, program: ExportedProgram) -> tuple[nn.Module, int]:
    """A copy of ``model`` without each BatchNorm that alone follows a convolution or linear layer, and how many went.

    ``program`` is the model's own, in eval mode: what follows what is read in its graph.
    """
    model, count = copied(model), 0
    for layer, norm in list(_pairs(model, program)):
        before: Any = model.get_submodule(layer)
        after: Any = model.get_submodule(norm)
        fuse = fuse_conv_bn_eval if type(before) in CONVOLUTIONS else fuse_linear_bn_eval
        _put(model, layer, fuse(before, after))
        _put(model, norm, nn.Identity())
        count += 1
    return model, count


def _pairs(model: nn.Module, program: ExportedProgram) -> Iterator[tuple[str, str]]:
    """The names of layers with the BatchNorm that takes their output, where neither stands in the graph twice."""
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    for node in program.graph.nodes:
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        source, mean = node.args[0], node.args[3]
        layer, norm = _owner(source.args[1] if len(source.args) > 1 else None, names), _owner(mean, names)
        if len(source.users) > 1 or layer is None or norm is None:
            continue
        kinds = type(model.get_submodule(layer)), type(model.get_submodule(norm))
        if kinds[0] in (*CONVOLUTIONS, nn.Linear) and kinds[1] in NORMS:
            yield layer, norm


def _owner(tensor: object, names: dict[str, str]) -> str | None:
    """The layer that a tensor of the graph is of, if it is used once."""
    if not isinstance(tensor, Node) or tensor.name not in names or len(tensor.users) > 1:
        return None
    return names[tensor.name].rpartition(".")[0]


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
