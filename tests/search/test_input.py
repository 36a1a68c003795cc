"""Input that can't be used: one line that names the field, the value and the remedy; exit status 2; nothing written."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from search.__main__ import main
from search.session import prepare
from search.study import check_same, load_study
from tests import ROOT
from tests.search_helpers import FACTORY, NETS, SPACE, STRUCTURED_SPACE, SWEEP, one_line, raw_study, refusal, write
from trainables.networks.factory import ModelSettings, build
from trainables.networks.network import Network, encode
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.storage.store import Store


@pytest.fixture(autouse=True)
def _nothing_written(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "results").exists()


def change(**sections: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    """A study with some keys of its sections changed."""

    def make(tmp: Path) -> dict[str, Any]:
        raw = raw_study(tmp)
        for section, keys in sections.items():
            raw[section] = {**raw.get(section, {}), **keys}
        return raw

    return make


def top(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda tmp: raw_study(tmp, **changes)


CHANNELS: dict[str, object] = {"family": "structured"}


def sweep(**fields: Any) -> Callable[[Path], dict[str, Any]]:
    return top(sweep=[{"step_ratio": 0.5, **fields}])


class Case(NamedTuple):
    study: Callable[[Path], Any]
    told: tuple[str, ...]
    """What the line must contain, beside being one line."""


SETTINGS: dict[str, Case] = {
    "misspelt key": Case(top(serach={}), ("'serach'", "did you mean 'search'")),
    "unknown key": Case(top(zzz=1), ("'zzz'", "valid: ", "dense")),
    "misspelt nested key": Case(change(search={"trails": 5}), ("'search.trails'", "did you mean 'trials'")),
    "misspelt twice nested key": Case(
        top(space={"unstructured": {"importanse": ["magnitude"]}}),
        ("'space.unstructured.importanse'", "did you mean 'importance'"),
    ),
    "misspelt key of a schedule": Case(sweep(stepz=2), ("sweep.0", "'stepz'", "did you mean 'steps'")),
    "no name": Case(top(name=None), ("name: missing",)),
    "wrong type": Case(change(search={"trials": "many"}), ("search.trials", "'many'", "integer")),
    "a section that is none": Case(top(search=3), ("search", "3", "cannot be used")),
    "a sweep that is none": Case(top(sweep={"step_ratio": 0.5}), ("sweep", "give a list")),
    "a schedule that is none": Case(top(sweep=["magnitude"]), ("sweep.0", "'magnitude'", "dictionary")),
    "an empty sweep": Case(top(sweep=[]), ("sweep", "at least 1")),
    "an empty choice in a sweep": Case(sweep(importance=[]), ("sweep.0.importance", "[]")),
    "out of range": Case(change(data={"validation_fraction": 1.5}), ("data.validation_fraction", "1.5", "less than 1")),
    "a name that is a path": Case(top(name="../elsewhere"), ("name", "'../elsewhere'", "pattern")),
    "not a number": Case(change(dense={"learning_rate": float("nan")}), ("dense.learning_rate", "nan")),
    "infinite": Case(change(retraining={"learning_rate": float("inf")}), ("retraining.learning_rate", "inf")),
    "endless": Case(top(search={"trials": None}), ("search", "never end", "give trials, epochs, minutes or stall_epochs")),
    "neither space nor sweep": Case(top(space=None), ("'space' or 'sweep'",)),
    "space and sweep": Case(top(space=SPACE, sweep=SWEEP), ("'space' or 'sweep'", "not both")),
    "an empty space": Case(top(space={}), ("space", "name unstructured, structured, mixed or several")),
    "an empty choice": Case(top(space={"unstructured": {"scope": []}}), ("space.unstructured.scope", "at least 1")),
    "no ratio within the largest sparsity": Case(
        top(space={"unstructured": {"step_ratio": [0.9], "max_sparsity": 0.5}}), ("step_ratio", "max_sparsity 0.5", "raise")
    ),
    "unknown dataset": Case(
        change(data={"dataset": "digit"}), ("data.dataset", "'digit'", "did you mean 'digits'", "folder")
    ),
    "unknown model": Case(
        change(model={"name": "resnet200"}), ("model.name", "'resnet200'", "did you mean 'resnet20'", "vgg16_bn")
    ),
    "unknown torchvision model": Case(
        change(model={"name": "torchvision:resnet19"}), ("model.name", "torchvision:resnet19", "torchvision:resnet18")
    ),
    "unknown argument of the model": Case(
        change(model={"arguments": {"widht": 4}}), ("model.arguments", "widht", "its arguments: width")
    ),
    "unknown importance": Case(
        top(space={"unstructured": {"importance": ["magnitude", "tailor"]}}),
        ("space.unstructured.importance.1", "'tailor'", "did you mean 'taylor'", "random"),
    ),
    "importance of the other family": Case(
        top(space={"structured": {"importance": ["magnitude"]}}), ("space.structured.importance.0", "'magnitude'", "lamp")
    ),
    "unknown pruner": Case(
        top(space={"structured": {"pruner": ["groupnorm"]}}),
        ("space.structured.pruner.0", "'groupnorm'", "did you mean 'group_norm'", "growing_reg"),
    ),
    "unknown scope": Case(
        top(space={"structured": {"scope": ["layerwise"]}}),
        ("space.structured.scope.0", "'layerwise'", "global, isomorphic, local"),
    ),
    "unknown retraining": Case(
        top(space={"unstructured": {"retrain": ["finetune"]}}),
        ("space.unstructured.retrain.0", "'finetune'", "did you mean 'fine_tune'", "weight_rewind"),
    ),
    "weight rewinding of channels": Case(
        top(space={"structured": {"retrain": ["weight_rewind"]}}),
        ("space.structured.retrain.0", "fine_tune, distill, lr_rewind"),
    ),
    "unknown sampler": Case(
        change(search={"sampler": "tpee"}), ("search.sampler", "'tpee'", "did you mean 'tpe'", "nsga2")
    ),
    "unknown objective": Case(
        top(objectives=["accuracy", "compresion"]),
        ("objectives.1", "'compresion'", "did you mean 'compression'", "latency"),
    ),
    "an objective twice": Case(top(objectives=["accuracy", "accuracy"]), ("objectives", "once")),
    "one objective": Case(top(objectives=["accuracy"]), ("objectives", "at least 2")),
    "unknown family in a sweep": Case(
        sweep(family="structural"), ("sweep.0.family", "'structural'", "did you mean 'structured'")
    ),
    "a family that is no word": Case(sweep(family={}), ("sweep.0.family", "{}")),
    "unknown importance in a sweep": Case(
        sweep(importance=["random", "mag"]), ("sweep.0", "importance", "'mag'", "magnitude")
    ),
    "unknown pruner in a sweep": Case(
        sweep(family="structured", pruner="bnscale"), ("sweep.0", "pruner", "'bnscale'", "did you mean 'bn_scale'")
    ),
    "unknown kind of schedule": Case(
        sweep(schedule="geometrical"), ("sweep.0", "schedule", "'geometrical'", "did you mean 'geometric'", "cubic")
    ),
    "unknown scope in a sweep": Case(
        sweep(scope="globl"), ("sweep.0", "scope", "'globl'", "did you mean 'global'", "layerwise")
    ),
    "unknown retraining in a sweep": Case(sweep(retrain="rewind"), ("sweep.0", "retrain", "'rewind'", "lr_rewind")),
    "base with regularised training": Case(
        sweep(family="structured", sparse_epochs=1), ("sweep.0", "pruner base", "set sparse_epochs to 0")
    ),
    "a pruner without regularised training": Case(
        sweep(family="structured", pruner="group_norm"), ("sweep.0", "group_norm", "set sparse_epochs")
    ),
    "levels that are no list": Case(top(sweep=[{"levels": 0.5}]), ("sweep.0", "levels", "0.5")),
    "no levels": Case(top(sweep=[{"levels": []}]), ("sweep.0", "levels", "[]")),
    "levels of two kinds": Case(top(sweep=[{"levels": [[0.5], 0.7]}]), ("sweep.0", "levels")),
    "levels that fall": Case(top(sweep=[{"levels": [0.7, 0.5]}]), ("sweep.0", "rising levels")),
    "a level of 1": Case(top(sweep=[{"levels": [0.5, 1.0]}]), ("sweep.0", "levels.1", "1.0", "less than 1")),
    "a schedule without its level": Case(top(sweep=[{"steps": 2}]), ("sweep.0", "needs 'step_ratio'")),
    "a schedule that removes everything": Case(
        top(sweep=[{"step_ratio": 0.9, "steps": 9}]), ("sweep.0", "use fewer steps")
    ),
    "rewinding further than the dense training went": Case(
        sweep(retrain="lr_rewind", fine_tune_epochs=3), ("fine_tune_epochs", "3", "dense.epochs 2", "at most")
    ),
    "rewinding weights to after the dense training": Case(
        lambda tmp: sweep(retrain="weight_rewind")(tmp) | {"dense": {"epochs": 1}}, ("dense.rewind_epoch", "1", "smaller")
    ),
    "a searched rewinding that can never be": Case(
        top(space={"unstructured": {"retrain": ["lr_rewind"], "fine_tune_epochs": [3, 4]}}),
        ("fine_tune_epochs", "3", "dense.epochs 2", "at most"),
    ),
    "more cores than there are": Case(top(resources={"cpu": 4096}), ("resources.cpu", "4096", "lower it")),
    "one and a half GPUs": Case(top(resources={"gpu": 1.5}), ("resources.gpu", "1.5", "whole ones")),
    "more GPUs than there are": Case(top(resources={"gpu": 64}), ("resources.gpu", "64")),
    "fewer images than classes": Case(change(data={"limit": 3}), ("data.limit", "3", "raise the limit")),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_that_cannot_be_used(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["run", str(write(tmp_path, case.study(tmp_path)))], capsys)
    for words in case.told:
        assert words in line


FILES: dict[str, Case] = {
    "not YAML": Case(lambda _: "name: [unclosed", ("line 1", "not valid YAML")),
    "a list": Case(lambda _: "- name", ("holds list", "search/studies/")),
    "empty": Case(lambda _: "", ("not keys and values",)),
    "a python tag": Case(
        lambda _: "name: !!python/object/apply:os.system ['touch results']", ("line 1", "python/object/apply:os.system")
    ),
    "a date that is none": Case(lambda _: "name: 2024-13-41", ("not valid YAML", "month")),
    "nested without end": Case(lambda _: "name: " + "[" * 5000, ("not valid YAML",)),
    "control characters": Case(lambda _: "name: \x00", ("not valid YAML",)),
    "a key that is no word": Case(lambda _: "7: 2", ("7", "keys should be strings")),
}


@pytest.mark.parametrize("case", FILES.values(), ids=FILES.keys())
def test_a_study_file_that_is_none(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(["run", str(write(tmp_path, case.study(tmp_path)))], capsys)
    assert "study.yaml" in line
    for words in case.told:
        assert words in line


def test_a_study_file_that_is_missing_a_folder_or_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such study file; presets are in search/studies/" in refusal(["run", str(tmp_path / "no.yaml")], capsys)
    assert "no such study file" in refusal(["run", str(tmp_path)], capsys)
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff")
    assert "can't be read" in refusal(["run", str(tmp_path / "image.yaml")], capsys)


@pytest.mark.parametrize(
    ("override", "told"),
    {
        "search.trials": ("'search.trials'", "is not key=value"),
        "=3": ("'=3'", "is not key=value"),
        "search.trials=[": ("not valid YAML", "quote it"),
        "search.trials=2024-13-41": ("not valid YAML", "quote it"),
        "search.trails=3": ("'search.trails'", "did you mean 'trials'"),
        "search.trials=0": ("search.trials", "0", "greater than or equal to 1"),
        "name.first=x": ("name", "string"),
        "sweep.0.steps=x": ("sweep",),
    }.items(),
)
def test_an_override_that_cannot_be_used(
    override: str, told: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(["run", str(write(tmp_path, raw_study(tmp_path))), "--set", override], capsys)
    for words in told:
        assert words in line


def images(root: Path, part: str, classes: tuple[str, ...] = ("cat", "dog"), each: int = 10) -> None:
    for name in classes:
        folder = root / part / name
        folder.mkdir(parents=True)
        for i in range(each):
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i}.png")


def folder_study(tmp: Path, root: Path) -> str:
    return str(write(tmp, raw_study(tmp, data={"dataset": "folder", "root": str(root), "validation_fraction": 0.3})))


def test_data_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "images"
    run = ["run", folder_study(tmp_path, root)]
    line = refusal(run, capsys)
    assert "data.root" in line
    assert str(root) in line
    assert "put images at" in line
    images(root, "train")
    images(root, "test", ("cat", "bird"))
    line = refusal(run, capsys)
    assert "bird, dog" in line
    assert "same class folders" in line
    shutil.rmtree(root / "test")
    for content, name in ((b"", "empty.png"), (b"\x89PNG\r\n\x1a\nnothing more", "broken.png")):
        (root / "train" / "dog" / name).write_bytes(content)
        line = refusal(run, capsys)
        assert name in line
        assert "replace or remove it" in line
        (root / "train" / "dog" / name).unlink()


def small_state(width: int = 4) -> dict[str, torch.Tensor]:
    settings = ModelSettings(name="cnn", arguments={"width": width})
    return build(settings, 10, (1, 8, 8), trusted=False).state_dict()


def test_a_checkpoint_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.safetensors"
    model = {"name": "cnn", "arguments": {"width": 4}, "checkpoint": str(file)}
    run = ["run", str(write(tmp_path, raw_study(tmp_path, model=model)))]
    line = refusal(run, capsys)
    assert f"model.checkpoint: there is no file '{file}'" in line
    wide = small_state(width=6)
    safetensors.torch.save_file(wide, file)
    line = refusal(run, capsys)
    assert repr(next(iter(wide))) in line
    assert "[6, 1, 3, 3] in the file and [4, 1, 3, 3] in the network" in line
    file.write_bytes(b"nothing")
    assert "cannot be read" in refusal(run, capsys)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("results",)


def test_a_checkpoint_that_would_run_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, save in (("new.pt", torch.save), ("old.pt", lambda bomb, file: Path(file).write_bytes(pickle.dumps(bomb)))):
        save(Bomb(), tmp_path / name)
        model = {"name": "cnn", "checkpoint": str(tmp_path / name)}
        line = refusal(["run", str(write(tmp_path, raw_study(tmp_path, model=model)))], capsys)
        assert "would run code" in line
        assert name in line


@pytest.mark.parametrize("retrain", ["lr_rewind", "weight_rewind"])
def test_a_checkpoint_cannot_be_rewound(retrain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(small_state(), file)
    model = {"name": "cnn", "arguments": {"width": 4}, "checkpoint": str(file)}
    line = refusal(
        ["run", str(write(tmp_path, raw_study(tmp_path, model=model, sweep=[{"step_ratio": 0.5, "retrain": retrain}])))],
        capsys,
    )
    assert retrain in line
    assert "model.checkpoint" in line
    assert "use fine_tune" in line
    space = {"unstructured": {"retrain": [retrain]}}
    assert "use fine_tune" in refusal(["run", str(write(tmp_path, raw_study(tmp_path, model=model, space=space)))], capsys)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of networks in the working directory."""
    (tmp_path / f"{FACTORY}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield FACTORY
    sys.modules.pop(FACTORY, None)


def test_networks_that_cannot_be_used(nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(factory: str, *options: str, **changes: Any) -> str:
        raw = raw_study(tmp_path, model={"name": f"{nets}:{factory}"}, **changes)
        return refusal(["run", str(write(tmp_path, raw)), *options], capsys)

    line = told("without_batchnorm")
    assert f"'{nets}:without_batchnorm' would run code of yours; add --allow-code" in line
    assert nets not in sys.modules
    assert "has no convolution or linear layer to prune" in told("nothing_to_prune", "--allow-code")
    assert "did you mean 'nothing_to_prune'" in told("nothing_to_prun", "--allow-code")
    structured = {"family": "structured", "step_ratio": 0.5}
    for method in ({"importance": "bn_scale"}, {"pruner": "bn_scale", "sparse_epochs": 1}):
        line = told("without_batchnorm", "--allow-code", sweep=[{**structured, **method}])
        assert next(iter(method)) in line
        assert "bn_scale can't be used" in line
        assert "BatchNorm" in line
        assert "leave it out" in line
    only = {"structured": {**STRUCTURED_SPACE, "importance": ["bn_scale"]}}
    line = told("without_batchnorm", "--allow-code", space=only)
    assert "space.structured.importance" in line
    assert "BatchNorm" in line
    assert "no_such_module" in refusal(
        ["run", str(write(tmp_path, raw_study(tmp_path, model={"name": "no_such_module:f"}))), "--allow-code"], capsys
    )


def test_storage_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["run", str(write(tmp_path, raw_study(tmp_path)))]
    (tmp_path / "file").write_text("")
    line = refusal([*run, "--set", f"storage={tmp_path}/file"], capsys)
    assert f"storage: {tmp_path}/file can't be written" in line
    (tmp_path / "tiny").write_text("")
    line = refusal([*run, "--set", f"storage={tmp_path}"], capsys)
    assert f"{tmp_path}/tiny" in line
    monkeypatch.setattr("os.access", lambda *_: False)
    line = refusal(run, capsys)
    assert f"storage: {tmp_path} can't be written; choose another" in line


def test_a_disk_that_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    line = refusal(["run", str(write(tmp_path, raw_study(tmp_path)))], capsys)
    assert "storage: " in line
    assert "GB are free" in line
    assert "choose another storage" in line


def test_a_disk_must_hold_the_finalists_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"family": "structured", "importance": ["fpgm", "random"], "step_ratio": 0.3, "steps": 2}
    final = {"top": 1, "seeds": [5, 6]}
    study = load_study(write(tmp_path, raw_study(tmp_path, sweep=[entry], finalists=final)))
    one = len(encode(Network(prepare(study).tree.problem.build())))
    networks = 1 + 2 * 2 + 2 * (1 + 2 * 2)  # of each seed a dense one and two chains of two steps
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=networks * one))
    prepare(study)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=networks * one - 1))
    with pytest.raises(InputError, match="GB are free"):
        prepare(study)
    monkeypatch.setattr(Store, "ids", lambda _: ["of a finalist"])  # what is stored needs no room any more
    prepare(study)


@pytest.mark.parametrize(
    ("precision", "fastest", "told"), [("bf16", "fp32", True), ("bf16", "bf16", False), ("auto", "fp32", False)]
)
def test_a_precision_that_the_hardware_emulates_is_told(tmp_path: Path, precision: str, fastest: Any, told: bool) -> None:
    study = load_study(write(tmp_path, raw_study(tmp_path, precision=precision, sweep=SWEEP)))
    assert any("emulated" in line for line in prepare(study, fastest=fastest).notes.get("Precision", ())) == told


def test_a_folder_of_another_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = tmp_path / "others"
    (others / "tiny").mkdir(parents=True)
    run = ["run", str(write(tmp_path, raw_study(tmp_path))), "--set", f"storage={others}"]
    (others / "tiny" / "notes.txt").write_text("mine")
    line = refusal(run, capsys)
    assert f"{others}/tiny is not empty and holds no study" in line
    assert [file.name for file in (others / "tiny").iterdir()] == ["notes.txt"]
    write(others / "tiny", raw_study(tmp_path, storage=str(others)), n.STUDY_FILE)
    line = refusal([*run, "--set", "dense.epochs=5", "--set", "search.seed=3"], capsys)
    assert line.startswith("error: dense.epochs: 5, but ")
    assert "holds a study with 2" in line
    assert "choose another `name`" in line
    write(others / "tiny", "name: [", n.STUDY_FILE)
    assert "not valid YAML" in refusal(run, capsys)
    assert sorted(file.name for file in (others / "tiny").iterdir()) == ["notes.txt", "study.yaml"]


@pytest.mark.parametrize(
    "now, told",
    [
        ([{"step_ratio": 0.5}, {"step_ratio": 0.25}], "sweep.1.step_ratio: 0.25, but {} holds a study with 0.75;"),
        ([{"step_ratio": 0.5}], "sweep.1: None, but {} holds a study with {{'step_ratio': 0.75}};"),
    ],
    ids=["changed", "shorter"],
)
def test_of_another_sweep_the_entry_that_differs_is_told(
    now: list[object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = str(tmp_path / "others")
    folder = tmp_path / "others" / "tiny"
    folder.mkdir(parents=True)
    before = raw_study(tmp_path, storage=others, sweep=[{"step_ratio": 0.5}, {"step_ratio": 0.75}])
    write(folder, before, n.STUDY_FILE)
    line = refusal(["run", str(write(tmp_path, raw_study(tmp_path, storage=others, sweep=now)))], capsys)
    assert line.startswith(f"error: {told.format(folder)}")


def test_a_sweep_may_grow_at_its_end_unless_finalists_come_there(tmp_path: Path) -> None:
    entries = [CHANNELS | {"step_ratio": 0.1}, CHANNELS | {"step_ratio": 0.2}]
    short, long = (load_study(write(tmp_path, raw_study(tmp_path, sweep=entries[:size]))) for size in (1, 2))
    check_same(short, long, "results/tiny")
    with pytest.raises(InputError, match=r"sweep\.1"):
        check_same(long, short, "results/tiny")
    finalists = {"seeds": [5]}
    short, long = (
        load_study(write(tmp_path, raw_study(tmp_path, sweep=entries[:size], finalists=finalists))) for size in (1, 2)
    )
    with pytest.raises(InputError, match=r"sweep\.1"):
        check_same(short, long, "results/tiny")


@pytest.mark.parametrize(
    "given, changes, told",
    [
        ("0", {}, "--seeds: 0 cannot be used: a spread needs at least 2"),
        ("1", {}, "--seeds: 1 cannot be used"),
        ("x", {}, "--seeds: 'x' is no whole number"),
        ("3", {}, "has no front to be confirmed; run the study first"),
        ("3", {"sweep": SWEEP}, "--seeds: a sweep names the seeds of its schedules itself"),
    ],
    ids=["none", "one", "no number", "no front", "of a sweep"],
)
def test_fresh_seeds_that_cannot_be(
    given: str, changes: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "others" / "tiny"
    folder.mkdir(parents=True)
    write(folder, raw_study(tmp_path, **changes), n.STUDY_FILE)
    assert told in refusal(["confirm", str(folder), "--seeds", given], capsys)
    assert [file.name for file in folder.iterdir()] == [n.STUDY_FILE]
    assert "without --seeds; leave it out" in refusal(["confirm", str(folder), "--address", "auto"], capsys)


def test_exports_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(folder: Path, point: str, target: Path = tmp_path / "out.safetensors") -> str:
        return refusal(["export", str(folder), "--point", point, "--to", str(target)], capsys)

    folder = tmp_path / "others" / "tiny"
    assert f"{folder} holds no study; give results/<study>" in told(folder, "ab")
    folder.mkdir(parents=True)
    write(folder, raw_study(tmp_path), n.STUDY_FILE)
    for step_id in ("ab01", "ab02"):
        Store(folder / n.STEPS_FOLDER).write({"id": step_id}, {})
    assert "'zz' names no point" in told(folder, "zz")
    assert "'ab' names 2 points" in told(folder, "ab")
    assert "no point" in told(folder, "")
    assert "make it first" in told(folder, "ab01", tmp_path / "no" / "out.safetensors")
    assert "is a folder" in told(folder, "ab01", tmp_path)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_command_line_that_is_none() -> None:
    for arguments in ([], ["walk"], ["run"], ["export", "results/x"], ["run", "x.yaml", "--sett", "a=1"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("case", ["study", "data", "network"])
def test_a_process_says_one_line_and_exits_with_2(case: str, nets: str, tmp_path: Path) -> None:
    bn_scale = [{"family": "structured", "step_ratio": 0.5, "importance": "bn_scale"}]
    raw, told = {
        "study": (raw_study(tmp_path, serach={}), "did you mean 'search'"),
        "data": (raw_study(tmp_path, data={"dataset": "folder", "root": "images"}), "put images at"),
        "network": (raw_study(tmp_path, model={"name": f"{nets}:without_batchnorm"}, sweep=bn_scale), "BatchNorm"),
    }[case]
    study = write(tmp_path, raw)
    command = [sys.executable, "-m", "search", "run", str(study), "--allow-code"]
    ended = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in one_line(ended.stderr)
