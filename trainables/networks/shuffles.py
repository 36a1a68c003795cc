"""Channels that a network moves about or splits (ShuffleNet's units), and cuts of the layers that make them.

torch-pruning takes a shuffle for reshapes, and gets lost. Here it is one step that moves channels, and what reaches which
layer is found by a pass in which layers put out numbers for their channels. Layers whose channels are moved or split
together form a family: each loses the same share, so that splits stay where they are; which channels go is free, but for
each layer that takes some as many must stay as the narrower network hands it. What a narrower network hands on in another
order is put in that order in the layers that take it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.networks.torch_pruning_alone import tp

Forward = Callable[[nn.Module], Any]
"""A pass through a network."""

Label = tuple[str, int]
"""A layer and one of its output channels."""

MOVES = {"view", "reshape", "unflatten", "flatten", "transpose", "swapaxes", "permute", "movedim", "contiguous", "clone"}
ELEMENTWISE = {"mul", "mul_", "add", "add_", "sub", "sub_", "div", "div_", "true_divide"}
SPLITS = {"chunk", "split", "tensor_split"}
CODE_BITS = 40
FAR = 8
"""How many slots more or less than asked are tried."""


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


class _Part(torch.autograd.Function):
    """The same; a step of its own for each part of a split, so that what each becomes is told apart."""

    @staticmethod
    def forward(_ctx: Any, given: Tensor) -> Tensor:
        return given.clone()

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _Spread(torch.autograd.Function):
    """The same; a mark where one channel is spread over many."""

    @staticmethod
    def forward(_ctx: Any, given: Tensor) -> Tensor:
        return given.clone()

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


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


def _map_moves(graph: Any, known: Callable[[Any], None] = tp.dependency.index_mapping.update_index_mapping) -> None:
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
    shape, dim = getattr(split, "_saved_self_sym_sizes", ()), getattr(split, "_saved_dim", None)
    if not shape or dim not in (1, 1 - len(shape), 2**64 + 1 - len(shape)):
        return []
    if hasattr(split, "_saved_split_sizes"):
        return list(split._saved_split_sizes)
    size = getattr(split, "_saved_split_size", shape[1])
    return [min(size, shape[1] - start) for start in range(0, shape[1], size)]


def _part_of(out: Any, split: Any) -> int:
    return next((part for step, part in getattr(out, "next_functions", ()) if step is split), 0)


tp.dependency.shape_infer.init_shape_information = _tell_splits


@dataclass(frozen=True)
class Flow:
    """What reaches which layer in one pass.

    ``inputs`` has the labels at each layer's inputs, ``mixed`` the layers whose channels are moved about or split together,
    and ``takers`` for each output channel of a layer the layers that take it.
    """

    inputs: Mapping[str, list[Label | None]]
    mixed: list[set[str]]
    takers: Mapping[str, list[frozenset[str]]]


@dataclass(frozen=True)
class Family:
    """Layers whose channels are shuffled together, with the channels of each that go at once; ``slots`` times there are."""

    blocks: Mapping[str, int]
    slots: int


def families(model: nn.Module, forward: Forward) -> list[Family]:
    """The families of a network: layers of which each channel is seen to reach others that make channels."""
    try:
        flow = _flow(model, forward, {})
    except Exception:  # a network that can't be given numbers has none, and what it moves is for the gate to find
        return []
    sets: list[set[str]] = []
    for some in filter(None, flow.mixed):
        touching = [others for others in sets if others & some]
        sets = [others for others in sets if not others & some] + [some.union(*touching)]
    makers = flow.takers.keys()
    return [
        _family(model, roots) for roots in sets if all(takers & makers for name in roots for takers in flow.takers[name])
    ]


def _family(model: nn.Module, roots: set[str]) -> Family:
    widths = {name: _width(model.get_submodule(name)) for name in sorted(roots)}
    unit = math.gcd(*widths.values())
    return Family({name: width // unit for name, width in widths.items()}, unit)


def groups(graph: Any, model: nn.Module, forward: Forward, roots: list[str]) -> list[Any]:
    """torch-pruning's groups of what these layers make and of what takes it, each channel in its place."""
    flow = _flow(model, forward, {})
    return [_group(graph, model, flow, root) for root in roots]


def _group(graph: Any, model: nn.Module, flow: Flow, root: str) -> Any:
    group, source = tp.dependency.Group(), graph.module2node[model.get_submodule(root)]
    group._DG = graph

    def add(name: str, places: list[int], channels: list[int]) -> None:
        module = model.get_submodule(name)
        pruner, target = graph.get_pruner_of_module(module), graph.module2node[module]
        handler = pruner.prune_out_channels if name == root else pruner.prune_in_channels
        group.add_dep(tp.dependency.Dependency(handler, handler, source, target), places)
        group[-1].root_idxs = channels

    everything = list(range(len(flow.takers[root])))
    add(root, everything, everything)
    for name, labels in flow.inputs.items():
        if taken := [(place, label[1]) for place, label in enumerate(labels) if label is not None and label[0] == root]:
            add(name, [place for place, _ in taken], [channel for _, channel in taken])
    return group


def choose(
    model: nn.Module, forward: Forward, family: Family, scores: Mapping[str, Tensor], slots: int
) -> dict[str, list[int]]:
    """The channels of each layer of a family that go, of those that may the ones of least score.

    As many go as there are in ``slots`` slots, or in the nearest number of slots that can go; none if no number near can.
    """
    whole = _flow(model, forward, {}).takers
    near = range(max(1, slots - FAR), min(family.slots, slots + FAR + 1))
    for count in sorted(near, key=lambda count: abs(count - slots)):
        with suppress(Exception):  # the network fails with so many less, or hands on others then
            narrow = _flow(model, forward, {name: count * block for name, block in family.blocks.items()}).takers
            return {name: _lowest(some, whole[name], narrow[name], name) for name, some in scores.items()}
    return {}


def _lowest(scores: Tensor, whole: list[frozenset[str]], narrow: list[frozenset[str]], name: str) -> list[int]:
    staying, going = Counter(narrow), []
    for channel in scores.argsort(descending=True, stable=True).tolist():
        if staying[whole[channel]] > 0:
            staying[whole[channel]] -= 1
        else:
            going.append(channel)
    if staying.total():
        raise ValueError(f"{name} can't lose so many channels")
    return sorted(going)


@torch.no_grad()
def cut(model: nn.Module, forward: Forward, removed: Mapping[str, list[int]]) -> None:
    """Take these output channels from the layers of a family, and from all that takes them; ValueError if it can't be."""
    whole, narrow = (_flow(model, forward, gone) for gone in ({}, {name: len(some) for name, some in removed.items()}))
    orders = {name: _order_of(whole.takers[name], narrow.takers[name], gone, name) for name, gone in removed.items()}
    for name, labels in narrow.inputs.items():
        if any(label is not None and label[0] in orders for label in labels):
            wanted = [(label[0], orders[label[0]][label[1]]) if label and label[0] in orders else label for label in labels]
            _take(model.get_submodule(name), _places(whole.inputs[name], wanted, name))
    for name, order in orders.items():
        module: Any = model.get_submodule(name)
        _select(module, order, 0)
        setattr(module, "out_features" if isinstance(module, nn.Linear) else "out_channels", len(order))


def _order_of(whole: list[frozenset[str]], narrow: list[frozenset[str]], gone: list[int], name: str) -> list[int]:
    """The channels that stay, in the order in which the narrower network hands them on."""
    staying: dict[frozenset[str], list[int]] = {}
    for channel in sorted({*range(len(whole))} - {*gone}):
        staying.setdefault(whole[channel], []).append(channel)
    return _drawn(staying, narrow, f"these channels of {name} can't go")


def _places(whole: list[Label | None], wanted: list[Label | None], name: str) -> list[int]:
    """Where the wanted labels stand among a layer's inputs."""
    places: dict[Label | None, list[int]] = {}
    for place, label in enumerate(whole):
        places.setdefault(label, []).append(place)
    return _drawn(places, wanted, f"{name} would be handed other channels than it takes")


def _drawn(heaps: dict[Any, list[int]], wanted: list[Any], complaint: str) -> list[int]:
    """For each one that is wanted the next of its heap; ValueError with the complaint if there is none."""
    try:
        return [heaps[one].pop(0) for one in wanted]
    except (KeyError, IndexError):
        raise ValueError(complaint) from None


def _take(module: Any, places: list[int]) -> None:
    """Keep these input channels of a layer, in this order."""
    if _depthwise(module):
        _select(module, places, 0)
        module.in_channels = module.out_channels = module.groups = len(places)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        _select(module, places, 0)
        module.num_features = len(places)
    elif isinstance(module, nn.Linear):
        _select(module, places, 1)
        module.in_features = len(places)
    elif isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1:
        _select(module, places, 1)
        module.in_channels = len(places)
    else:
        raise ValueError(f"channels that are moved about reach a {type(module).__name__}")


def _select(module: nn.Module, places: list[int], dim: int) -> None:
    """Keep these places of all tensors of a layer along their first dimension, or of its weight along another."""
    for name, parameter in module.named_parameters(recurse=False):
        if dim < parameter.dim() and (dim == 0 or name == "weight"):
            kept = parameter.detach().index_select(dim, torch.tensor(places, device=parameter.device))
            setattr(module, name, nn.Parameter(kept, parameter.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.dim() and dim == 0:
            setattr(module, name, buffer[places])


def _width(module: nn.Module) -> int:
    return int(module.weight.shape[0])  # type: ignore[index]


def _depthwise(module: Any) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def _flow(model: nn.Module, forward: Forward, gone: Mapping[str, int]) -> Flow:
    """What reaches which layer, were the outputs of some layers so many less.

    Instead of what it computes, each layer that makes channels puts out their codes, numbers below 1 of which no two add up
    to a third but by accident; what scales or bends them (normalisation, activations) passes them on.
    """
    run = _Run({name: module for name, module in model.named_modules() if _notable(module)}, gone)
    with run.patched(), Moving(run.mix), torch.no_grad():
        forward(model)
    return Flow(run.inputs, run.mixed, run.takers())


def _notable(module: nn.Module) -> bool:
    """Whether a layer makes channels, or has parameters for each."""
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear) or (
        not list(module.children()) and (bool(list(module.parameters())) or type(module).__module__ == ACTIVATIONS)
    )


ACTIVATIONS = "torch.nn.modules.activation"


class _Run:
    """One pass with codes."""

    def __init__(self, modules: Mapping[str, nn.Module], gone: Mapping[str, int]) -> None:
        self._modules, self._random = modules, torch.Generator().manual_seed(0)
        self._codes = {name: self._draw(_width(m) - gone.get(name, 0)) for name, m in modules.items() if _makes(m)}
        self._labels = {int(code): (name, i) for name, codes in self._codes.items() for i, code in enumerate(codes)}
        self.inputs: dict[str, list[Label | None]] = {}
        self.mixed: list[set[str]] = []

    def _draw(self, count: int) -> Tensor:
        return torch.randint(1, 2**CODE_BITS, (count,), generator=self._random).double()

    def mix(self, moved: Tensor) -> None:
        """Note what is moved about."""
        self.mixed.append({label[0] for label in self._read(moved.flatten(2).amax((0, 2))) if label is not None})

    def _read(self, values: Tensor) -> list[Label | None]:
        return [self._labels.get(code) for code in (values.double() * 2.0**CODE_BITS).round().long().tolist()]

    def takers(self) -> dict[str, list[frozenset[str]]]:
        """For each channel the layers that take it."""
        found: dict[Label, set[str]] = {}
        for name, labels in self.inputs.items():
            for label in labels:
                if label is not None:
                    found.setdefault(label, set()).add(name)
        return {
            name: [frozenset(found.get((name, i), ())) for i in range(len(codes))] for name, codes in self._codes.items()
        }

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Let the layers put out codes."""
        for name, module in self._modules.items():
            module.forward = partial(self._pass, name)
        try:
            yield
        finally:
            for module in self._modules.values():
                del module.forward

    def _pass(self, name: str, x: Tensor) -> Tensor:
        module = self._modules[name]
        linear = isinstance(module, nn.Linear)
        values = x.flatten(0, -2).amax(0) if linear or x.dim() < 3 else x.flatten(2).amax((0, 2))
        if list(module.parameters()):
            self.inputs[name] = self._read(values)
        if name in self._codes:
            values = self._codes[name] / 2.0**CODE_BITS
        elif not isinstance(module, nn.modules.conv._ConvNd):
            return x
        if linear:
            return values.expand(*x.shape[:-1], -1).clone()
        return values.view(1, -1, *[1] * (x.dim() - 2)).expand(len(x), -1, *_size(module, x)).clone()


def _makes(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and not _depthwise(module)


def _size(module: Any, x: Tensor) -> torch.Size:
    """Height and width of what a convolution makes."""
    convolve = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
    one = torch.ones(1, 1, *module.kernel_size, dtype=x.dtype)
    return convolve(x[:1, :1], one, None, module.stride, module.padding, module.dilation).shape[2:]
