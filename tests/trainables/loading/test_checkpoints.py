"""Checkpoints as training scripts leave them: their weights are found, what is left out is told, and no code is run."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.conftest import MakeProblem, same_state
from trainables.loading.checkpoint import Loaded, load_checkpoint
from trainables.networks.anatomy import weights
from trainables.networks.factory import ModelSettings
from trainables.networks.oracle import survivors
from trainables.networks.parameters import fold
from trainables.problem import Problem
from trainables.records.names import InputError
from trainables.schedule import StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Tree

State = dict[str, Tensor]


def net() -> nn.Sequential:
    body = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8, 10))


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(5)
    return net()


def loads(content: Any, tmp_path: Path, trained: nn.Module, model: nn.Module | None = None) -> Loaded:
    file = tmp_path / "net.pt"
    torch.save(content, file)
    target = model or net()
    loaded = load_checkpoint(target, str(file))
    assert same_state(target.state_dict(), trained.state_dict())
    return loaded


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model_state_dict": s, "epoch": 3, "optimizer_state_dict": {"lr": 0.1}},
        lambda s: {"net": s, "acc": 93.5},
        lambda s: {"state_dict": {"model": s}},
        lambda s: prefixed(s, "module._orig_mod.module."),
        lambda s: {"state_dict": prefixed(s, "model."), "hyper_parameters": {"lr": 0.1}},
        lambda s: {name.replace("0.", "0._orig_mod.", 1) if name.startswith("0.") else name: s[name] for name in s},
        lambda s: {"net": s, "args": argparse.Namespace(lr=0.1, name="x"), "best": np.float64(0.93)},
        lambda s: {"model": s, "scores": np.arange(3.0), "path": Path("x"), "log": defaultdict(list, {"loss": [1.0]})},
        lambda s: {"state_dict": prefixed(s, "model."), "state_dict_ema": None, "model_ema": {}},
        lambda s: prefixed(s, "_orig_mod.module."),
    ],
)
def test_the_weights_are_found(wrap: Callable[[State], Any], tmp_path: Path, trained: nn.Module) -> None:
    assert loads(wrap(trained.state_dict()), tmp_path, trained).told == []


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_averaged_weights_are_taken_and_that_is_told(key: str, tmp_path: Path, trained: nn.Module) -> None:
    loaded = loads({"state_dict": net().state_dict(), key: trained.state_dict()}, tmp_path, trained)
    assert key in " ".join(loaded.told)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(7)}, "n_averaged"),
        (lambda s: s | {"0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}, "0.total_ops, total_params"),
        (lambda s: prefixed(s, "model.") | {"loss.weight": torch.ones(10)}, "loss.weight"),
        (lambda s: s | {"epoch": 3}, "epoch"),
    ],
)
def test_what_is_left_out_is_told(change: Callable[[State], State], words: str, tmp_path: Path, trained: nn.Module) -> None:
    assert words in " ".join(loads(change(dict(trained.state_dict())), tmp_path, trained).told)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: {"6.weight": torch.zeros(5, 8)}, r"'6\.weight' is \[5, 8\] in the file and \[10, 8\] in the network"),
        (lambda s: {"6.weight": s["6.weight"].to_sparse()}, "sparse"),
        (lambda s: {"6.weight": s["6.weight"].int()}, "integer"),
        (lambda s: {"6.weight": s["6.weight"] + 0j}, "complex"),
        (lambda s: {"6.weight": s["6.weight"].to("meta")}, "no values"),
        (lambda s: {"1.running_var": s["1.running_var"] * torch.nan}, r"NaN values in '1\.running_var'"),
        (lambda _: {"6.weight_mask": torch.ones(10, 8)}, "6.weight_mask"),
        (lambda _: {"6.scale": torch.ones(())}, "is in the file and not in the network"),
        (lambda _: {"6.weight": None}, r"'6\.weight' \[10, 8\] is missing"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: Any, words: str, tmp_path: Path, trained: nn.Module) -> None:
    state = dict(trained.state_dict())
    torch.save({name: t for name, t in (state | change(state)).items() if t is not None}, tmp_path / "net.pt")
    with pytest.raises(InputError, match=words):
        load_checkpoint(net(), str(tmp_path / "net.pt"))


def test_masks_that_are_not_held_are_told(tmp_path: Path, trained: nn.Module) -> None:
    pruned = net()
    pruned.load_state_dict(trained.state_dict())
    prune.random_unstructured(pruned[1], "weight", amount=0.5)
    prune.random_unstructured(pruned[6], "weight", amount=0.5)
    file, target = tmp_path / "net.pt", net()
    torch.save(pruned.state_dict(), file)
    loaded = load_checkpoint(target, str(file))
    assert loaded.masks.keys() == {"6.weight"}
    assert "not held, of what isn't pruned here: 1.weight" in " ".join(loaded.told)
    assert torch.equal(target[1].weight, pruned[1].weight)
    torch.save(pruned.state_dict() | {"6.weight_mask": torch.ones(10, 1)}, file)
    with pytest.raises(InputError, match=r"6\.weight"):
        load_checkpoint(net(), str(file))


def test_counts_of_batches_may_be_missing(tmp_path: Path, trained: nn.Module) -> None:
    state = {name: tensor for name, tensor in trained.state_dict().items() if "num_batches" not in name}
    loads(state, tmp_path, trained)


def test_masks_of_torch_s_pruning_are_taken_over(tmp_path: Path, problem: MakeProblem, tree: Tree) -> None:
    torch.manual_seed(0)
    model: Any = problem().build()
    prune.l1_unstructured(model.features[3], "weight", amount=0.5)
    file = tmp_path / "pruned.pt"
    torch.save(model.state_dict(), file)
    made = problem(model=ModelSettings(arguments={"width": 4}, checkpoint=str(file)))
    masked = Tree(made, tree.store)
    network = masked.network(made.root(0))
    assert torch.equal(network.model.get_parameter("features.3.weight"), model.features[3].weight)
    assert torch.equal(network.masks["features.3.weight"], model.features[3].weight_mask.bool())
    assert "masks taken over, what they removed stays removed: features.3.weight" in " ".join(made.told["Weights"])


def masked_checkpoint(problem: MakeProblem, file: Path, share: float = 0.5) -> Problem:
    """A network whose checkpoint brings masks of two layers, the first of them shared out over its channels."""
    torch.manual_seed(0)
    model: Any = problem().build()
    for number in (3, 7):
        prune.random_unstructured(model.features[number], "weight", amount=share)
    torch.save(model.state_dict(), file)
    return problem(model=ModelSettings(arguments={"width": 4}, checkpoint=str(file)))


@pytest.mark.parametrize("pruner", ["base", "bn_scale"])
def test_masks_are_cut_along_with_channels_and_held(pruner: str, tmp_path: Path, problem: MakeProblem) -> None:
    made = masked_checkpoint(problem, tmp_path / "pruned.pt")
    tree = Tree(made, Store(tmp_path / "steps"))
    options = {"pruner": pruner, **({"sparse_epochs": 1} if pruner != "base" else {})}
    nodes = made.chain(StructuredSchedule(step_ratio=0.3, steps=2, fine_tune_epochs=1, **options))
    dense = tree.network(nodes[0].root)
    for node in nodes:
        network = tree.network(node)
        left = survivors(dense.model, network.removed, made.skeleton)
        assert network.masks.keys() == dense.masks.keys()
        kept = 0
        for name, mask in network.masks.items():
            assert torch.equal(mask, dense.masks[name].flatten()[left[name]])
            weight = network.model.get_parameter(name)
            assert weight.shape == mask.shape
            assert not bool(weight[~mask].any())
            kept += int((~mask).sum())
        assert tree.record(node)["sparsity"] > tree.record(nodes[0].root)["sparsity"] > 0
        whole = sum(weight.numel() for weight in weights(network.model).values())
        assert sum(count for count, _ in tree.record(node)["layers"].values()) == whole - kept


def test_what_is_asked_of_a_masked_network_is_of_all_its_weights(tmp_path: Path, problem: MakeProblem) -> None:
    made = masked_checkpoint(problem, tmp_path / "pruned.pt")
    tree = Tree(made, Store(tmp_path / "steps"))
    node = made.chain(UnstructuredSchedule(step_ratio=0.8, steps=1, fine_tune_epochs=0))[0]
    assert tree.record(node)["sparsity"] == pytest.approx(0.8, abs=0.002)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.weight_norm])
def test_computed_weights_are_computed_once(wrap: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = net()
    wrap(original[0])
    wrap(original[6])
    original.eval()
    inputs = torch.randn(2, 1, 8, 8)
    expected = original(inputs)
    torch.save(original.state_dict(), tmp_path / "net.pt")
    target = net().eval()
    load_checkpoint(target, str(tmp_path / "net.pt"))
    torch.testing.assert_close(target(inputs), expected)
    assert fold(original) == ["0", "6"]
    torch.testing.assert_close(original(inputs), expected)


def leave_a_file() -> None:
    Path("ran").touch()


class Runs:
    """Leaves a file behind where it is read by running what it holds."""

    def __reduce__(self) -> Any:
        return leave_a_file, ()


def test_objects_beside_the_weights_are_not_made(
    tmp_path: Path, trained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loads({"model": trained.state_dict(), "config": Runs()}, tmp_path, trained)
    assert not Path("ran").exists()


class Own(nn.Sequential):
    """A network of a class that only its owner has."""


def test_whole_pickled_networks_are_refused_with_the_reason(tmp_path: Path, trained: nn.Module) -> None:
    whole, file = Own(*trained.children()), tmp_path / "net.pt"
    for content, words in (
        (whole, rf"whole pickled {__name__}\.Own"),
        ({"model": trained, "epoch": 3}, r"whole pickled torch\.nn\.modules\.container\.Sequential"),
        ([trained.state_dict()], "no named tensors"),
        ({"model": {"x": Runs()}}, "save model.state_dict"),
        (Runs(), "would run|without running"),
    ):
        torch.save(content, file)
        with pytest.raises(InputError, match=words):
            load_checkpoint(net(), str(file))
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["net.pt2", "runs/net.pt", "net.ts", "net.onnx"])
def test_a_file_is_no_network(name: str) -> None:
    with pytest.raises(ValidationError, match=r"layers can't be pruned"):
        ModelSettings(name=name)


def test_programs_are_refused_with_the_reason(tmp_path: Path, trained: nn.Module) -> None:
    script, exported = tmp_path / "script.pt", tmp_path / "exported.pt2"
    torch.jit.save(torch.jit.script(trained), script)
    torch.export.save(torch.export.export(trained.eval(), (torch.zeros(1, 1, 8, 8),)), exported)
    for file, words in ((script, "TorchScript"), (exported, "torch.export")):
        with pytest.raises(InputError, match=words):
            load_checkpoint(net(), str(file))
