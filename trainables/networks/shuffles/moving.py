"""Moved and split channels as steps that torch-pruning's graph follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trainables.networks.torch_pruning_alone import tp

MOVES = {"view", "reshape", "unflatten", "flatten", "transpose", "swapaxes", "permute", "movedim", "contiguous", "clone"}
ELEMENTWISE = {"mul", "mul_", "add", "add_", "sub", "sub_", "div", "div_", "true_divide"}
SPLITS = {"chunk", "split", "tensor_split"}


class Moving(TorchFunctionMode):
    """Turns what comes to moving channels about into one step; ``seen`` is called with what is moved, or is split."""

    def __init__(self, seen: Callable[[Tensor], None] = lambda _: None) -> None:
        super().__init__()
        self._seen = seen
        self._tracked: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ELEMENTWISE and len(args) == 2 and all(isinstance(one, Tensor) for one in args):
            args = (_lone(args[0], args[1]), _lone(args[1], args[0]))
        if name == "glu":
            dim = args[1] if len(args) > 1 else given.get("dim", -1)
            one, other = self.__torch_function__(torch.chunk, types, (args[0], 2, dim))
            return one * other.sigmoid()
        out = func(*args, **given)
        if name in SPLITS and isinstance(args[0], Tensor) and args[0].dim() > 2:
            dim = args[2] if len(args) > 2 else given.get("dim", 0)
            if dim in (1, 1 - args[0].dim()):
                self._seen(args[0])
                return tuple(_Part.apply(one) for one in out)
        if name == "channel_shuffle":
            return self._moved(args[0], func(_positions(args[0]).double(), *args[1:], **given).long(), out)
        if name not in MOVES or not isinstance(out, Tensor) or not args or not isinstance(args[0], Tensor):
            return out
        _, source, index = self._tracked.get(id(args[0]), (None, args[0], None))
        if index is None:
            if not 3 <= source.dim() < out.dim():
                return out
            index = _positions(source)
        index = func(index, *args[1:], **{key: value for key, value in given.items() if key != "memory_format"})
        if index.shape == source.shape:
            out = self._moved(source, index, out)
        self._tracked[id(out)] = (out, source, index)  # which keeps it alive, and its id its own
        return out

    def _moved(self, source: Tensor, index: Tensor, out: Tensor) -> Tensor:
        positions = _positions(source)
        size = max(1, positions[0, 0].numel())
        order = index[0].flatten(1)[:, 0] // size
        if torch.equal(order, torch.arange(len(order))) or not torch.equal(index, positions[:, order]):
            return out
        self._seen(source)
        moved: Tensor = _Moved.apply(source, order)
        return moved


def _lone(one: Tensor, other: Tensor) -> Tensor:
    """A single channel that is spread over all of ``other``: it neither comes nor goes with any of them."""
    if one.dim() != other.dim() or one.dim() < 4 or not one.shape[1] == 1 < other.shape[1] or not one.requires_grad:
        return one
    alike = one.shape[2:] == other.shape[2:] or one[0].numel() == 1
    spread: Tensor = _Spread.apply(one) if alike else one
    return spread


class _Same(torch.autograd.Function):
    """The same, as a step of its own."""

    @staticmethod
    def forward(_ctx: Any, given: Tensor) -> Tensor:
        return given.clone()

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _Part(_Same):
    """A part of a split, so that what each becomes is told apart."""


class _Spread(_Same):
    """A mark where one channel is spread over many."""


def _positions(like: Tensor) -> Tensor:
    return torch.arange(like.numel()).view(like.shape)


class _Moved(torch.autograd.Function):
    """Channels in another order."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, order: Tensor) -> Tensor:
        ctx.order = order
        return given[:, order]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][:, ctx.order.argsort()], None


def _order(node: Any) -> Tensor | None:
    """The order into which a step of torch-pruning's graph puts channels; None if it isn't such a step."""
    order = getattr(node.grad_fn, "order", None) if type(node.grad_fn).__name__.startswith("_Moved") else None
    return order if isinstance(order, Tensor) else None


def moves(graph: Any) -> bool:
    """Whether channels are moved about, split or made pixels in a network, told by torch-pruning's graph of it."""
    nodes = graph.module2node.values()
    return any(_order(node) is not None or _parts(node.grad_fn) or _pixels(node.grad_fn) for node in nodes)


def _pixels(step: Any) -> int:
    """How many channels a step of autograd's graph makes one of, by ``PixelShuffle``; 0 if it doesn't."""
    return step._saved_upscale_factor**2 if type(step).__name__.startswith("PixelShuffleBackward") else 0


class _Renumber:
    """torch-pruning's index mapping from one order of channels to another."""

    def __init__(self, to: list[int]) -> None:
        self._to = to

    def __call__(self, indices: list[Any]) -> list[Any]:
        return [type(one)(idx=self._to[one.idx], root_idx=one.root_idx) for one in indices]


class _Joined:
    """From channels to those made of several each, or back."""

    def __init__(self, count: int, *, back: bool) -> None:
        self._count, self._back = count, back

    def __call__(self, indices: list[Any]) -> list[Any]:
        if self._back:
            return [type(one)(one.idx * self._count + i, one.root_idx) for one in indices for i in range(self._count)]
        return [type(one)(idx, one.root_idx) for idx, one in {one.idx // self._count: one for one in indices}.items()]


def _none(_indices: list[Any]) -> list[Any]:
    return []


@contextmanager
def steady(graph: Any) -> Iterator[None]:
    """While nothing is cut inside, groups of a ``graph`` are found without mapping all indices anew for each."""
    tp.dependency.index_mapping.update_index_mapping(graph)
    graph.steady = True
    try:
        yield
    finally:
        graph.steady = False


def _map_concatenation(graph: Any, node: Any) -> None:
    """As torch-pruning 1.6.1 does it, which looks through all inputs again for each of them: a DenseNet has hundreds."""
    dim, infer = getattr(node.grad_fn, "_saved_dim", 1), tp.dependency.shape_infer
    if dim != 1 and dim < tp.dependency.constants.MAX_VALID_DIM:
        return
    if node.module.concat_sizes is None:
        node.module.concat_sizes = [infer.infer_channels_between(graph, given, node) for given in node.inputs]
    sizes = node.module.concat_sizes
    whole = infer.infer_in_channels_recursively(graph, node, recursive_depth=[0])
    if None in sizes or whole not in (None, sum(sizes)):  # it is along another dimension than that of channels
        return
    node.module.offsets = offsets = _offsets(sizes)
    ahead = {given: [dep for dep in given.dependencies if dep.target is node] for given in node.inputs}
    back = {given: [dep for dep in node.dependencies if dep.target is given] for given in ahead}
    for given, *ends in zip(node.inputs, offsets, offsets[1:], strict=False) if node.enable_index_mapping else ():
        for free, reverse in ((ahead, False), (back, True)):  # an input that stands there twice has two
            if free[given]:
                free[given].pop(0).index_mapping[1] = tp.dependency.index_mapping._ConcatIndexMapping(ends, reverse)


tp.dependency.index_mapping.update_concat_index_mapping = _map_concatenation


def _map_moves(graph: Any, known: Callable[[Any], None] = tp.dependency.index_mapping.update_index_mapping) -> None:
    if getattr(graph, "steady", False):
        return
    for node in graph.module2node.values():
        if node.type == tp.ops.OPTYPE.SPLIT and None not in (node.module.split_sizes or [None]):
            node.module.offsets = _offsets(node.module.split_sizes)  # torch-pruning 1.6.1 leaves them as they were
    known(graph)
    for node in graph.module2node.values():
        if type(node.grad_fn).__name__.startswith("_Spread"):
            for dep in (
                *node.dependencies,
                *(dep for out in node.outputs for dep in out.dependencies if dep.target is node),
            ):
                dep.index_mapping[1] = _none
        order, count = _order(node), _pixels(node.grad_fn)
        if order is not None:
            _set(node, _Renumber(order.argsort().tolist()), _Renumber(order.tolist()))
        elif count:
            _set(node, _Joined(count, back=False), _Joined(count, back=True))


def _set(node: Any, ahead: Any, back: Any) -> None:
    """Map indices on the way into a step, and on the way back."""
    for given in node.inputs:
        for start, end, mapping in ((given, node, ahead), (node, given, back)):
            for dep in start.dependencies:
                if dep.target is end:  # the second of two places: torch-pruning fills the first at splits
                    dep.index_mapping[1] = mapping


tp.dependency.index_mapping.update_index_mapping = _map_moves


def _tell_splits(graph: Any, known: Callable[[Any], None] = tp.dependency.shape_infer.init_shape_information) -> None:
    """torch-pruning 1.6.1 doesn't find the sizes of a split in this torch's graph, nor which part goes where."""
    known(graph)
    for node in graph.module2node.values():
        sizes = _parts(node.grad_fn) if node.type == tp.ops.OPTYPE.SPLIT else []
        if len(sizes) == len(node.outputs):
            node.outputs.sort(key=lambda out, split=node.grad_fn: _part_of(out.grad_fn, split))
            node.module.split_sizes = sizes
            node.module.offsets = _offsets(sizes)


def _offsets(sizes: list[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes) + 1)]


def _parts(split: Any) -> list[int]:
    """The sizes of the parts into which a step of autograd's graph splits channels; none if it doesn't."""
    shape: tuple[int, ...] = getattr(split, "_saved_self_sym_sizes", ())
    dim = getattr(split, "_saved_dim", None)
    if len(shape) < 2 or dim not in (1, 1 - len(shape), 2**64 + 1 - len(shape)):
        return []
    if hasattr(split, "_saved_split_sizes"):
        return list(split._saved_split_sizes)
    size = getattr(split, "_saved_split_size", shape[1])
    return [min(size, shape[1] - start) for start in range(0, shape[1], size)]


def _part_of(out: Any, split: Any) -> int:
    return next((part for step, part in getattr(out, "next_functions", ()) if step is split), 0)


tp.dependency.shape_infer.init_shape_information = _tell_splits
