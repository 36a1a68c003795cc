"""Networks by name: the small ones of the CIFAR literature, torchvision's, and the user's own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self, TypeVar

import torch
from pydantic import AfterValidator, Field, FiniteFloat, PrivateAttr, model_validator
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from trainables import own
from trainables.networks.anatomy import prunable
from trainables.networks.architectures import MODELS, Factory
from trainables.networks.attention.heads import adapt
from trainables.networks.limits import Wishes
from trainables.networks.parameters import fold
from trainables.networks.running import as_written, copied, make_row_major, only_logits, takes_channels_last
from trainables.own.in_memory import code_in, is_in_memory, name_of, snapshot
from trainables.records.names import InputError
from trainables.settings import Settings, nearest, one_line

SAME = "give the network that the study was begun with, or begin another study under another name"
TORCHVISION, TIMM = "torchvision:", "timm:"
TIMM_REQUIREMENT = "timm==1.0.31"
OF_WEIGHTS: dict[str, dict[str, Any]] = {
    "torchvision:googlenet": {"transform_input": True, "aux_logits": False},
    "torchvision:inception_v3": {"transform_input": True},
}
"""Arguments that torchvision itself gives a network with published weights, unless the user gives others."""

FILES = (".pt", ".pth", ".pt2", ".ts", ".onnx", ".pkl", ".bin", ".ckpt", ".safetensors")
Argument = int | FiniteFloat | bool | str
Share = Annotated[float, Field(ge=0, le=1)]
V = TypeVar("V")


def _known_name(name: str) -> str:
    if is_torchvision(name):
        return _torchvision_name(name)
    if name.startswith(TIMM):
        return _timm_name(name)
    if PurePath(name).suffix in FILES:
        raise ValueError(
            "a file is no network: name the architecture here, and its weights in model.checkpoint; of programs "
            "(TorchScript, torch.export, ONNX) and whole pickled models layers can't be pruned"
        )
    if ":" in name and not is_in_memory(name):
        if not own.is_own(name):
            raise ValueError("a factory of your own is written package.module:factory")
    elif ":" not in name and name not in MODELS:
        raise ValueError(f"{nearest(name, MODELS)}, torchvision:NAME, timm:NAME, package.module:factory")
    return name


def _torchvision_name(name: str) -> str:
    models = library(TORCHVISION)
    known = models.list_models(module=models)
    if (short := short_name(name)) not in known:
        close = ", ".join(TORCHVISION + match for match in get_close_matches(short, known)) or f"{TORCHVISION}resnet18"
        raise ValueError(f"torchvision has no such classification network; nearest: {close}")
    return name


def _timm_name(name: str) -> str:
    try:
        timm = library(TIMM)
    except ImportError:
        raise ValueError(f"timm isn't installed; pip install {TIMM_REQUIREMENT}") from None
    if not timm.is_model(short := short_name(name)):  # NAME, or NAME.TAG, which says which weights
        close = ", ".join(TIMM + match for match in get_close_matches(short, timm.list_models())) or f"{TIMM}resnet18"
        raise ValueError(f"timm has no such network; nearest: {close}")
    return name


def library(prefix: str) -> Any:
    """torchvision.models, or timm; importing them takes seconds, and most networks don't come from there."""
    return importlib.import_module({TORCHVISION: "torchvision.models", TIMM: "timm"}[prefix])


def short_name(name: str) -> str:
    """The name of a network in its library."""
    return name.partition(":")[2]


def is_own(name: str) -> bool:
    """Whether this names a factory of the user's own."""
    return name not in MODELS and not name.startswith((TORCHVISION, TIMM)) and not is_in_memory(name)


def is_torchvision(name: str) -> bool:
    """Whether this names a network of torchvision's."""
    return name.startswith(TORCHVISION)


def _in_order(arguments: dict[str, V]) -> dict[str, V]:
    return dict(sorted(arguments.items()))


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


class ModelSettings(Settings):
    """Which network is pruned, and the trained weights it starts from."""

    name: Annotated[str, AfterValidator(_known_name)] = Field(
        "cnn", description="cnn | resnet20 | resnet56 | vgg16_bn | torchvision:NAME | timm:NAME | package.module:factory"
    )
    arguments: Annotated[dict[str, Argument], AfterValidator(_in_order)] = Field(
        {}, description="keyword arguments of the network's factory, such as {width: 32}"
    )
    checkpoint: str | None = Field(
        None, description="trained weights: a .safetensors file, or a state dict that torch.load reads without code"
    )
    weights: Literal["pretrained"] | None = Field(
        None,
        description="pretrained: what torchvision or timm publish for the network, from their caches or downloaded; with "
        "other classes than the data's, the classifier is fresh and the dense network is trained from them",
    )
    output: str | None = Field(
        None, description="which output is the logits, of a network that gives several; the first, or the one named logits"
    )
    auxiliary: float = Field(
        0.3, ge=0, description="weight of the loss of each auxiliary output that a network gives while it trains"
    )
    auxiliary_in_retraining: bool = Field(
        False, description="whether auxiliary losses are kept in retraining too; else they are of the dense training alone"
    )
    keep: Annotated[tuple[str, ...], AfterValidator(_sorted)] = Field(
        (), description="layers that stay whole: names or patterns, such as [stem.*, layer4.1.conv2]"
    )
    max_sparsity: Annotated[dict[str, Share], AfterValidator(_in_order)] = Field(
        {}, description="the largest share of a layer that may go, by name or pattern, such as {layer1.*: 0.3}"
    )
    least_channels: int = Field(1, ge=1, description="channels that every layer keeps at least")

    @model_validator(mode="before")
    @classmethod
    def _arguments_of_weights(cls, raw: Any) -> Any:
        """What a library's network needs for its published weights, written out."""
        if not isinstance(raw, dict) or raw.get("weights") is None or not isinstance(raw.get("arguments", {}), dict):
            return raw
        needed = OF_WEIGHTS.get(str(raw.get("name")), {})
        return raw | {"arguments": needed | raw.get("arguments", {})} if needed else raw

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.weights is not None and self.checkpoint is not None:
            raise ValueError("give either checkpoint or weights, and not both")
        if self.weights is not None and not self.name.startswith((TORCHVISION, TIMM)):
            raise ValueError(f"weights are published for torchvision:NAME and timm:NAME, not for {self.name!r}")
        return self

    @property
    def wishes(self) -> Wishes:
        """What is to be spared."""
        return Wishes(self.keep, self.max_sparsity, self.least_channels)

    _given: nn.Module | None = PrivateAttr(default=None)

    def __hash__(self) -> int:
        """Pydantic's own would fail on the dictionary."""
        return hash(self.model_dump_json())

    @property
    def given(self) -> nn.Module | None:
        """The network, if it is one in memory, and is here."""
        return self._given

    @property
    def brings_weights(self) -> bool:
        """Whether the network has been trained elsewhere."""
        return self.checkpoint is not None or is_in_memory(self.name)

    def of(self, model: nn.Module, *, weights: bool = True) -> Self:
        """These settings for a network in memory, of which they keep a copy.

        InputError if they name another: of what was named ``in-memory`` before, its code must be the same, and its
        ``weights``, if these matter.
        """
        if not isinstance(model, nn.Module):
            raise InputError(f"model: a {type(model).__name__} is no torch.nn.Module; give a network")
        known = is_in_memory(self.name)
        if not known and {"name", "arguments", "checkpoint", "weights"} & self.model_fields_set:
            raise InputError(f"model.name: {self.name!r} is named, and a network is given too; leave one of them out")
        copied = snapshot(model)
        name = name_of(copied)
        if known and code_in(name) != code_in(self.name):
            raise InputError(f"model: its code or its attributes aren't those of {self.name!r}; {SAME}")
        if known and weights and name != self.name:
            raise InputError(f"model: its weights aren't those of {self.name!r}; {SAME}")
        settings = self.model_copy(update={"name": self.name if known else name})
        settings._given = copied
        return settings


def build(
    settings: ModelSettings,
    classes: int,
    shape: tuple[int, int, int],
    *,
    trusted: bool,
    check: bool = True,
    output: Sequence[int] | None = (),
) -> nn.Module:
    """The network with random weights from torch's global generator, in training mode.

    ``shape`` is [C, H, W]. A factory of the user's own is imported only if ``trusted``. Raises InputError when the
    network can't be built, has nothing to prune, or (found only by ``check``, a forward pass in each mode) doesn't turn
    images [B, C, H, W] into outputs [B, *output]: logits [B, classes], unless they are given; None if any will do.
    """
    factory, given = _factory(settings, classes, shape[0], trusted)
    try:
        model = factory(**given, **settings.arguments)
    except Exception as error:  # a factory may raise anything, and it is always the settings that asked for it
        raise _cannot_build(settings, factory, error) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model.name: {settings.name!r} made a {type(model).__name__}; it must return a torch.nn.Module")
    model = as_written(model)
    if scripted := [name for name, one in model.named_modules() if isinstance(one, torch.jit.ScriptModule)]:
        where = f"{settings.name!r} has {scripted[0]}, which" if scripted[0] else f"{settings.name!r}"
        raise InputError(f"model.name: {where} is TorchScript, of which nothing can be cut; build it from its Python code")
    if any(map(is_lazy, model.parameters())):
        _fill(model, shape, settings, factory)
    fold(model)
    adapt(model)
    prunable(model)
    if settings.name not in MODELS:
        only_logits(model, settings.output)
    if (is_own(settings.name) or is_in_memory(settings.name)) and not _takes_channels_last(settings, model, shape):
        make_row_major(model)
    if check:
        _check_output(model, settings.name, output if output is None else tuple(output) or (classes,), shape)
    return model


_taken: dict[tuple[ModelSettings, str, tuple[int, int, int]], bool] = {}


def _takes_channels_last(settings: ModelSettings, model: nn.Module, shape: tuple[int, int, int]) -> bool:
    """As of any network of these settings; it is built for each step, and tried once in a process."""
    source = own.source_hash(settings.name) if is_own(settings.name) else ""
    key = settings, source, shape
    if key not in _taken:
        _taken[key] = takes_channels_last(model, shape)
    return _taken[key]


def _fill(model: nn.Module, shape: tuple[int, int, int], settings: ModelSettings, factory: Factory) -> None:
    """Let layers that take their widths from what they see (``nn.LazyLinear``) see an image."""
    model.eval()  # a line of its own: a network's own may forget to return it
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except Exception as error:  # a network raises anything
        raise _cannot_build(settings, factory, error) from error
    model.train()


def _factory(settings: ModelSettings, classes: int, channels: int, trusted: bool) -> tuple[Factory, dict[str, Any]]:
    """What makes the network, and the arguments that don't come from the settings."""
    name = settings.name
    if name in MODELS:
        return MODELS[name], {"classes": classes, "channels": channels}
    if is_in_memory(name):
        if settings.given is None:
            raise InputError(
                f"model.name: {name!r} is a network that a Python program had in memory; go on from Python, and give it: "
                "search.run(study, model=...), search.load(folder, model=...), trainables.export.load(file, model=...)"
            )
        return partial(_copied, settings.given), {}
    if is_torchvision(name):
        if channels != 3:
            raise InputError(
                f"model.name: {name!r} takes images of 3 channels, not {channels}; use one of {', '.join(MODELS)}"
            )
        builder = partial(library(TORCHVISION).get_model, short_name(name))
        return builder, {"weights": None, "num_classes": classes}
    if name.startswith(TIMM):
        builder = partial(library(TIMM).create_model, short_name(name))
        return builder, {"pretrained": False, "num_classes": classes, "in_chans": channels}
    factory: Factory = own.load(name, "model.name", "factory", trusted=trusted)
    tells_classes = "num_classes" in _parameters(factory) and "num_classes" not in settings.arguments
    return factory, {"num_classes": classes} if tells_classes else {}


def _copied(model: nn.Module) -> nn.Module:
    twin = copied(model)
    twin.train()
    return twin


def _parameters(factory: Factory) -> list[str]:
    """Names of the arguments; none for a builtin, which doesn't tell."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:
        return []
    return [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _cannot_build(settings: ModelSettings, factory: Factory, error: Exception) -> InputError:
    valid = [name for name in _parameters(factory) if name not in ("classes", "channels")]
    return InputError(
        f"model.arguments: {settings.arguments} cannot be used: {settings.name!r} fails with {one_line(error)}; "
        + (f"its arguments: {', '.join(valid)}" if valid else "change or remove an argument")
    )


def _check_output(model: nn.Module, name: str, expected: tuple[int, ...] | None, shape: tuple[int, int, int]) -> None:
    """One forward pass in each mode, because some networks return something else while they train."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.eval()
        _check_one(model, name, expected, shape, "evaluation")
        before = {key: buffer.clone() for key, buffer in model.named_buffers()}
        model.train()
        _check_one(model, name, expected, shape, "training")
        for key, buffer in model.named_buffers():
            buffer.copy_(before[key])


def _check_one(
    model: nn.Module, name: str, expected: tuple[int, ...] | None, shape: tuple[int, int, int], mode: str
) -> None:
    batch = torch.zeros(2, *shape)
    try:
        output = model(batch)
    except Exception as error:  # a user's network may raise anything
        raise InputError(
            f"model.name: {name!r} fails in {mode} on images {list(batch.shape)} ({one_line(error)}); "
            "use another model, or images of the size that it needs"
        ) from error
    wanted = None if expected is None else (2, *expected)
    if not isinstance(output, Tensor) or (wanted is not None and output.shape != wanted):
        made = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__} (which {NO_OUTPUT})"
        raise InputError(
            f"model.name: {name!r} turns images {list(batch.shape)} into {made} in {mode}, not into "
            f"{_called(wanted)}; change model.arguments or the model"
        )


NO_OUTPUT = "is no tensor, nor a tuple, list, dictionary or named tuple of tensors"


def _called(wanted: tuple[int, ...] | None) -> str:
    if wanted is None:
        return "a tensor"
    return f"{'logits' if len(wanted) == 2 else 'maps of logits'} {list(wanted)}"
