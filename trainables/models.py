"""Networks: the small ones of the CIFAR literature, torchvision's, and the user's own; and checkpoints read into them.

A factory of ``MODELS`` is ``(classes, channels, **arguments) -> nn.Module``. Its networks take images of 8x8 pixels and
more, and every channel count in them follows from one ``width``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from pydantic import AfterValidator, Field, FiniteFloat
from torch import Tensor, nn

from trainables.names import InputError
from trainables.settings import Settings, nearest

TORCHVISION = "torchvision:"
PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the state dict beside other things."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

Argument = int | FiniteFloat | bool | str
Factory = Callable[..., nn.Module]


def _known_name(name: str) -> str:
    if name.startswith(TORCHVISION):
        return _torchvision_name(name)
    if ":" in name:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
            raise ValueError("a factory of your own is written package.module:factory")
    elif name not in MODELS:
        raise ValueError(f"{nearest(name, MODELS)}, torchvision:NAME, package.module:factory")
    return name


def _torchvision_name(name: str) -> str:
    known = torchvision.models.list_models(module=torchvision.models)
    if (short := name.removeprefix(TORCHVISION)) not in known:
        close = ", ".join(TORCHVISION + match for match in get_close_matches(short, known)) or f"{TORCHVISION}resnet18"
        raise ValueError(f"torchvision has no such classification network; nearest: {close}")
    return name


def _in_order(arguments: dict[str, Argument]) -> dict[str, Argument]:
    return dict(sorted(arguments.items()))


class ModelSettings(Settings):
    """Which network is pruned, and the trained weights it starts from."""

    name: Annotated[str, AfterValidator(_known_name)] = Field(
        "cnn", description="cnn | resnet20 | resnet56 | vgg16_bn | torchvision:NAME | package.module:factory"
    )
    arguments: Annotated[dict[str, Argument], AfterValidator(_in_order)] = Field(
        {}, description="keyword arguments of the network's factory, such as {width: 32}"
    )
    checkpoint: str | None = Field(
        None, description="trained weights: a .safetensors file, or a state dict that torch.load reads without code"
    )

    def __hash__(self) -> int:
        """Pydantic's own would fail on the dictionary."""
        return hash(self.model_dump_json())


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _conv_bn_relu(inputs: int, outputs: int) -> list[nn.Module]:
    return [_conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _plain(stages: list[list[int]], classes: int, channels: int) -> nn.Module:
    """Stages of 3x3 convolutions with pooling between them. Pooling rounds up, so that one pixel stays one pixel."""
    features: list[nn.Module] = []
    for i, stage in enumerate(stages):
        features += [nn.MaxPool2d(2, ceil_mode=True)] if i else []
        for width in stage:
            features += _conv_bn_relu(channels, width)
            channels = width
    return _classify(OrderedDict(features=nn.Sequential(*features)), channels, classes)


def _classify(body: OrderedDict[str, nn.Module], width: int, classes: int) -> nn.Module:
    """``body``, global average pooling and a linear classifier, with He et al.'s (2015) initial convolutions."""
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(width, classes)}
    model = nn.Sequential(OrderedDict({**body, **head}))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def cnn(classes: int, channels: int, width: int = 32) -> nn.Module:
    """Six 3x3 convolutions of widths w w 2w 2w 4w 4w, each with BatchNorm and ReLU."""
    w = _positive(width)
    return _plain([[w, w], [2 * w, 2 * w], [4 * w, 4 * w]], classes, channels)


def vgg16_bn(classes: int, channels: int, width: int = 64) -> nn.Module:
    """VGG-16 (Simonyan and Zisserman 2014) with BatchNorm, in its CIFAR form: one linear layer after global pooling."""
    w = _positive(width)
    return _plain([[w] * 2, [2 * w] * 2, [4 * w] * 3, [8 * w] * 3, [8 * w] * 3], classes, channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        # Option A (zero padding of channels) has no weights to cut, so that its channels could not be pruned apart.
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def _resnet(blocks: int, classes: int, channels: int, width: int) -> nn.Module:
    """6n+2 layers (He et al. 2015, section 4.2): three stages of n blocks, of widths w, 2w and 4w."""
    w = _positive(width)
    stages = OrderedDict[str, nn.Module](stem=nn.Sequential(*_conv_bn_relu(channels, w)))
    inputs = w
    for stage, (outputs, stride) in enumerate([(w, 1), (2 * w, 2), (4 * w, 2)], start=1):
        first = BasicBlock(inputs, outputs, stride)
        stages[f"stage{stage}"] = nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
        inputs = outputs
    return _classify(stages, inputs, classes)


def resnet20(classes: int, channels: int, width: int = 16) -> nn.Module:
    """The CIFAR ResNet of 20 layers."""
    return _resnet(3, classes, channels, width)


def resnet56(classes: int, channels: int, width: int = 16) -> nn.Module:
    """The CIFAR ResNet of 56 layers."""
    return _resnet(9, classes, channels, width)


def _positive(width: int) -> int:
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width must be a whole number of at least 1, not {width!r}")
    return width


MODELS: Mapping[str, Factory] = {"cnn": cnn, "resnet20": resnet20, "resnet56": resnet56, "vgg16_bn": vgg16_bn}


def build(
    settings: ModelSettings, classes: int, shape: tuple[int, int, int], *, trusted: bool, check: bool = True
) -> nn.Module:
    """The network with random weights from torch's global generator, in training mode.

    ``shape`` is [C, H, W]. A factory of the user's own is imported only if ``trusted``. Raises InputError when the
    network can't be built, has nothing to prune, or (found only by ``check``, a forward pass in each mode) doesn't turn
    images [B, C, H, W] into logits [B, classes].
    """
    factory, given = _factory(settings, classes, shape[0], trusted)
    try:
        model = factory(**given, **settings.arguments)
    except Exception as error:  # a factory may raise anything, and it is always the settings that asked for it
        raise _cannot_build(settings, factory, error) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model.name: {settings.name!r} made a {type(model).__name__}; it must return a torch.nn.Module")
    prunable(model)
    if check:
        _check_output(model, settings.name, classes, shape)
    return model


def _factory(settings: ModelSettings, classes: int, channels: int, trusted: bool) -> tuple[Factory, dict[str, Any]]:
    """What makes the network, and the arguments that don't come from the settings."""
    name = settings.name
    if name in MODELS:
        return MODELS[name], {"classes": classes, "channels": channels}
    if name.startswith(TORCHVISION):
        if channels != 3:
            raise InputError(
                f"model.name: {name!r} takes images of 3 channels, not {channels}; use one of {', '.join(MODELS)}"
            )
        builder = partial(torchvision.models.get_model, name.removeprefix(TORCHVISION))
        return builder, {"weights": None, "num_classes": classes}
    if not trusted:
        raise InputError(f"model.name: {name!r} would run code of yours; add --allow-code if you trust it")
    own = _imported(name)
    tells_classes = "num_classes" in _parameters(own) and "num_classes" not in settings.arguments
    return own, {"num_classes": classes} if tells_classes else {}


def _imported(name: str) -> Factory:
    module_name, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the module, and a script may even exit
        raise InputError(
            f"model.name: {name!r} cannot be imported ({_one_line(error)}); check the name and the module"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"model.name: {module_name!r} has no factory {attribute!r}; {nearest(attribute, known)}")
    found: Factory = factory
    return found


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
        f"model.arguments: {settings.arguments} cannot be used: {settings.name!r} fails with {_one_line(error)}; "
        + (f"its arguments: {', '.join(valid)}" if valid else "change or remove an argument")
    )


def _check_output(model: nn.Module, name: str, classes: int, shape: tuple[int, int, int]) -> None:
    """One forward pass in each mode, because some networks return something else while they train."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.eval()
        _check_logits(model, name, classes, shape, "evaluation")
        before = {key: buffer.clone() for key, buffer in model.named_buffers()}
        model.train()
        _check_logits(model, name, classes, shape, "training")
        for key, buffer in model.named_buffers():
            buffer.copy_(before[key])


def _check_logits(model: nn.Module, name: str, classes: int, shape: tuple[int, int, int], mode: str) -> None:
    batch = torch.zeros(2, *shape)
    try:
        output = model(batch)
    except Exception as error:  # a user's network may raise anything
        raise InputError(
            f"model.name: {name!r} fails in {mode} on images {list(batch.shape)} ({_one_line(error)}); "
            "use another model, or images of the size that it needs"
        ) from error
    if not isinstance(output, Tensor) or output.shape != (2, classes):
        made = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"model.name: {name!r} turns images {list(batch.shape)} into {made} in {mode}, not into logits "
            f"{[2, classes]}; change model.arguments or the model"
        )


def prunable(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name, in the order of ``named_modules``; InputError if there are none."""
    layers: dict[str, nn.Module] = {name: m for name, m in model.named_modules() if isinstance(m, PRUNABLE)}
    if not layers:
        raise InputError(
            f"model.name: {type(model).__name__} has no convolution or linear layer to prune; use another model"
        )
    return layers


def classifier(model: nn.Module, classes: int) -> dict[str, nn.Module]:
    """The layer that makes the logits, by name: the last one with ``classes`` outputs. It keeps all of them.

    Raises InputError if there is none, because structured pruning would then cut logits.
    """
    for name, module in reversed(prunable(model).items()):
        if module.weight.shape[0] == classes:  # type: ignore[index]
            return {name: module}
    raise InputError(
        f"model.name: {type(model).__name__} has no layer of {classes} outputs, one a class; let it end in such a layer"
    )


def load_checkpoint(model: nn.Module, path: str) -> None:
    """Read trained weights into ``model``, every tensor of it and nothing else; no code of the file is run.

    Raises InputError naming the first tensor, in the model's order, that is missing, of another shape or not finite.
    """
    expected = model.state_dict()
    found = _without_prefix(_state(path), expected)
    if difference := _difference(expected, found):
        raise InputError(
            f"model.checkpoint: {path!r} doesn't fit the network: {difference}; "
            "check model.name, model.arguments and the data's classes"
        )
    for name in expected:
        if not bool(found[name].isfinite().all()):
            raise InputError(f"model.checkpoint: {path!r} has infinite or NaN values in {name!r}; train it again")
    model.load_state_dict(found)


def checkpoint_hash(path: str) -> str:
    """SHA-256 of the file, in hexadecimal."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _state(path: str) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, taken out of what training scripts wrap around them."""
    content = _content(Path(path).expanduser(), path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"model.checkpoint: {path!r} holds no named tensors; save model.state_dict()")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"model.checkpoint: {path!r} holds {name!r} of type {type(value).__name__}; save model.state_dict()"
            )
    return {str(name): value for name, value in content.items()}


def _content(file: Path, path: str) -> Any:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"model.checkpoint: {path!r} is no checkpoint, or would run code when read; save model.state_dict() instead"
        ) from error
    except Exception as error:  # a damaged archive raises almost anything
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"model.checkpoint: there is no file {path!r}; check the path")
    return InputError(f"model.checkpoint: {path!r} cannot be read ({_one_line(error)}); save it again")


def _without_prefix(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in found) and not any(name.startswith(prefix) for name in expected):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    for name, tensor in expected.items():
        if name not in found:
            return f"{name!r} {list(tensor.shape)} is missing in the file"
        if found[name].shape != tensor.shape:
            return f"{name!r} is {list(found[name].shape)} in the file and {list(tensor.shape)} in the network"
    unexpected = next((name for name in found if name not in expected), None)
    return unexpected and f"{unexpected!r} {list(found[unexpected].shape)} is in the file and not in the network"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
