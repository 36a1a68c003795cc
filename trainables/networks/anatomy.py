"""What pruning must know of a network: its prunable layers, its output layers, and which layers lose a channel together.

torch-pruning's dependency graph finds these groups (Fang et al. 2023, arXiv:2301.12900).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables.networks.attention.heads import Heads, heads_of, kinds, settle
from trainables.networks.parameters import by_channel, retie, ties
from trainables.networks.running import copied, evaluating
from trainables.networks.shuffles import families as shuffles
from trainables.networks.shuffles.flow import is_depthwise
from trainables.networks.shuffles.moving import Moving, moves, steady
from trainables.networks.torch_pruning_alone import tp
from trainables.records.names import InputError

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ROOTS = (*PRUNABLE, *TRANSPOSED)
"""The layers that lead a group."""

Group = Any
"""torch-pruning's Group: the layers that lose a channel together, and which channels."""

Graph = Any
"""torch-pruning's DependencyGraph."""

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
    """The prunable weights by their names in the state dict, a shared one once."""
    found: dict[nn.Parameter, str] = {}
    for name, module in prunable(model).items():
        found.setdefault(module.weight, f"{name}.weight")  # type: ignore[arg-type]
    return {name: weight for weight, name in found.items()}


def survey(model: nn.Module, shape: tuple[int, int, int]) -> Anatomy:
    """The anatomy of the dense ``model`` for inputs of ``shape`` [C, H, W]; the model stays as it is."""
    twin = evaluating(copied(model)).requires_grad_(True)
    example = torch.zeros(1, *shape)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        batch = _like(twin, torch.cat([example] * 2))
        outputs, made = _watched(twin, lambda: twin(batch))
        last, used = _upstream(outputs, made, made), _upstream(outputs, made, ())
        twin.train()
        more, made = _watched(twin, lambda: twin.forward(batch))
        shapes = {one.shape for one in outputs}
        last |= _upstream([one for one in more if one.shape in shapes], made, made)
        last |= _upstream(more, made, made) - used  # features put out beside the logits are cut with what makes them
        trained = _upstream(more, made, ())
    keep = tuple(name for name in prunable(model) if name in last)
    return Anatomy(example, keep, widths(model), trained=bool(trained - used), axes=_axes(model))


def _watched(model: nn.Module, forward: Callable[[], Any]) -> tuple[list[Tensor], dict[Any, str]]:
    """The outputs of a pass, and of each prunable layer its step in autograd's graph."""
    made: dict[Any, str] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                made.setdefault(output.grad_fn, name)

        return hook

    names = prunable(model)
    hooks = [module.register_forward_hook(note(name)) for name, module in names.items()]
    try:
        return leaves(forward()), made
    finally:
        for hook in hooks:
            hook.remove()


def _upstream(outputs: list[Tensor], made: Mapping[Any, str], ends: Collection[Any]) -> set[str]:
    """The layers whose steps in autograd's graph lead to ``outputs``, looked for up to the ``ends``."""
    found, seen, waiting = set(), set(), [one.grad_fn for one in outputs]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in made:
            found.add(made[step])
        if step not in ends:
            waiting += [function for function, _ in step.next_functions]
    return found


def leaves(output: Any) -> list[Tensor]:
    """The floating-point tensors in whatever a network puts out."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    inner = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return [tensor for one in inner for tensor in leaves(one)]


@dataclass(frozen=True)
class Anatomy:
    """What torch-pruning must know of a dense network.

    ``example`` is an input, ``keep`` the output layers, ``widths`` the channels of each layer that leads a group.
    ``protected`` lead groups that are not cut; ``floors`` are the channels that a layer has at least. With ``trained``,
    layers are looked for in a forward pass in training mode, where some run in no other. ``axes`` are those of the channels
    of parameters that are in no layer, told while all widths are dense.
    """

    example: Tensor
    keep: tuple[str, ...]
    widths: Mapping[str, int]
    protected: tuple[str, ...] = ()
    floors: Mapping[str, int] = field(default_factory=dict)
    trained: bool = False
    axes: Mapping[str, int] = field(default_factory=dict)

    def stays(self, name: str) -> bool:
        """Whether a layer keeps all its outputs."""
        return name in self.keep or name in self.protected

    def ignored(self, model: nn.Module) -> list[nn.Module]:
        """The layers of ``model`` whose output channels stay; an attention that keeps its heads may lose outputs."""
        named = (model.get_submodule(name) for name in (*self.keep, *self.protected))
        return [module for module in named if not heads_of(module)]

    def pruner_options(self, model: nn.Module) -> dict[str, Any]:
        """What every pruner of torch-pruning is given; its default dictionaries are shared between instances."""
        empty: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
        types = {"root_module_types": list(ROOTS), "forward_fn": self.forward}
        return {"ignored_layers": self.ignored(model), **types, **empty, **_beyond_layers(model, self.axes)}

    def forward(self, model: nn.Module, example: Tensor) -> Any:
        """The pass that is traced, without what a hook makes of its output."""
        if not self.trained:
            return leaves(model(_like(model, example)))
        model.train()
        return leaves(model.forward(_like(model, torch.cat([example] * 2))))

    def forward_example(self, model: nn.Module) -> Any:
        """The pass that is traced, of the example."""
        return self.forward(model, self.example)

    def channels(self, model: nn.Module) -> tuple[int, int]:
        """The layers' output channels, dense and in ``model``; the output layers' are left out."""
        now = widths(model)
        names = [name for name in self.widths if name not in self.keep]
        return sum(self.widths[name] for name in names), sum(now[name] for name in names)

    def channel_sparsity(self, model: nn.Module) -> float:
        """Fraction of the layers' output channels that is gone, the output layers' left out."""
        dense, now = self.channels(model)
        return 1 - now / max(1, dense)


def width(module: nn.Module) -> int:
    """Output channels of a layer."""
    if isinstance(module, TRANSPOSED):
        return int(module.out_channels)
    return int(module.weight.shape[0])  # type: ignore[index]


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every layer that can lead a group; of an attention, those of its heads."""
    heads = {name: found for name, module in model.named_modules() if (found := heads_of(module))}
    firsts = {first for found in heads.values() for first in found.firsts}
    layers = {name: width(m) for name, m in model.named_modules() if isinstance(m, ROOTS) and m not in firsts}
    return layers | {name: found.width for name, found in heads.items()}


def trace(model: nn.Module, anatomy: Anatomy) -> Graph:
    """torch-pruning's graph of ``model``, which is left in eval mode."""
    with tracing(model):
        return tp.DependencyGraph().build_dependency(
            model, anatomy.example, forward_fn=anatomy.forward, verbose=False, **_beyond_layers(model, anatomy.axes)
        )


def _beyond_layers(model: nn.Module, axes: Mapping[str, int]) -> dict[str, Any]:
    """What torch-pruning is told of attentions, and of the parameters that are in no layer it knows."""
    named = dict(model.named_parameters())
    return {
        "customized_pruners": kinds(model) | by_channel(model),
        "unwrapped_parameters": [(named[name], axis) for name, axis in axes.items() if name in named],
    }


def _axes(model: nn.Module) -> dict[str, int]:
    """The axes of the channels of what is in no layer that torch-pruning knows and has more than three."""
    channels = {width(module) for module in model.modules() if isinstance(module, ROOTS)}
    inner = {id(p) for module in model.modules() if isinstance(module, ROOTS) for p in module.parameters(recurse=False)}
    return {name: _axis(p, channels) for name, p in model.named_parameters() if p.dim() > 3 and id(p) not in inner}


def _axis(parameter: Tensor, channels: set[int]) -> int:
    """The axis of a parameter's channels: the second of a feature map's [1, C, H, W], else the last of such a width."""
    shape = parameter.shape
    fitting = [axis for axis, size in enumerate(shape) if size in channels and size > 1]
    return 1 if parameter.dim() == 4 and 1 in fitting else fitting[-1] if fitting else parameter.dim() - 1


@contextlib.contextmanager
def tracing(model: nn.Module) -> Iterator[None]:
    """Let torch-pruning look at ``model``: it is in eval mode afterwards, its statistics as they were."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    whole: tuple[type[nn.Module], ...] = (nn.RNNBase, nn.RNNCellBase, *kinds(model), *by_channel(model))
    opaque = [m.register_forward_hook(_hide, with_kwargs=True) for m in model.modules() if isinstance(m, whole)]
    try:
        with quiet(), Moving(), torch.enable_grad():
            yield
    finally:
        for hook in opaque:
            hook.remove()
    model.eval()
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])


class _Opaque(torch.autograd.Function):
    """From a layer's input to its output, without what lies between: torch-pruning fails on the steps of these layers."""

    @staticmethod
    def forward(_ctx: Any, _given: Tensor, made: Tensor) -> Tensor:
        return made.clone()

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor) -> tuple[None, None]:
        return None, None


def _hide(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
    given = next(one for one in (*inputs, *named.values()) if isinstance(one, Tensor))
    return _hidden(given, output)


def _hidden(given: Tensor, output: Any) -> Any:
    if isinstance(output, tuple):  # an LSTM's state is one within the other
        return tuple(_hidden(given, made) for made in output)
    return _Opaque.apply(given, output.detach()) if isinstance(output, Tensor) else output


def _sorted_channels(self: Any, weight: Tensor, kept: Any, dim: int) -> nn.Parameter:
    """torch-pruning 1.6.1 forgets to sort what a LayerNorm keeps: its channels would change places."""
    pruner = tp.pruner.function.BasePruningFunc
    parameter: nn.Parameter = pruner._prune_parameter_and_grad(self, weight, sorted(int(i) for i in kept), dim)
    return parameter


tp.pruner.function.LayernormPruner._prune_parameter_and_grad = _sorted_channels
_map_slice = tp.dependency.index_mapping.update_slice_index_mapping


def _map_slice_of_channels(graph: Graph, node: Any) -> None:
    """torch-pruning 1.6.1 takes rows of a map for channels where these come last."""
    if not hasattr(node, "of_channels"):  # told once, because sizes are those of the traced network
        width = tp.dependency.shape_infer.infer_out_channels_recursively(graph, node.inputs[0], [0])
        sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
        of_axis = _axis_of_channels(node, len(sizes)) in (None, node.module.dim % max(1, len(sizes)))
        node.of_channels = of_axis and (width is None or not sizes or sizes[node.module.dim] == width)
    if node.of_channels:
        _map_slice(graph, node)
    else:
        node.module.grad_fn = None  # which tells torch-pruning that nothing is to be done


def _axis_of_channels(node: Any, dims: int) -> int | None:
    """The axis that a layer above ``node`` puts its channels along, if nothing has moved axes in between."""
    while node.inputs:
        node = node.inputs[0]
        if isinstance(node.module, nn.Linear | nn.LayerNorm) or heads_of(node.module):
            return dims - 1
        if isinstance(node.module, nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm):
            return 1
        if any(word in str(node.module) for word in ("Permute", "Transpose", "Reshape", "Concat")):
            return None
    return None


tp.dependency.index_mapping.update_slice_index_mapping = _map_slice_of_channels


def replay(model: nn.Module, removed: Removed, anatomy: Anatomy) -> None:
    """Give a dense ``model`` the shapes that it has after the cuts in ``removed``; ValueError for channels it hasn't."""
    if removed:
        apply(trace(model, anatomy), model, removed, anatomy)


def apply(graph: Graph, model: nn.Module, removed: Removed, anatomy: Anatomy) -> None:
    """Make the cuts in ``removed``, along a ``graph`` of the dense ``model``; what was tied stays tied."""
    shared = ties(model)
    relatives = {name: len(family.blocks) for family in families(graph, model, anatomy) for name in family.blocks}
    grouped = _grouped(model)
    waiting = list(removed)
    while waiting:
        count = relatives.get(waiting[0][0], 1)  # those of one family stand together
        now, waiting = waiting[:count], waiting[count:]
        if heads := heads_of(model.get_submodule(now[0][0])):
            if now[0][2]:
                heads.remove(now[0][2])
            continue
        for name, out, indices in now:
            _check_channels(graph, model.get_submodule(name), out, indices, name)
        if now[0][0] in relatives:
            shuffles.cut(model, anatomy.forward_example, {name: list(indices) for name, _, indices in now})
            graph = trace(model, anatomy)
        elif now[0][2]:
            name, out, indices = now[0]
            going(graph, model.get_submodule(name), indices, out=out).prune(record_history=False)
            if any(map(is_depthwise, grouped)):  # of which torch-pruning's graph is another
                graph, grouped = trace(model, anatomy), _grouped(model)
    settle(model)
    retie(model, shared)


def going(graph: Graph, module: nn.Module, indices: Collection[int], *, out: bool) -> Group:
    """All that goes with these channels of a layer; what two of them hang on, once."""
    pruner = graph.get_pruner_of_module(module)
    with quiet():
        group = graph.get_pruning_group(module, pruner.prune_out_channels if out else pruner.prune_in_channels, [*indices])
    for item in group:
        item.idxs[:] = dict.fromkeys(item.idxs)
    return group


def _grouped(model: nn.Module) -> list[nn.Module]:
    """The grouped convolutions that make channels of several others."""
    convolutions = (one for one in model.modules() if isinstance(one, nn.modules.conv._ConvNd))
    return [one for one in convolutions if one.groups > 1 and not is_depthwise(one)]


def _check_channels(graph: Graph, module: nn.Module, out: bool, indices: Any, name: str) -> None:
    count = graph.get_out_channels(module) if out else graph.get_in_channels(module)
    if not set(indices) <= set(range(count)):  # torch-pruning would pass over them
        raise ValueError(f"{name} has {count} channels, and not all of {indices[:9]}")


def families(graph: Graph, model: nn.Module, anatomy: Anatomy) -> list[shuffles.Family]:
    """The layers of ``model`` whose channels are shuffled together, those that can lose some and aren't to stay."""
    return [family for family in _families(graph, model, anatomy) if not any(map(anatomy.stays, family.blocks))]


def _families(graph: Graph, model: nn.Module, anatomy: Anatomy) -> list[shuffles.Family]:
    if not hasattr(graph, "kin"):  # a graph is of one network, as it is
        graph.kin = shuffles.families(model, anatomy.forward_example) if moves(graph) else []
    return list(graph.kin)


def flattens(group: Group) -> bool:
    """Whether the group's channels become several inputs each of a linear layer."""
    return any(len(item.idxs) > len(group[0].idxs) for item in group)


def slots_of(group: Group) -> int:
    """How many channels must go together: a head's, or one of each group of a grouped convolution or a GroupNorm."""
    if of_heads(group):
        return heads_of(group[0].dep.target.module).size  # type: ignore[union-attr]
    return max((_groups(item.dep.target.module) for item in group), default=1)


def of_heads(group: Group) -> bool:
    """Whether the group's channels are those of an attention's heads."""
    return group[0].dep.handler is _remove_heads


def _groups(module: Any) -> int:
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups != module.out_channels:
        return module.groups
    return 1


def groups(model: nn.Module, anatomy: Anatomy) -> list[Group]:
    """torch-pruning's groups that may be cut: the layers that lose a channel together, with all their channels."""
    return groups_in(trace(model, anatomy), model, anatomy)


def groups_in(graph: Graph, model: nn.Module, anatomy: Anatomy) -> list[Group]:
    """The groups of a ``graph`` of ``model``, and those of the heads of attentions.

    A layer whose channels are shuffled with others' has one of its own.
    """
    kin = _families(graph, model, anatomy)
    related = {name for family in kin for name in family.blocks}
    alone = [name for family in kin if not any(map(anatomy.stays, family.blocks)) for name in family.blocks]
    with quiet(), steady(graph):
        found = list(graph.get_all_groups(ignored_layers=anatomy.ignored(model), root_module_types=ROOTS))
        found = [group for group in found if not any(member(item) in related and _is_out(item) for item in group)]
        found += shuffles.groups(graph, model, anatomy.forward_example, alone) if alone else []
    heads = ((name, heads_of(module)) for name, module in model.named_modules() if not anatomy.stays(name))
    return found + [_head_group(name, one) for name, one in heads if one and type(one.module) in graph.CUSTOMIZED_PRUNERS]


def losing(item: Any) -> list[str]:
    """The layers that lose outputs with an item of a group: of an attention its last one; none if inputs go."""
    if not _is_out(item):
        return []
    heads = heads_of(item.dep.target.module)
    return [f"{member(item)}.{n}" for n, m in heads.module.named_modules() if m is heads.last] if heads else [member(item)]


def outputs_in(group: Group, anatomy: Anatomy) -> int:
    """The output channels of all layers of a group, as ``Anatomy.channels`` counts them."""
    if of_heads(group):
        return len(group[0].idxs)
    lost = ((name, len(item.idxs)) for item in group for name in losing(item))
    return sum(count for name, count in lost if name in anatomy.widths and name not in anatomy.keep)


def _is_out(item: Any) -> bool:
    return "out_channels" in item.dep.handler.__name__


def _head_group(name: str, heads: Heads) -> Group:
    """The channels of all heads as a group of torch-pruning's, which scores it and can't prune it."""
    channels = list(range(heads.width))
    members: list[tuple[Any, nn.Module, list[int]]] = [(_remove_heads, heads.module, channels)]
    members += [(tp.prune_linear_in_channels, heads.last, channels)]
    members += [(tp.prune_linear_out_channels, first, rows) for first, rows in heads.rows(channels)]
    names = {module: f"{name}.{inner}".rstrip(".") for inner, module in heads.module.named_modules()}
    nodes = {module: tp.dependency.Node(module, None, names[module]) for _, module, _ in members}
    group = tp.dependency.Group()
    for handler, module, indices in members:
        node = nodes[module]
        item = tp._helpers.GroupItem(tp.dependency.Dependency(handler, handler, node, node), indices)
        item.root_idxs = channels
        group._group.append(item)
    return group


def _remove_heads(module: nn.Module, channels: list[int]) -> None:
    heads = heads_of(module)
    assert heads is not None
    heads.remove(channels)


def leader(group: Group) -> str:
    """The name of the layer that leads the group."""
    return member(group[0])


def member(item: Any) -> str:
    """The name of a layer in a group."""
    return str(item.dep.target.name).partition(" (")[0]  # the layer's own text follows


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch-pruning warns of what is handled here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _like(model: nn.Module, example: Tensor) -> Tensor:
    first = next((p for p in model.parameters() if p.is_floating_point()), example)
    return example.to(first.device, first.dtype)
