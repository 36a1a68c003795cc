"""Networks and checkpoints; every factory of the table is tested the moment it exists."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests import ROOT
from trainables.loading.checkpoint import checkpoint_hash, load_checkpoint
from trainables.networks.anatomy import prunable, survey
from trainables.networks.architectures import MODELS
from trainables.networks.factory import TIMM_REQUIREMENT, ModelSettings, build
from trainables.records.names import InputError
from trainables.settings import parse

SMALL = (1, 8, 8)
PHOTOGRAPH = (3, 32, 32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, far slower where other programs run beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(
    name: str = "cnn", shape: tuple[int, int, int] = PHOTOGRAPH, *, trusted: bool = False, **arguments: Any
) -> nn.Module:
    return build(ModelSettings(name=name, arguments=arguments), 10, shape, trusted=trusted)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("model.")
    return message


def small_net() -> nn.Module:
    return made("cnn", SMALL, width=4)


def saved(state: Any, file: Path) -> str:
    torch.save(state, file)
    return str(file)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [PHOTOGRAPH, SMALL, (3, 9, 13), (2, 1, 1)])
def test_logits_of_any_image(name: str, shape: tuple[int, int, int]) -> None:
    model = made(name, shape, width=8)
    assert model(torch.zeros(5, *shape)).shape == (5, 10)
    assert model.training


@pytest.mark.parametrize("name", MODELS)
def test_equal_seeds_give_equal_weights_and_leave_the_generator_alike(name: str) -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append((parameters_hash(made(name, SMALL, width=4)), float(torch.rand(()))))
    assert draws[0] == draws[1]


def parameters_hash(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in model.state_dict().values())).hexdigest()


@pytest.mark.parametrize("name", MODELS)
def test_building_leaves_batchnorm_statistics_untouched(name: str) -> None:
    for module in made(name, SMALL, width=4).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert int(module.num_batches_tracked or 0) == 0
            assert module.running_mean is not None
            assert not module.running_mean.any()


@pytest.mark.parametrize("name", MODELS)
def test_the_classifier_is_the_last_prunable_layer(name: str) -> None:
    model = made(name, SMALL, width=4)
    layers = prunable(model)
    assert survey(model, SMALL).keep == (list(layers)[-1],)
    assert list(layers) == [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def conv_bn(*widths: int) -> int:
    """Parameters of a chain of 3x3 convolutions without bias, each with a BatchNorm."""
    return sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths))


def resnet(blocks: int, w: int = 16) -> int:
    stages = sum(conv_bn(*[width] * (2 * blocks)) for width in (w, 2 * w, 4 * w))
    firsts = conv_bn(w, w) + conv_bn(w, 2 * w) + conv_bn(2 * w, 4 * w)
    shortcuts = w * 2 * w + 2 * 2 * w + 2 * w * 4 * w + 2 * 4 * w
    return conv_bn(3, w) + stages + firsts + shortcuts + (4 * w + 1) * 10


COUNTS = {
    "cnn": conv_bn(3, 32, 32, 64, 64, 128, 128) + 129 * 10,
    "resnet20": resnet(3),
    "resnet56": resnet(9),
    "vgg16_bn": conv_bn(3, 64, 64, 128, 128, *[256] * 3, *[512] * 6) + 513 * 10,
}
PUBLISHED = {"cnn": 0.289e6, "resnet20": 0.27e6, "resnet56": 0.85e6, "vgg16_bn": 14.7e6}


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name: str) -> None:
    assert parameters(made(name)) == COUNTS[name] == pytest.approx(PUBLISHED[name], rel=0.01)


def test_a_stage_more_of_the_cnn_doubles_the_widths_once_more() -> None:
    assert parameters(made("cnn", width=16, stages=4)) == conv_bn(3, 16, 16, 32, 32, 64, 64, 128, 128) + 129 * 10


@pytest.mark.parametrize(("name", "layers"), [("cnn", 7), ("resnet20", 22), ("resnet56", 58), ("vgg16_bn", 14)])
def test_layer_counts(name: str, layers: int) -> None:
    """The ResNets' two shortcuts are not among the layers of their names."""
    assert len(prunable(made(name, SMALL))) == layers


@pytest.mark.parametrize("name", MODELS)
def test_logits_at_the_start_neither_vanish_nor_explode(name: str) -> None:
    torch.manual_seed(0)
    logits = made(name, SMALL, width=8)(torch.randn(64, *SMALL))
    assert 0.01 < logits.std().item() < 10


def test_torchvision_networks() -> None:
    model = made("torchvision:resnet18", width_per_group=64)
    assert survey(model, (3, 32, 32)).keep == ("fc",)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_torchvision_networks_need_three_channels() -> None:
    assert "3 channels, not 1" in refusal(lambda: made("torchvision:resnet18", SMALL))


def test_torchvision_never_downloads_weights() -> None:
    assert "weights" in refusal(lambda: made("torchvision:resnet18", weights="DEFAULT"))


def test_images_too_small_for_a_network_are_named() -> None:
    assert "[2, 3, 32, 32]" in refusal(lambda: made("torchvision:alexnet"))


@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_of_a_network_that_trains_with_other_outputs_the_logits_are_taken() -> None:
    assert made("torchvision:googlenet")(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cn", "did you mean 'cnn'"),
        ("resnet-20", "did you mean 'resnet20'"),
        ("torchvision:resnet19", "torchvision:resnet18"),
        ("torchvision:", "torchvision:resnet18"),
        ("my model:net", "package.module:factory"),
        (":net", "package.module:factory"),
        ("a:b:c", "package.module:factory"),
    ],
)
def test_unknown_names_are_told_the_nearest(name: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        parse(ModelSettings, {"name": name}, "study.yaml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [{"widht": 3}, {"width": 0}, {"width": "wide"}, {"width": 1.5}, {"stages": 0}, {"classes": 3}, {"channels": 3}],
)
def test_bad_arguments_name_the_good_ones(arguments: dict[str, Any]) -> None:
    settings = ModelSettings(arguments=arguments)
    message = refusal(lambda: build(settings, 10, SMALL, trusted=False))
    assert message.startswith(f"model.arguments: {arguments}")
    assert message.endswith("its arguments: width, stages")


def test_settings_with_the_same_arguments_are_one() -> None:
    one, other = (ModelSettings(arguments=dict(pairs)) for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert hash(one) == hash(other)
    assert one.model_dump_json() == other.model_dump_json()
    assert ModelSettings(arguments={"a": True}).model_dump_json() != ModelSettings(arguments={"a": 1}).model_dump_json()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [1]])
def test_arguments_are_plain_values(value: Any) -> None:
    with pytest.raises(InputError):
        parse(ModelSettings, {"arguments": {"width": value}}, "study.yaml")


OWN = """
import torch
from torch import nn

def net(num_classes, hidden=7):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, num_classes))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def wrong():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 11))

def text():
    return "a network"

def fails():
    raise RuntimeError("first line\\nsecond line")

def empty():
    return nn.Flatten()

def scripted():
    return nn.Sequential(nn.Flatten(), torch.jit.script(nn.Linear(64, 10)))

def lazy(width=10):
    return nn.Sequential(nn.LazyConv2d(4, 9), nn.Flatten(), nn.LazyLinear(width))

class Forgetful(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)

    def train(self, mode=True):
        super().train(mode)

    def forward(self, x):
        return self.layer(x.flatten(1))

NUMBER = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return module


def test_code_of_the_user_is_not_imported_unasked(own: str) -> None:
    assert "--allow-code" in refusal(lambda: made(f"{own}:net", SMALL))
    assert own not in sys.modules


@pytest.mark.parametrize(("factory", "arguments"), [("net", {}), ("net", {"hidden": 3}), ("fixed", {}), ("Forgetful", {})])
def test_a_factory_of_the_user(own: str, factory: str, arguments: dict[str, Any]) -> None:
    model = made(f"{own}:{factory}", SMALL, trusted=True, **arguments)
    assert model(torch.zeros(3, *SMALL)).shape == (3, 10)
    if arguments:
        assert next(iter(prunable(model).values())).weight.shape == (3, 64)


@pytest.mark.parametrize(
    ("factory", "arguments", "words"),
    [
        ("net", {"hiden": 3}, "its arguments: num_classes, hidden"),
        ("net", {"num_classes": 11}, "into [2, 11]"),
        ("wrong", {}, "into [2, 11]"),
        ("text", {}, "made a str"),
        ("fails", {}, "first line second line"),
        ("scripted", {}, "has 1, which is TorchScript"),
        ("lazy", {}, "8 x 8"),
        ("empty", {}, "no convolution or linear layer to prune"),
        ("nett", {}, "did you mean 'net'"),
        ("NUMBER", {}, "no factory 'NUMBER'"),
    ],
)
def test_a_factory_that_cannot_be_used(own: str, factory: str, arguments: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: made(f"{own}:{factory}", SMALL, trusted=True, **arguments))


@pytest.mark.parametrize("source", ["import nothing_of_this_name", "def net(:", "raise SystemExit('usage: ...')"])
def test_a_module_that_cannot_be_imported(own: str, tmp_path: Path, source: str) -> None:
    (tmp_path / f"broken_{own}.py").write_text(source)
    assert "cannot be imported" in refusal(lambda: made(f"broken_{own}:net", SMALL, trusted=True))


def test_transposed_convolutions_are_not_prunable() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.Conv1d(1, 2, 3), nn.Linear(2, 3), nn.BatchNorm2d(2))
    assert list(prunable(model)) == ["1", "2"]


def test_a_convolution_can_be_the_classifier() -> None:
    model = nn.Sequential(OrderedDict(body=nn.Conv2d(1, 4, 3), head=nn.Conv2d(4, 10, 1), flat=nn.Flatten()))
    assert survey(model, (1, 3, 3)).keep == ("head",)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_of_training_scripts(tmp_path: Path, wrap: Callable[[Any], Any], prefix: str) -> None:
    source, target = small_net(), small_net()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    load_checkpoint(target, saved(wrap(state), tmp_path / "net.pt"))
    assert parameters_hash(source) == parameters_hash(target)


@pytest.mark.parametrize("name", MODELS)
def test_safetensors_checkpoints(tmp_path: Path, name: str) -> None:
    source, target = made(name, SMALL, width=4), made(name, SMALL, width=4)
    file = tmp_path / "net.safetensors"
    safetensors.torch.save_file(source.state_dict(), file)
    load_checkpoint(target, str(file))
    assert parameters_hash(source) == parameters_hash(target)


def state_without(*names: str, **changed: Tensor) -> dict[str, Tensor]:
    state = {name: tensor for name, tensor in small_net().state_dict().items() if name not in names}
    return state | {name.replace("__", "."): tensor for name, tensor in changed.items()}


FIRST, SECOND = "features.0.weight", "features.1.weight"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: state_without(SECOND, FIRST), [f"{FIRST!r} [4, 1, 3, 3] is missing"]),
        (
            lambda: state_without("classifier.bias", features__1__weight=torch.zeros(5)),
            [f"{SECOND!r} is [5] in the file and [4] in the network"],
        ),
        (lambda: state_without(extra=torch.zeros(2)), ["'extra' [2] is in the file and not in the network"]),
        (lambda: state_without(features__1__weight=torch.tensor([1, 2, torch.nan, 4])), [repr(SECOND), "NaN"]),
        (lambda: state_without(classifier__bias=torch.full((10,), -torch.inf)), ["'classifier.bias'"]),
        (lambda: {"epoch": 3, "loss": 0.1}, ["'epoch' of type int"]),
        (dict, ["no named tensors"]),
        (lambda: [torch.zeros(3)], ["no named tensors"]),
        (lambda: torch.zeros(3), ["no named tensors"]),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, content: Callable[[], Any], words: list[str]) -> None:
    path = saved(content(), tmp_path / "net.pt")
    model = small_net()
    before = parameters_hash(model)
    message = refusal(lambda: load_checkpoint(model, path))
    assert message.startswith("model.checkpoint: ")
    assert all(word in message for word in [*words, path])
    assert parameters_hash(model) == before


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content, words in ((Malicious(), "would run code"), (nn.Linear(2, 2), "without running its code")):
        path = saved(content, tmp_path / "net.pt")
        assert words in refusal(lambda path=path: load_checkpoint(small_net(), path))  # type: ignore[misc]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"hello\nworld", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert str(file) in refusal(lambda: load_checkpoint(small_net(), str(file)))


@pytest.mark.parametrize("action", [lambda path: load_checkpoint(small_net(), path), checkpoint_hash])
@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_missing_files_are_named(tmp_path: Path, action: Callable[[str], Any], name: str) -> None:
    path = str(tmp_path / name)
    assert f"no file {path!r}" in refusal(lambda: action(path))
    assert "cannot be read" in refusal(lambda: action(str(tmp_path)))


def test_a_checkpoints_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"weights")
    assert checkpoint_hash(str(tmp_path / "net.pt")) == hashlib.sha256(b"weights").hexdigest()


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in ModelSettings.model_fields.values())


def test_timm_is_an_extra_of_one_version() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["timm"] == [TIMM_REQUIREMENT]


def test_timm_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=f"pip install {TIMM_REQUIREMENT}"):
        parse(ModelSettings, {"name": "timm:resnet18"}, "model")
