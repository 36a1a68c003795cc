"""Weights that libraries publish: found in their caches, with their preprocessing, or refused in one line."""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from tests.conftest import digits_problem, photographs, same_state
from tests.search_helpers import raw_study, refusal, write
from trainables.data.dataset import Data, DataSettings, load
from trainables.loading.pretrained import fetch, published, state_hash
from trainables.networks.factory import ModelSettings
from trainables.networks.reproducible import reproducible
from trainables.problem import Problem
from trainables.records.names import InputError
from trainables.schedule import UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree

NAME = "torchvision:squeezenet1_1"
MEAN = (0.485, 0.456, 0.406)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    model: nn.Module = torchvision.models.squeezenet1_1()
    return model.state_dict()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch hub's cache, empty, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def put(content: Any, hub: Path, short: str = "squeezenet1_1") -> Path:
    file = hub / PurePosixPath(torchvision.models.get_model_weights(short).DEFAULT.url).name
    torch.save(content, file)
    return file


def problem_with(data: Data, **fields: Any) -> Problem:
    model = ModelSettings(name=NAME, weights="pretrained", **fields)
    return digits_problem(data=data, model=model, dense={"epochs": 1, "batch_size": 8})


def test_with_other_classes_the_classifier_is_fresh_and_all_is_trained(hub: Path, state: Any, tmp_path: Path) -> None:
    put(state, hub)
    made = problem_with(photographs(classes=4))
    assert not made.given
    told = "; ".join(made.told["Weights"])
    assert "torchvision's IMAGENET1K_V1; classifier.1 is fresh, for 4 classes in place of 1000" in told
    assert "images of 224 pixels, and these have 32x32" in told
    root = made.root(0)
    assert root.settings["weights"] == state_hash(state)
    assert root.settings["dense"]["epochs"] == 1
    with reproducible(root.seed):
        model = made.build()
    drawn = model.get_parameter("classifier.1.weight").clone()
    made.load_weights(model)
    assert torch.equal(model.get_parameter("classifier.1.weight"), drawn)
    rest = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("classifier")}
    assert same_state(rest, {name: state[name] for name in rest})
    early = Tree(made, Store(tmp_path))._early(made.chain(UnstructuredSchedule(step_ratio=0.5))[0])
    trained = Tree(made, Store(tmp_path)).network(root).model
    assert not torch.equal(trained.get_parameter("features.0.weight"), state["features.0.weight"])
    assert early.model.state_dict().keys() == trained.state_dict().keys()


def test_with_the_same_classes_it_is_used_as_a_checkpoint(hub: Path, state: Any, tmp_path: Path) -> None:
    put(state, hub)
    made = problem_with(photographs(count=2000, classes=1000))
    assert made.given
    root = made.root(0)
    assert root.settings["dense"].keys() == {"batch_size", "momentum", "weight_decay"}
    assert same_state(Tree(made, Store(tmp_path)).network(root).model.state_dict(), state)
    with pytest.raises(InputError, match=r"model\.weights doesn't bring"):
        made.check(UnstructuredSchedule(step_ratio=0.5, retrain="lr_rewind"))


def test_other_weights_make_another_network(hub: Path, state: Any) -> None:
    one = problem_with(photographs())
    put(state, hub)
    first = one.root(0).id
    put(state | {"features.0.bias": state["features.0.bias"] + 1}, hub)
    assert problem_with(photographs()).root(0).id != first
    plain = dataclasses.replace(one, model=ModelSettings(name=NAME))
    assert "weights" not in plain.root(0).settings


def test_their_preprocessing_is_the_data_s_unless_that_says_otherwise(tmp_path: Path) -> None:
    moments = published(NAME).moments
    assert moments == (MEAN, (0.229, 0.224, 0.225))
    for i in range(20):
        folder = tmp_path / "train" / f"class {i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.full((3, 8, 8), 10 * i, dtype=torch.uint8)
        torchvision.io.write_png(pixels, str(folder / f"{i}.png"))
    settings = DataSettings(dataset="folder", root=str(tmp_path), validation_fraction=0.3)
    own, theirs = load(settings), load(settings, moments=moments)
    assert (theirs.mean, theirs.std) == moments != (own.mean, own.std)
    assert own.fingerprint != theirs.fingerprint
    given = settings.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    assert load(given, moments=moments).mean == (0.5, 0.5, 0.5)
    assert load(DataSettings(), moments=moments).mean == load(DataSettings()).mean  # images of one channel


class Runs:
    """Leaves a file behind where it is read by running what it holds."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def test_what_cannot_be_had_is_refused_in_one_line(
    hub: Path, state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = problem_with(photographs())
    with pytest.raises(InputError, match=r"no network here\).*put squeezenet1_1-[0-9a-f]+\.pth in .*checkpoints"):
        made.root(0)
    for content in (Runs(), state | {"config": Runs()}):
        put(content, hub)
        with pytest.raises(InputError, match=r"model\.weights: .* can't be had"):
            problem_with(photographs()).root(0)
    assert not Path("ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    put({name: tensor for name, tensor in state.items() if name != "features.0.bias"}, hub)
    with pytest.raises(InputError, match=r"features\.0\.bias"):
        problem_with(photographs()).root(0)
    assert capsys.readouterr() == ("", "")


def test_the_command_line_refuses_in_one_line(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        folder = tmp_path / "images/train" / f"class {i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        torchvision.io.write_png(torch.full((3, 32, 32), 6 * i, dtype=torch.uint8), str(folder / f"{i}.png"))
    data = {"dataset": "folder", "root": str(tmp_path / "images"), "validation_fraction": 0.3}
    for model, words in (
        ({"name": NAME, "weights": "pretrained"}, "no network here"),
        ({"name": "cnn", "weights": "pretrained"}, "published for torchvision:NAME and timm:NAME, not for 'cnn'"),
        ({"name": NAME, "weights": "imagenet"}, "pretrained"),
        ({"name": NAME, "weights": "pretrained", "checkpoint": "x.pt"}, "either checkpoint or weights"),
    ):
        assert words in refusal(["run", str(write(tmp_path, raw_study(tmp_path, data=data, model=model)))], capsys)
        assert not (tmp_path / "results").exists()


def test_weights_for_another_shape_are_refused(hub: Path, tmp_path: Path) -> None:
    settings = ModelSettings(name="torchvision:vit_b_16", weights="pretrained", arguments={"image_size": 32})
    with pytest.raises(InputError, match=r"image_size|224"):
        fetch(settings, 3)


def test_arguments_that_a_library_gives_with_its_weights_are_written_out() -> None:
    settings = ModelSettings(name="torchvision:googlenet", weights="pretrained")
    assert settings.arguments == {"aux_logits": False, "transform_input": True}
    asked = ModelSettings(name="torchvision:inception_v3", weights="pretrained", arguments={"transform_input": False})
    assert asked.arguments == {"transform_input": False}
    assert ModelSettings(name="torchvision:googlenet").arguments == {}


def test_timm_s_weights_are_read_and_their_classifier_replaced(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    registry = importlib.import_module("timm.models._registry")._model_pretrained_cfgs
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "net.pth")
    known = dataclasses.replace(registry["test_resnet.r160_in1k"], file=str(tmp_path / "net.pth"))
    for name in ("test_resnet", "test_resnet.r160_in1k"):
        monkeypatch.setitem(registry, name, known)
    model = ModelSettings(name="timm:test_resnet", weights="pretrained")
    made = digits_problem(data=photographs(), model=model)
    assert "timm's test_resnet.r160_in1k; fc is fresh, for 4 classes" in made.told["Weights"][0]
    assert made.root(0).settings["weights"] == state_hash(state)
    network = made.build()
    made.load_weights(network)
    assert torch.equal(network.get_parameter("conv1.0.weight"), state["conv1.0.weight"])
    with pytest.raises(InputError, match="Invalid pretrained tag"):
        published("timm:test_resnet.nowhere")
