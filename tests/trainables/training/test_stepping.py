"""The loop beside one that is written plainly, and recorded steps beside ordinary ones: the same weights, bit by bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import MakeProblem, photographs, same_state, state_of
from trainables.data.dataset import Data
from trainables.data.mapped import ArrayFile, Mapped, MappedTensor
from trainables.networks.factory import ModelSettings, build
from trainables.networks.reproducible import reproducible
from trainables.networks.running import only_logits, with_auxiliary
from trainables.pruning.masks import masking
from trainables.training import loop
from trainables.training.feeding import Feed
from trainables.training.loop import LearningRate, Recipe, fit
from trainables.training.optimizers import OPTIMIZERS, make, set_rate
from trainables.training.retraining import Distill
from trainables.training.stepping import WARM_UP, autocast

RECIPE = Recipe(LearningRate((0.0, 2.0), (0.1, 0.01)), 0, 2, 100, 0.9, 5e-4, "fp32")
CHANGES = {"crop": 2, "flip": True, "cutout": 3}


def few(data: Data, **changes: Any) -> Data:
    """520 training images: an epoch is five batches of 100."""
    return replace(data, train_images=data.train_images[:520], train_labels=data.train_labels[:520], **changes)


class Network(nn.Module):
    """With dropout, and a second head while it trains."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.heads, self.dropout = body, nn.ModuleList([nn.Linear(10, 10), nn.Linear(10, 10)]), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Any:
        one, other = (head(self.dropout(self.body(x))) for head in self.heads)
        return (one, other) if self.training else one


@pytest.fixture
def model(problem: MakeProblem) -> nn.Module:
    torch.manual_seed(0)
    made = Network(problem().build())
    only_logits(made, None)
    return made


def plainly(model: nn.Module, data: Data, recipe: Recipe, seed: int, **hooks: Any) -> None:
    """The loop as one writes it: a batch is drawn, changed image by image, and stepped; one parameter after another."""
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    drawing = torch.Generator().manual_seed(seed)
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay, foreach=False
    )
    batches = len(labels) // recipe.batch_size
    with reproducible(seed):
        for epoch in range(recipe.start, recipe.stop):
            order = torch.randperm(len(labels), generator=drawing)
            for i in range(batches):
                chosen = order[i * recipe.batch_size :][: recipe.batch_size]
                inputs = by_hand(images[chosen], data, drawing)
                optimizer.param_groups[0]["lr"] = recipe.rate.at(epoch + (i + 0.5) / batches)
                with autocast(recipe.precision, "cpu"):
                    loss = loss_of(model, inputs, labels[chosen], recipe.auxiliary, hooks.get("loss"))
                optimizer.zero_grad()
                loss.backward()
                hooks.get("before_update", lambda _: None)(model)
                if recipe.clip_norm:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimizer.step()
                hooks.get("after_update", lambda _: None)(model)


def loss_of(model: nn.Module, inputs: Tensor, labels: Tensor, auxiliary: float, own: Any) -> Tensor:
    outputs, (other,) = with_auxiliary(model, inputs)
    loss = F.cross_entropy(outputs, labels) if own is None else own(outputs, labels, inputs)
    return loss + auxiliary * F.cross_entropy(other, labels) if auxiliary else loss


def by_hand(images: Tensor, data: Data, drawing: torch.Generator) -> Tensor:
    """A batch [B, C, H, W] after the drawn crops, mirrors and squares."""
    count, _, height, width = images.shape
    padded = F.pad(images, (data.crop,) * 4)
    top, left = torch.randint(0, 2 * data.crop + 1, (2, count, 1), generator=drawing)
    mirrored = torch.rand(count, 1, generator=drawing) < 0.5 if data.flip else torch.zeros(count, 1, dtype=torch.bool)
    cropped = [padded[i, :, top[i] : top[i] + height, left[i] : left[i] + width] for i in range(count)]
    batch = torch.stack([one.flip(2) if mirrored[i] else one for i, one in enumerate(cropped)])
    mean, std = (torch.tensor(one)[:, None, None] * 255 for one in (data.mean, data.std))
    inputs = ((batch - mean) / std).contiguous(memory_format=torch.channels_last)
    rows, columns = ([torch.randint(0, side, (count, 1), generator=drawing) for side in (height, width)]
                     if data.cutout else ([], []))  # fmt: skip
    for i in range(count if data.cutout else 0):
        above, before = int(rows[i]) - data.cutout // 2, int(columns[i]) - data.cutout // 2
        inputs[i, :, max(0, above) : above + data.cutout, max(0, before) : before + data.cutout] = 0
    return inputs


def halved(model: nn.Module) -> Callable[[nn.Module], None]:
    draw = torch.Generator().manual_seed(1)
    kept = {name: torch.rand(p.shape, generator=draw) < 0.5 for name, p in model.named_parameters() if p.dim() == 4}
    masking(model, kept)(model)
    return masking(model, kept)


def shrinking(model: nn.Module) -> None:
    """A penalty on BatchNorm scales."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.grad is not None
            module.weight.grad.add_(0.01 * module.weight.detach().sign())


@dataclass
class Taught:
    """What distillation learns from."""

    teacher: nn.Module
    task: Any

    def dense(self) -> nn.Module:
        return self.teacher


SETTINGS: dict[str, dict[str, Any]] = {
    "changed images": CHANGES,
    "bf16": {**CHANGES, "precision": "bf16"},
    "clipped": {"clip_norm": 0.5},
    "an auxiliary loss": {"auxiliary": 0.3},
    "masks": {"crop": 1, "masks": True},
    "a penalty": {"flip": True, "before_update": shrinking},
    "distillation": {"teacher": True},
    "frozen": {"frozen": True},
}


def prepared(settings: dict[str, Any], model: nn.Module, data: Data) -> tuple[Data, Recipe, dict[str, Any]]:
    """The data, the recipe, and the hooks of ``fit``."""
    data = few(data, **{name: value for name, value in settings.items() if name in CHANGES})
    recipe = replace(RECIPE, **{key: value for key, value in settings.items() if key in Recipe.__dataclass_fields__})
    hooks = {"before_update": settings["before_update"]} if "before_update" in settings else {}
    if "masks" in settings:
        hooks["after_update"] = halved(model)
    if "teacher" in settings:
        hooks["loss"] = Distill().loss(Taught(loop.channels_last(copy.deepcopy(model)).eval(), data.task))  # type: ignore[arg-type]
    for parameter in list(model.parameters())[:4] if "frozen" in settings else ():
        parameter.requires_grad_(False)
    return data, recipe, hooks


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loop_does_what_a_plain_one_does(name: str, model: nn.Module, data: Data) -> None:
    found = []
    for train in (plainly, fit):
        trained = copy.deepcopy(model)
        some, recipe, hooks = prepared(SETTINGS[name], trained, data)
        train(trained, some, recipe, 3, **hooks)
        found.append(state_of(trained))
    assert same_state(*found)
    assert not same_state(found[0], state_of(model))


@dataclass
class Replayed:
    """A graph that has no device: it does again what was recorded, and counts."""

    counts: list[str] = field(default_factory=list)
    update: Callable[[], Tensor] | None = None
    result: Tensor = field(default_factory=lambda: torch.zeros(()))

    def warm(self, update: Callable[[], Tensor]) -> Tensor:
        self.counts.append("warm")
        return update()

    def record(self, update: Callable[[], Tensor]) -> Tensor:
        self.counts.append("record")
        self.update = update
        return self.result

    def replay(self) -> None:
        self.counts.append("replay")
        assert self.update is not None
        self.result.copy_(self.update())


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    """The graphs that trainings record."""
    made: list[Replayed] = []
    monkeypatch.setattr(loop, "CudaGraph", lambda: made.append(Replayed()) or made[-1])
    return made


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recorded_step_does_what_an_ordinary_one_does(
    name: str, model: nn.Module, data: Data, graphs: list[Replayed]
) -> None:
    found = []
    model.get_submodule("dropout").p = 0.0  # type: ignore[assignment]  # it draws, on the CPU from the host's generator
    for recorded in (False, True):
        trained = copy.deepcopy(model)
        some, recipe, hooks = prepared({**SETTINGS[name], "recorded": recorded}, trained, data)
        fit(trained, some, recipe, 3, **hooks)
        found.append(state_of(trained))
    assert same_state(*found)
    replayed = ["warm"] * WARM_UP + ["record"] + ["replay"] * (10 - WARM_UP)
    assert [graph.counts for graph in graphs] == ([replayed] if name != "a penalty" else [])


def test_what_draws_from_the_host_is_never_recorded(problem: MakeProblem, data: Data, graphs: list[Replayed]) -> None:
    class Noisy(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x + random.random())

    fit(Noisy(problem().build()), few(data), replace(RECIPE, recorded=True), 3)
    assert graphs[0].counts == ["warm"]


def test_what_can_t_be_recorded_stays_as_it_is(
    problem: MakeProblem, data: Data, graphs: list[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Replayed, _update: Any) -> Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Replayed, "record", refuse)
    found = []
    for recorded in (False, True):
        torch.manual_seed(0)
        made = problem().build()
        fit(made, few(data), replace(RECIPE, recorded=recorded), 3)
        found.append(state_of(made))
    assert same_state(*found)
    assert graphs[0].counts == ["warm"] * WARM_UP


def test_within_an_epoch_nothing_is_drawn_but_what_networks_draw(data: Data) -> None:
    feed, drawing = Feed(few(data, **CHANGES), 100, "cpu"), torch.Generator().manual_seed(0)
    feed.draw(drawing)
    before, host = drawing.get_state(), torch.get_rng_state()
    first, again = (torch.stack([feed.batch(i)[0] for i in range(feed.batches)]) for _ in range(2))
    assert len(first) == 5 and torch.equal(first, again)
    assert torch.equal(before, drawing.get_state()) and torch.equal(host, torch.get_rng_state())


def test_images_in_a_file_are_fed_as_those_in_memory_are_each_batch_read_ahead(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = few(data, **CHANGES)
    np.save(tmp_path / "images.npy", here.train_images)
    there = replace(here, train_images=Mapped(ArrayFile(str(tmp_path / "images.npy")), np.arange(520)))
    ahead: list[list[int]] = []
    read = MappedTensor.ahead
    monkeypatch.setattr(MappedTensor, "ahead", lambda self, which: ahead.append(which.tolist()) or read(self, which))
    feeds = [Feed(one, 100, "cpu") for one in (here, there)]
    for feed in feeds:
        feed.draw(torch.Generator().manual_seed(0))
    for number in range(5):
        one, other = (feed.batch(number) for feed in feeds)
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    order = torch.randperm(520, generator=torch.Generator().manual_seed(0))
    assert ahead == [chosen.tolist() for chosen in order.split(100)[1:5]]


class Copies(TorchDispatchMode):
    """Notes what takes tensors from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {one.device.type for one in tree_leaves((args, kwargs, out)) if isinstance(one, Tensor)}
        if len(devices) > 1:
            self.found.append(func.name())
        return out


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_on_a_gpu_a_batch_copies_nothing_from_the_host_and_waits_for_no_value(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors without values, which raise where one is looked at. (Backward and the fused update can't be run so.)"""
    monkeypatch.setattr(torch, "_fused_sgd_", lambda *_, **settings: settings["lr"].add_(0))
    optimizer = OPTIMIZERS.make(name, {})
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            model = build(ModelSettings(name="cnn", arguments={"width": 4}), 4, (3, 32, 32), trusted=False)
        made = make(optimizer, model, 0.9, 5e-4)
        feed = Feed(replace(photographs(64), cutout=4), 8, "cuda")
        feed.draw(torch.Generator().manual_seed(0))
        first = feed.batch(0)  # normalises, for which mean and deviation come to the device once
        with Copies() as copies:
            for number in range(1, 4):
                set_rate(made, 0.1 * number)
                F.cross_entropy(model(feed.batch(number)[0]), first[1])
                for parameter in model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                made.step()
        assert {one.device.type for one in (*first, made.param_groups[0]["lr"])} == {"cuda"}
    assert copies.found == []


def test_a_gpu_s_updates_are_recorded_and_told_in_the_address_and_a_user_s_own_code_is_not(problem: MakeProblem) -> None:
    here, there, own = problem(), problem(device="cuda"), problem(device="cuda", trusted=True)
    assert [one.dense_recipe.recorded for one in (here, there, own)] == [False, True, False]
    assert [one.root(0).settings.get("updates") for one in (here, there, own)] == [None, "fused", "fused"]
