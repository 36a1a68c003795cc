"""Networks as programs: they compute what the network does, say what they are, and what can't be one is one line."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests import ROOT
from tests.conftest import MakeProblem
from tests.test_packages import EXTRAS
from trainables.data.dataset import Data
from trainables.exporting import programs
from trainables.exporting.base import Format
from trainables.exporting.formats import FORMATS
from trainables.exporting.onnx_file import REQUIRES
from trainables.networks.network import Network
from trainables.networks.reproducible import reproducible
from trainables.problem import Problem
from trainables.records.names import InputError
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.training.loop import evaluate, normalise, tensors
from trainables.tree import Tree, walk

ABOUT = {"point": "ab12", "measures": {"accuracy": 0.5}}
CUTS = {
    "masked": UnstructuredSchedule(step_ratio=0.7, fine_tune_epochs=0),
    "structured": StructuredSchedule(step_ratio=0.3, fine_tune_epochs=0),
}


class Odd(nn.Module):
    """A network on images 1x8x8 that exporters can't follow."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.head = kind, nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "branch" and x.sum() > 0:
            x = x * 2
        if self.kind == "operator":
            x = x + torch.linalg.svdvals(x.flatten(2)).sum()
        return self.head(x.reshape(2, 64) if self.kind == "batch" else x.flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def made(problem: MakeProblem, tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, dict[str, Network]]:
    """A network of each family."""
    tree = Tree(problem(width=8), Store(tmp_path_factory.mktemp("steps")))
    for schedule in CUTS.values():
        list(walk(schedule, tree))
    return tree.problem, {name: tree.network(tree.chain(schedule)[-1]) for name, schedule in CUTS.items()}


def images_of(data: Data, count: int) -> Tensor:
    return tensors(data.validation_images[:count], data.validation_labels[:count], "cpu")[0]


def logits(network: Network, data: Data, count: int) -> Tensor:
    with torch.no_grad():
        return network.model.eval()(normalise(images_of(data, count), data))


@pytest.mark.parametrize("preprocessing", [False, True, "uint8"])
def test_torch_runs_the_program_on_batches_of_any_size(
    preprocessing: programs.Preprocessing, made: tuple[Problem, dict[str, Network]]
) -> None:
    problem, networks = made
    network, data = networks["structured"], problem.data
    exporter = FORMATS.make("torch_export", {"preprocessing": preprocessing, "fold": preprocessing is True})
    file = exporter.encode(network, problem, ABOUT)
    extra = {"about.json": ""}
    program = torch.export.load(io.BytesIO(file.content), extra_files=extra)
    for count in (1, 5):
        plain = torch.from_numpy(data.validation_images[:count])
        given = {False: normalise(images_of(data, count), data), True: plain / 255, "uint8": plain}[preprocessing]
        torch.testing.assert_close(program.module()(given), logits(network, data, count), rtol=0, atol=1e-4)
    assert ("batch_norm" in program.graph_module.code) == (preprocessing is not True)
    told = json.loads(extra["about.json"])
    assert told["classes"] == list(data.classes) and told["point"] == "ab12"
    assert file.notes[0].startswith("Largest difference from PyTorch: ") and "144 validation images" in file.notes[0]


def weights_of(model: onnx.ModelProto) -> dict[str, Any]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}


@pytest.mark.parametrize(("name", "options"), [("masked", {}), ("structured", {"fold": True, "preprocessing": "uint8"})])
def test_onnxruntime_runs_the_file_on_batches_of_any_size(
    name: str, options: dict[str, Any], made: tuple[Problem, dict[str, Network]]
) -> None:
    problem, networks = made
    network, data = networks[name], problem.data
    file = FORMATS.make("onnx", options).encode(network, problem, ABOUT)
    session = onnxruntime.InferenceSession(file.content, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        given = data.validation_images[:count] if options else normalise(images_of(data, count), data).numpy()
        found = session.run(["logits"], {"images": given})[0]
        np.testing.assert_allclose(found, logits(network, data, count).numpy(), rtol=0, atol=1e-4)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(data.classes) and json.loads(told["measures"]) == {"accuracy": 0.5}
    assert told["point"] == "ab12" and session.get_inputs()[0].shape[0] == "batch"
    model = onnx.load_from_string(file.content)
    assert ("BatchNormalization" in {node.op_type for node in model.graph.node}) == (not options)
    for key, mask in network.masks.items():  # dense, with zeros where weights were removed
        assert (weights_of(model)[f"model.{key}"] == 0).sum() >= int((~mask).sum())
    assert str(ROOT).encode() not in file.content


def test_int8_is_measured_beside_fp32(made: tuple[Problem, dict[str, Network]], tmp_path: Path) -> None:
    problem, networks = made
    file = FORMATS.make("onnx_int8", {"calibration_images": 100, "preprocessing": "uint8"}).write(
        networks["structured"], problem, tmp_path / "net.onnx", ABOUT
    )
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": problem.data.validation_images})[0].argmax(1)
    accuracy = float((found == problem.data.validation_labels).mean())
    told = f"In int8: accuracy {accuracy:.2%} on the validation images, {len(file.content):,} bytes."
    assert file.notes[0].startswith(told)
    assert f"In fp32: {evaluate(networks['structured'].model, problem.data):.2%}" in file.notes[0]
    assert "100 training images" in file.notes[1] and "Largest difference".lower() in file.notes[2].lower()
    weights = weights_of(onnx.load(tmp_path / "net.onnx"))
    layers = [one for one in weights.values() if one.dtype == np.int8 and one.ndim == 4]
    assert len(layers) == 6
    scales = [one for name, one in weights.items() if name.endswith("weight_scale")]
    assert all(one.ndim == 1 and len(one) > 1 for one in scales) and len(scales) >= 6  # one a channel


@pytest.mark.parametrize("name", ["torch_export", "onnx", "onnx_int8"])
def test_what_is_too_far_from_pytorch_is_not_written(
    name: str, problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, normalised = Network(Odd("none")), programs.fed
    monkeypatch.setattr(programs, "fed", lambda *given: normalised(*given) + 0.01)
    with pytest.raises(InputError, match=r"differs from PyTorch by 0\.\d+ in a logit, more than 0.0001") as refused:
        FORMATS.make(name).write(network, problem(), tmp_path / "net")
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())
    if name == "torch_export":
        FORMATS.make(name, {"tolerance": 10}).write(network, problem(), tmp_path / "net")
        assert (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [("operator", "onnx", "svd"), ("branch", "torch_export", "data-dependent"), ("batch", "onnx", "one number of images")],
)
def test_a_network_that_can_be_no_program_is_one_line(
    kind: str, name: str, why: str, problem: MakeProblem, recwarn: pytest.WarningsRecorder,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with pytest.raises(InputError, match=f"format: {name} can't hold this network .*{why}") as refused:
        FORMATS.make(name).encode(Network(Odd(kind)), problem(), {})
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    assert capfd.readouterr() == ("", "")
    assert not [one for one in caplog.records if one.levelno > logging.DEBUG] and not recwarn.list


def test_what_needs_a_package_that_is_not_installed_says_which(
    made: tuple[Problem, dict[str, Network]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(EXTRAS["onnx"]) == REQUIRES
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    for name in ("onnx", "onnx_int8"):
        with pytest.raises(
            InputError, match=r"needs onnxruntime, which isn't installed; pip install onnx==.* onnxscript=="
        ):
            FORMATS.make(name).encode(made[1]["masked"], made[0], {})
    FORMATS.make("torch_export").check_installed()


def test_floats_have_no_uint8(made: tuple[Problem, dict[str, Network]]) -> None:
    problem, networks = made
    data = problem.data
    floats = replace(data, validation_images=(data.validation_images / 255).astype(np.float32))
    with pytest.raises(InputError, match="preprocessing: uint8, but the study's images are floats; use true"):
        FORMATS.make("onnx", {"preprocessing": "uint8"}).encode(networks["masked"], replace(problem, data=floats), {})


@pytest.mark.parametrize("name", FORMATS)
def test_the_lines_that_a_card_shows_load_the_file(
    name: str, made: tuple[Problem, dict[str, Network]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    problem, networks = made
    exporter: Format = FORMATS.make(name, {"preprocessing": True})
    target = tmp_path / f"net{exporter.suffix}"
    network = Network(Odd("none")) if isinstance(exporter, programs.Program) else networks["structured"]
    exporter.write(network, problem, target, ABOUT)
    (tmp_path / "use.py").write_text(exporter.usage(target.name, problem))
    monkeypatch.chdir(tmp_path)
    with reproducible(0, "cpu"):
        runpy.run_path("use.py")
    assert capsys.readouterr().out.startswith(("[", "tensor(["))
