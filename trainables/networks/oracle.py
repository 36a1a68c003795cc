"""Whether a cut network computes what the dense one computes without what was removed.

The removals are replayed on a copy whose parameters hold their own flat indices, which tells what is left of each of them;
all else is set to zero in the dense network, and both are given the same random inputs. Statistics over channels (those of
LayerNorm, GroupNorm and their like) would differ with fewer channels, and rightly so: both networks are compared with the
statistics fixed, which leaves scale and shift. GroupNorm also scales each of its groups differently: a channel that ends up
in another one shows. Where a layer written by hand takes means over channels, both networks have those of the cut one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.networks.anatomy import ROOTS, Anatomy, Removed, apply, leaves, trace
from trainables.networks.reproducible import reproducible
from trainables.networks.running import copied, evaluating

EXACT, ROUGH = 1e-6, 3e-4
"""The largest difference, as a share of the largest output, in double and in single precision."""
NEXT_TO_NOTHING = 1e-4
BATCH = 2


Taken = dict[str, list[tuple[torch.Size, Tensor]]]
"""The means that each layer takes, in the order in which it does, and the shape of what they are of."""


class WrongCutError(Exception):
    """A cut network doesn't compute what it should; the message says how it differs."""


def survivors(model: nn.Module, removed: Removed, anatomy: Anatomy) -> dict[str, Tensor]:
    """For each floating-point parameter and buffer of the dense ``model`` the flat indices of what is left, int64.

    Each tensor of indices has the shape that its parameter has after the cuts. A parameter of several names is told under
    each; WrongCutError if the names have lost different elements.
    """
    return _cut_indices(model, removed, anatomy)[1]


def _cut_indices(model: nn.Module, removed: Removed, anatomy: Anatomy) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy that is cut, with indices for values; and these by name."""
    twin = copied(model)
    graph = trace(twin, anatomy)
    twin.double()  # not before: a network may make single-precision tensors by itself
    with torch.no_grad():
        for tensor in _tensors(twin).values():
            tensor.copy_(torch.arange(tensor.numel(), dtype=tensor.dtype).view(tensor.shape))
    names = _shared(twin)
    apply(graph, twin, removed, anatomy)
    left = {name: tensor.detach().round().long() for name, tensor in _tensors(twin).items()}
    _check_counts(twin)
    for name, other in names:
        if not torch.equal(left[name], left[other]):
            raise WrongCutError(f"{name} and {other} are one parameter, and would lose different channels")
    return twin, left


def compare(dense: nn.Module, removed: Removed, anatomy: Anatomy, seed: int = 0) -> float:
    """The largest difference of outputs of the cut and the zeroed network, as a share of the largest output.

    Raises WrongCutError if it is more than rounding makes, or if the cut network fails. Nothing is drawn from global
    generators, and ``dense`` stays as it is. It may have been cut before; ``removed`` are the cuts since.
    """
    random = torch.Generator().manual_seed(seed)
    whole, kind, most = _precise(dense, anatomy)
    cut, left = _cut_indices(whole, removed, anatomy)
    inputs = torch.randn((BATCH, *anatomy.example.shape[1:]), generator=random, dtype=torch.float64).to(kind)
    error = 0.0
    for drawn in (False, True):
        _draw(whole, random, weights=drawn)
        with plain_attention(), torch.no_grad(), RowByRow():
            if drawn:
                _scale(whole, inputs)
            error = max(error, _compared(whole, cut, left, anatomy, inputs, drawn=drawn))
        if not error <= most:
            raise WrongCutError(f"outputs are another network's: they differ by {error:.1e} of the largest")
    return error


def _compared(
    whole: nn.Module, cut: nn.Module, left: dict[str, Tensor], anatomy: Anatomy, inputs: Tensor, *, drawn: bool
) -> float:
    """The difference for the values in ``whole``; none if the dense network fails with drawn ones, or isn't finite."""
    values, zeroed = _tensors(whole), copied(whole)
    for name, tensor in _tensors(cut).items():
        tensor.data = values[name].flatten()[left[name]]
    for name, tensor in _tensors(zeroed).items():
        kept = torch.zeros(tensor.numel(), dtype=torch.bool)
        kept[left[name].flatten()] = True
        tensor.masked_fill_(~kept.view(tensor.shape), 0.0)
    with FixedStatistics() as first, first.watching(evaluating(cut)):
        one = _attempted(cut, inputs)
    with FixedStatistics(first.taken) as fixed, fixed.watching(evaluating(zeroed)):
        other = _attempted(zeroed, inputs)
    if drawn and (isinstance(other, Exception) or not bool(other.isfinite().all())):
        return 0.0  # a network may be made sure of things that hold for its own values
    if isinstance(other, Exception):
        raise other
    if isinstance(one, Exception):
        raise _failing(one) from one
    if fixed.acted:  # with its own statistics the network computes something else
        _check(_forward(lambda: _same_draws(cut, inputs)), _same_draws(zeroed, inputs))
    else:
        _check(one, other)
    error = _difference(one, other)
    if anatomy.trained:
        error = max(error, _difference_in_training(cut, zeroed, inputs, other.shape))
    return error


def _check_counts(cut: nn.Module) -> None:
    """WrongCutError if a layer counts other channels than its weight has: the next cut would go by them."""
    for name, module in cut.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            outputs, inputs = module.weight.shape[:2] if not module.transposed else module.weight.shape[1::-1]
            grouped = (outputs * module.groups, inputs) if module.transposed else (outputs, inputs * module.groups)
            right = grouped == (module.out_channels, module.in_channels)
        elif isinstance(module, nn.Linear):
            right = tuple(module.weight.shape) == (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            right = len(module.weight) == module.num_features
        else:
            continue
        if not right:
            raise WrongCutError(f"channels of {name} are counted wrongly")


class FixedStatistics(TorchFunctionMode):
    """Normalisation over channels becomes its scale and shift, and dropout nothing; ``acted`` tells of normalisation.

    ``taken`` are the means and their like that layers of a watched network take, with the shape of what they are of. Given
    those of another network with other channels, a layer has these in place of its own.
    """

    def __init__(self, given: Taken | None = None) -> None:
        super().__init__()
        self.acted, self.taken, self._given = False, Taken(), given or {}
        self._inside: str | None = None

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know which of the model's layers is run, of those that may be a normalisation written by hand."""
        hooks: list[Any] = []
        for name, module in model.named_modules():
            if _may_normalise(module):
                hooks += [
                    module.register_forward_pre_hook(partial(self._enter, name)),
                    module.register_forward_hook(self._leave),
                ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, name: str, *_: Any) -> None:
        self._inside = name
        self.taken.setdefault(name, [])

    def _leave(self, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        shapes = {getattr(one, "shape", None) for one in (*inputs[:1], output)}
        if len(shapes) > 1:  # what gives nothing but means is compared by them
            self.taken[str(self._inside)].clear()
        self._inside = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        fixed = _same if func is F.normalize and self._inside is not None else FIXED.get(func)
        self.acted |= fixed is not None
        value = (fixed or (_same if func in DROPOUT else func))(*args, **given)
        if self._inside is None or func not in STATISTICS:
            return value
        of = next(one for one in (*args, *given.values()) if isinstance(one, Tensor))
        return self._statistic(of.shape, value)

    def _statistic(self, shape: torch.Size, value: Tensor) -> Tensor:
        mine, others = self.taken[str(self._inside)], self._given.get(str(self._inside), [])
        mine.append((shape, value))
        of, other = others[len(mine) - 1] if len(mine) <= len(others) else (shape, value)
        if of == shape or other.shape != value.shape:
            return value
        self.acted = True
        return other


class RowByRow(TorchFunctionMode):
    """Convolutions see images and weights row by row: in double precision those of groups are three times as fast so."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d:
            args = (*(one.contiguous() for one in args[:2]), *args[2:])
        return func(*args, **(kwargs or {}))


def _may_normalise(module: nn.Module) -> bool:
    """Whether a module is a layer of the user's own, with nothing but scales and shifts for parameters."""
    plain = all(sum(size > 1 for size in parameter.shape) <= 1 for parameter in module.parameters())
    return plain and not list(module.children()) and not type(module).__module__.startswith("torch.")


def _last(x: Tensor, _shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    return _affine(x, weight, bias)


def _grouped(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    marks = torch.linspace(1, 2, num_groups, dtype=x.dtype).repeat_interleave(x.shape[1] // num_groups)
    return _affine(
        x * marks.view(shape), None if weight is None else weight.view(shape), None if bias is None else bias.view(shape)
    )


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


FIXED: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: _last, torch.layer_norm: _last, F.rms_norm: _last, torch.rms_norm: _last,
    F.group_norm: _grouped, torch.group_norm: _grouped, F.local_response_norm: _same,
}  # fmt: skip
STATISTICS = (
    Tensor.mean, torch.mean, Tensor.var, torch.var, Tensor.std, torch.std, Tensor.norm, torch.norm, torch.linalg.norm,
    torch.linalg.vector_norm,
)  # fmt: skip
DROPOUT = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention of ``torch.nn`` step by step, without the fused path of evaluation, which looks at no mode."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _precise(dense: nn.Module, anatomy: Anatomy) -> tuple[nn.Module, torch.dtype, float]:
    """A copy in double precision with its tolerance; as it is, if something in the network can't be double."""
    double = evaluating(copied(dense).double())
    try:
        with torch.no_grad():
            double(anatomy.example.double())
    except Exception:  # a network may make single-precision tensors by itself, which products refuse
        kind = next(dense.parameters()).dtype
        return evaluating(copied(dense)), kind, ROUGH
    return double, torch.float64, EXACT


@torch.no_grad()
def _draw(model: nn.Module, random: torch.Generator, *, weights: bool) -> None:
    """What is constant or next to nothing in an untrained network is drawn, so that every element matters; ``weights`` too.

    Biases, scales and statistics are constant; what ends a branch may begin with almost nothing, a part of a weight with
    zeros, and of weights that are small for their width little comes through several layers.
    """
    parameters = {id(parameter) for parameter in model.parameters() if parameter.dim() > 1}
    for tensor in _tensors(model).values():
        if weights and id(tensor) in parameters:
            scale = (2 * len(tensor) / max(1, tensor.numel())) ** 0.5  # He et al. 2015
            tensor.copy_(scale * torch.randn(tensor.shape, generator=random, dtype=torch.float64))
        elif tensor.numel() and (
            bool((tensor == tensor.flatten()[0]).all()) or float(tensor.abs().max()) < NEXT_TO_NOTHING
        ):
            around = 0.5 if float(tensor.flatten()[0]) else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=random, dtype=torch.float64) + around)


def _scale(model: nn.Module, inputs: Tensor) -> None:
    """Scale drawn layers to put out values of unit size (Mishkin and Matas 2016, arXiv:1511.06422).

    Else values grow from block to block of a deep network, and gates make what they are rounded by as large as they are.
    """
    scaled = set()

    def scale(layer: nn.Module, _inputs: Any, output: Any) -> Tensor | None:
        size = float(output.square().mean().sqrt()) if isinstance(output, Tensor) else 0.0
        if id(layer.weight) in scaled or not 0 < size < float("inf"):
            return None
        scaled.add(id(layer.weight))
        for parameter in layer.parameters(recurse=False):
            parameter.div_(size)
        scaled_output: Tensor = output / size
        return scaled_output

    hooks = [module.register_forward_hook(scale) for module in model.modules() if isinstance(module, ROOTS)]
    try:
        with FixedStatistics(), suppress(Exception):  # a network may be made sure of things that hold for its own values
            _same_draws(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point parameters and buffers by all their names."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found |= dict(model.named_buffers(remove_duplicate=False))
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def _shared(model: nn.Module) -> list[tuple[str, str]]:
    first: dict[int, str] = {}
    return [
        (name, first[id(tensor)]) for name, tensor in _tensors(model).items() if first.setdefault(id(tensor), name) != name
    ]


def _same_draws(model: nn.Module, inputs: Tensor) -> Any:
    """A forward pass in which whatever the network draws is the same each time."""
    with reproducible(0):
        return model(inputs)


def _attempted(model: nn.Module, inputs: Tensor) -> Any:
    try:
        return _same_draws(model, inputs)
    except Exception as error:  # networks raise anything
        return error


def _forward(compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except Exception as error:  # whatever the network raises, it is the cut that made it
        raise _failing(error) from error


def _failing(error: Exception) -> WrongCutError:
    return WrongCutError(f"it fails ({' '.join(str(error).split())[:160] or type(error).__name__})")


def _check(output: Tensor, expected: Tensor) -> None:
    if output.shape != expected.shape:
        raise WrongCutError(f"outputs are {list(output.shape)} and not {list(expected.shape)}")
    if bool(expected.isfinite().all()) and not bool(output.isfinite().all()):
        raise WrongCutError("outputs are not finite")


def _difference_in_training(cut: nn.Module, zeroed: nn.Module, inputs: Tensor, shape: torch.Size) -> float:
    """Of all outputs like the logits in training, where some networks have layers that run in no other pass."""
    made: list[list[Tensor]] = []
    taken: Taken = {}
    for model in (cut, zeroed):
        model.train()
        with FixedStatistics(taken) as fixed, fixed.watching(model), reproducible(0):
            made.append([one for one in leaves(_forward(partial(model.forward, inputs))) if one.shape == shape])
        taken = fixed.taken
    return max(map(_difference, *made), default=0.0)


def _difference(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        raise WrongCutError(f"outputs are {list(one.shape)} and not {list(other.shape)}")
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))
