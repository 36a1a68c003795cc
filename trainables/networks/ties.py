"""Tensors that stand in a network under several names: they are stored, counted and trained once."""

from __future__ import annotations

from torch import Tensor, nn

Ties = list[list[str]]
"""The names of each tensor that has several, in the order in which the network has them."""


def ties(model: nn.Module) -> Ties:
    """The parameters and buffers of ``model`` that several names lead to."""
    names: dict[int, list[str]] = {}
    for name, tensor in _tensors(model):
        names.setdefault(id(tensor), []).append(name)
    return [some for some in names.values() if len(some) > 1]


def retie(model: nn.Module, shared: Ties) -> None:
    """Let names that led to one tensor lead to one again, where a cut left them equal shapes."""
    tensors = dict(_tensors(model))
    for first, *others in shared:
        for name in others:
            if tensors[name].shape == tensors[first].shape and tensors[name] is not tensors[first]:
                owner, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(owner), attribute, tensors[first])


def aliases(model: nn.Module) -> dict[str, str]:
    """From each further name of a tensor to its first."""
    return {name: first for first, *others in ties(model) for name in others}


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = model.named_parameters(remove_duplicate=False)
    return [*parameters, *model.named_buffers(remove_duplicate=False)]
