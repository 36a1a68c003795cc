"""Exported networks: the way back gives the same logits, and loading runs nothing that the file names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.conftest import MakeProblem
from trainables.exporting.formats import FORMATS
from trainables.exporting.network_file import EXPORT, export, load
from trainables.forms.forms import FORMS
from trainables.networks.factory import ModelSettings
from trainables.networks.network import metadata
from trainables.pruning.sample import Sample
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree, walk

calls: list[str] = []


def own_net(num_classes: int) -> nn.Module:
    calls.append("built")
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes)
    )


def exported(tree: Tree, schedule: Schedule, target: Path) -> torch.Tensor:
    """Export the last step; returns its logits of some images."""
    list(walk(schedule, tree))
    node = tree.chain(schedule)[-1]
    network = tree.network(node)
    assert export(network, tree.problem, target) == target.stat().st_size
    images, _ = Sample(tree.problem.data, 0).images(16)
    with torch.no_grad():
        return network.model.eval()(images)


SCHEDULES: dict[str, Schedule] = {
    "masked": UnstructuredSchedule(step_ratio=0.7, steps=2),
    "structured": StructuredSchedule(step_ratio=0.3, steps=2, importance="lamp"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_way_back_gives_the_same_logits(name: str, tree: Tree, tmp_path: Path) -> None:
    expected = exported(tree, SCHEDULES[name], tmp_path / "network.safetensors")
    found, data = load(tmp_path / "network.safetensors"), tree.problem.data
    assert not found.model.training
    assert (found.classes, found.shape, found.mean, found.std) == (data.classes, data.shape, data.mean, data.std)
    images = torch.from_numpy(data.train_images).float() / 255
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:16]
    normal = (images[order] - torch.tensor(found.mean)[:, None, None]) / torch.tensor(found.std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(found.model(normal), expected, rtol=1e-4, atol=1e-4)
        same, _ = Sample(data, 0).images(16)
        assert torch.equal(found.model(same), expected)
    assert (found.network.masks != {}) == (name == "masked")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_compact_files_give_next_to_the_same_logits(name: str, form: str, tree: Tree, tmp_path: Path) -> None:
    expected = exported(tree, SCHEDULES[name], tmp_path / "network.safetensors")
    network = tree.network(tree.chain(SCHEDULES[name])[-1])
    target = tmp_path / "network.compact"
    written = FORMATS.make("compact", {"form": form}).write(network, tree.problem, target)
    assert written.content == target.read_bytes()
    assert target.stat().st_size < (tmp_path / "network.safetensors").stat().st_size
    found = load(target)
    assert (found.classes, found.mean) == (tree.problem.data.classes, tree.problem.data.mean)
    images, _ = Sample(tree.problem.data, 0).images(16)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_it_is_a_plain_safetensors_file(tree: Tree, tmp_path: Path) -> None:
    target = tmp_path / "network.safetensors"
    exported(tree, SCHEDULES["structured"], target)
    tensors = safetensors.torch.load_file(target)
    model = load(target).model
    assert set(tensors) == set(model.state_dict())


def test_a_factory_of_ones_own_runs_only_when_it_is_allowed(problem: MakeProblem, tmp_path: Path) -> None:
    made = problem(model=ModelSettings(name=f"{__name__}:own_net"), trusted=True)
    target = tmp_path / "network.safetensors"
    expected = exported(Tree(made, Store(tmp_path / "steps")), SCHEDULES["structured"], target)
    calls.clear()
    with pytest.raises(InputError, match="would run code"):
        load(target)
    assert calls == []
    found = load(target, allow_code=True)
    assert calls
    images, _ = Sample(made.data, 0).images(16)
    with torch.no_grad():
        assert torch.equal(found.model(images), expected)


def test_files_that_are_none_are_refused(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a file"):
        load(tmp_path / "nothing")
    with pytest.raises(InputError):
        load(tmp_path)
    (tmp_path / "text").write_text("hello, world")
    with pytest.raises(InputError, match="no network"):
        load(tmp_path / "text")
    root = tree.problem.root(0)
    tree.record(root)
    with pytest.raises(InputError, match="step of a study"):
        load(Path(tree.store.place) / root.id / n.WEIGHTS_FILE)


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda about: about.pop(key)


def changed(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda about: about.update(fields)


FALSE: dict[str, Callable[[dict[str, Any]], object]] = {
    **{f"no {key}": without(key) for key in ("model", "arguments", "classes", "shape", "mean", "std")},
    "an unknown model": changed(model="resnet"),
    "a model that is none": changed(model=5),
    "another model": changed(model="resnet20"),
    "another width": changed(arguments={"width": 5}),
    "arguments that are none": changed(arguments={"width": [4]}),
    "a shape of two": changed(shape=[8, 8]),
    "a shape of words": changed(shape=["a", "b", "c"]),
    "a negative shape": changed(shape=[1, -8, 8]),
    "another channel count": changed(shape=[3, 8, 8]),
    "classes that are none": changed(classes=5),
    "other classes": changed(classes=["a", "b"]),
    "a mean that is none": changed(mean=5),
}


@pytest.mark.parametrize("change", FALSE)
def test_false_descriptions_are_refused_in_one_line(change: str, tree: Tree, tmp_path: Path) -> None:
    target = tmp_path / "network.safetensors"
    exported(tree, StructuredSchedule(step_ratio=0.5, fine_tune_epochs=0), target)
    content = target.read_bytes()
    record = metadata(content)
    FALSE[change](record[EXPORT])
    tensors = safetensors.torch.load(content)
    target.write_bytes(safetensors.torch.save(tensors, {"pruning": json.dumps(record)}))
    with pytest.raises(InputError) as error:
        load(target)
    assert "\n" not in str(error.value)
