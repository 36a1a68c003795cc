"""What pruning must know of a network: its prunable layers, its output layers, and which layers lose a channel together.

torch-pruning's dependency graph finds these groups (Fang et al. 2023, arXiv:2301.12900).
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from trainables.networks import shuffles
from trainables.networks.ties import retie, ties
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
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    example = torch.zeros(1, *shape)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        outputs, used = _watched(twin, lambda: twin(_like(twin, example)))
        batch = _like(twin, torch.cat([example] * 2))
        more, trained = _watched(twin, lambda: twin.train().forward(batch))
    keep = tuple(name for name in prunable(model) if name in outputs | more)
    return Anatomy(example, keep, widths(model), trained=bool(trained - used))


def _watched(model: nn.Module, forward: Callable[[], Any]) -> tuple[set[str], set[str]]:
    """The layers that lead to the outputs with no prunable layer between, and all layers that one pass runs.

    They are found by following autograd's graph back from the outputs.
    """
    made: dict[Any, str] = {}
    ran: set[str] = set()

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            ran.add(name)
            if isinstance(output, Tensor) and output.grad_fn is not None:
                made.setdefault(output.grad_fn, name)

        return hook

    names = prunable(model)
    hooks = [module.register_forward_hook(note(name)) for name, module in names.items()]
    try:
        output = forward()
    finally:
        for hook in hooks:
            hook.remove()
    found, seen, waiting = set(), set(), [one.grad_fn for one in leaves(output)]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in made:
            found.add(made[step])
        else:
            waiting += [function for function, _ in step.next_functions]
    return found, ran


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
    layers are looked for in a forward pass in training mode, where some run in no other.
    """

    example: Tensor
    keep: tuple[str, ...]
    widths: Mapping[str, int]
    protected: tuple[str, ...] = ()
    floors: Mapping[str, int] = field(default_factory=dict)
    trained: bool = False

    def stays(self, name: str) -> bool:
        """Whether a layer keeps all its outputs."""
        return name in self.keep or name in self.protected

    def ignored(self, model: nn.Module) -> list[nn.Module]:
        """The modules of ``model`` whose output channels stay."""
        return [model.get_submodule(name) for name in (*self.keep, *self.protected)]

    def pruner_options(self, model: nn.Module) -> dict[str, Any]:
        """What every pruner of torch-pruning is given; its default dictionaries are shared between instances."""
        empty: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
        types = {"root_module_types": list(ROOTS), "forward_fn": self.forward}
        return {"ignored_layers": self.ignored(model), **types, **empty}

    def forward(self, model: nn.Module, example: Tensor) -> Any:
        """The pass that is traced, without what a hook makes of its output."""
        if not self.trained:
            return leaves(model(_like(model, example)))
        return leaves(model.train().forward(_like(model, torch.cat([example] * 2))))

    def forward_example(self, model: nn.Module) -> Any:
        """The pass that is traced, of the example."""
        return self.forward(model, self.example)

    def channel_sparsity(self, model: nn.Module) -> float:
        """Fraction of the layers' output channels that is gone, the output layers' left out."""
        now = widths(model)
        names = [name for name in self.widths if name not in self.keep]
        return 1 - sum(now[name] for name in names) / max(1, sum(self.widths[name] for name in names))


def width(module: nn.Module) -> int:
    """Output channels of a layer."""
    if isinstance(module, TRANSPOSED):
        return int(module.out_channels)
    return int(module.weight.shape[0])  # type: ignore[index]


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every layer that can lead a group."""
    return {name: width(module) for name, module in model.named_modules() if isinstance(module, ROOTS)}


def trace(model: nn.Module, anatomy: Anatomy) -> Graph:
    """torch-pruning's graph of ``model``, which is left in eval mode."""
    with tracing(model):
        return tp.DependencyGraph().build_dependency(model, anatomy.example, forward_fn=anatomy.forward, verbose=False)


@contextlib.contextmanager
def tracing(model: nn.Module) -> Iterator[None]:
    """Let torch-pruning look at ``model``: it is in eval mode afterwards, its statistics as they were."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    opaque = [m.register_forward_hook(_hide) for m in model.modules() if isinstance(m, nn.RNNBase)]
    try:
        with quiet(), shuffles.Moving(), torch.enable_grad():
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


def _hide(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
    if isinstance(output, tuple):  # an LSTM's state is one within the other
        return tuple(_hide(module, inputs, made) for made in output)
    return _Opaque.apply(inputs[0], output.detach())


def _sorted_channels(self: Any, weight: Tensor, kept: Any, dim: int) -> nn.Parameter:
    """torch-pruning 1.6.1 forgets to sort what a LayerNorm keeps: its channels would change places."""
    pruner = tp.pruner.function.BasePruningFunc
    parameter: nn.Parameter = pruner._prune_parameter_and_grad(self, weight, sorted(int(i) for i in kept), dim)
    return parameter


tp.pruner.function.LayernormPruner._prune_parameter_and_grad = _sorted_channels


def replay(model: nn.Module, removed: Removed, anatomy: Anatomy) -> None:
    """Give a dense ``model`` the shapes that it has after the cuts in ``removed``; ValueError for channels it hasn't."""
    if removed:
        apply(trace(model, anatomy), model, removed, anatomy)


def apply(graph: Graph, model: nn.Module, removed: Removed, anatomy: Anatomy) -> None:
    """Make the cuts in ``removed``, along a ``graph`` of the dense ``model``; what was tied stays tied."""
    shared = ties(model)
    relatives = {name: len(family.blocks) for family in families(graph, model, anatomy) for name in family.blocks}
    waiting = list(removed)
    while waiting:
        count = relatives.get(waiting[0][0], 1)  # those of one family stand together
        now, waiting = waiting[:count], waiting[count:]
        for name, out, indices in now:
            _check_channels(graph, model.get_submodule(name), out, indices, name)
        if now[0][0] in relatives:
            shuffles.cut(model, anatomy.forward_example, {name: list(indices) for name, _, indices in now})
            graph = trace(model, anatomy)
        elif now[0][2]:
            with quiet():
                graph.load_pruning_history([(now[0][0], now[0][1], list(now[0][2]))])
    retie(model, shared)


def _check_channels(graph: Graph, module: nn.Module, out: bool, indices: Any, name: str) -> None:
    count = graph.get_out_channels(module) if out else graph.get_in_channels(module)
    if not set(indices) <= set(range(count)):  # torch-pruning would pass over them
        raise ValueError(f"{name} has {count} channels, and not all of {indices[:9]}")


def families(graph: Graph, model: nn.Module, anatomy: Anatomy) -> list[shuffles.Family]:
    """The layers of ``model`` whose channels are shuffled together, those that can lose some and aren't to stay."""
    return [family for family in _families(graph, model, anatomy) if not any(map(anatomy.stays, family.blocks))]


def _families(graph: Graph, model: nn.Module, anatomy: Anatomy) -> list[shuffles.Family]:
    if not hasattr(graph, "kin"):  # a graph is of one network, as it is
        graph.kin = shuffles.families(model, anatomy.forward_example) if shuffles.moves(graph) else []
    return list(graph.kin)


def flattens(group: Group) -> bool:
    """Whether the group's channels become several inputs each of a linear layer."""
    return any(len(item.idxs) > len(group[0].idxs) for item in group)


def slots_of(group: Group) -> int:
    """How many channels must go together: one of each group of a grouped convolution or a GroupNorm in ``group``."""
    return max((_groups(item.dep.target.module) for item in group), default=1)


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
    """The groups of a ``graph`` of ``model``; a layer whose channels are shuffled with others' has one of its own."""
    kin = _families(graph, model, anatomy)
    related = {name for family in kin for name in family.blocks}
    alone = [name for family in kin if not any(map(anatomy.stays, family.blocks)) for name in family.blocks]
    with quiet():
        found = list(graph.get_all_groups(ignored_layers=anatomy.ignored(model), root_module_types=ROOTS))
        found = [group for group in found if not any(member(item) in related and _is_out(item) for item in group)]
        return found + (shuffles.groups(graph, model, anatomy.forward_example, alone) if alone else [])


def _is_out(item: Any) -> bool:
    return "out_channels" in item.dep.handler.__name__


def leader(group: Group) -> str:
    """The name of the layer that leads the group."""
    return member(group[0])


def member(item: Any) -> str:
    """The name of a layer in a group."""
    return str(item.dep.target.name).split(" ")[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch-pruning warns of what is handled here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _like(model: nn.Module, example: Tensor) -> Tensor:
    first = next((p for p in model.parameters() if p.is_floating_point()), example)
    return example.to(first.device, first.dtype)
