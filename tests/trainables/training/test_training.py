"""Training and evaluation: augmentation in closed form, learning rates, and the same numbers from the same address."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import MakeProblem, photographs, same_state, state_of
from trainables.data.dataset import Data, DataSettings, load
from trainables.data.preparation import cutout as blanked
from trainables.data.preparation import draw, moved
from trainables.networks.reproducible import reproducible
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.training.loop import (
    DenseSettings,
    LearningRate,
    Precision,
    Recipe,
    TrainingDivergedError,
    dense_schedule,
    evaluate,
    fastest_precision,
    fit,
    normalise,
    threads,
)
from trainables.training.retraining import FineTune, LrRewind, WeightRewind
from trainables.tree import Tree, walk

RECIPE = Recipe(LearningRate((0.0, 1.0), (0.1, 0.1)), 0, 1, 128, 0.9, 5e-4, "fp32")


def numbered(count: int = 40, height: int = 5, width: int = 4, channels: int = 2) -> torch.Tensor:
    """Images [B, H, W, C] of which no pixel is 0 and no two rows or columns are alike."""
    draw = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, height, width, channels), generator=draw, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(images: torch.Tensor, crop: int, flip: bool, random: torch.Generator) -> torch.Tensor:
    draws = draw(dataclasses.replace(photographs(), crop=crop, flip=flip), len(images), random)
    return moved(images, crop, draws)


def cutout(images: torch.Tensor, side: int, random: torch.Generator) -> torch.Tensor:
    data = dataclasses.replace(photographs(), cutout=side, validation_images=np.zeros((1, *images.shape[1:])))
    centres = draw(data, len(images), random).centres
    assert centres is not None
    return blanked(images, side, centres)


def windows(image: torch.Tensor, crop: int) -> list[torch.Tensor]:
    """Every window of the size of ``image`` [H, W, C] in the image padded by ``crop`` zeros."""
    height, width, channels = image.shape
    padded = torch.zeros(height + 2 * crop, width + 2 * crop, channels, dtype=image.dtype)
    padded[crop : crop + height, crop : crop + width] = image
    shifts = range(2 * crop + 1)
    return [padded[top : top + height, left : left + width] for top in shifts for left in shifts]


def places(image: torch.Tensor, among: list[torch.Tensor]) -> list[int]:
    return [i for i, window in enumerate(among) if torch.equal(window, image)]


def test_no_crop_and_no_flip_is_the_identity() -> None:
    images = numbered()
    assert torch.equal(augment(images, 0, False, generator()), images)


def test_every_crop_is_a_window_of_the_padded_image_and_every_window_occurs() -> None:
    images = numbered(300)
    seen = set()
    for image, out in zip(images, augment(images, 1, False, generator()), strict=True):
        assert (out.shape, out.dtype) == (image.shape, torch.uint8)
        found = places(out, windows(image, 1))
        assert len(found) == 1
        seen |= set(found)
    assert seen == set(range(9))


def test_a_flip_mirrors_columns_about_every_second_time() -> None:
    images = numbered(400)
    out = augment(images, 0, True, generator())
    mirrored = [torch.equal(b, a.flip(1)) for a, b in zip(images, out, strict=True)]
    same = [torch.equal(b, a) for a, b in zip(images, out, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def test_crop_and_flip_together_give_a_window_or_its_mirror() -> None:
    images = numbered(100)
    out = augment(images, 2, True, generator())
    for image, result in zip(images, out, strict=True):
        among = windows(image, 2)
        assert places(result, among) or places(result.flip(1), among)


def test_augmentation_comes_from_its_generator_alone() -> None:
    images = numbered()
    assert torch.equal(augment(images, 2, True, generator(3)), augment(images, 2, True, generator(3)))
    assert not torch.equal(augment(images, 2, True, generator(3)), augment(images, 2, True, generator(4)))


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_cutout_blanks_one_square_around_any_pixel_and_nothing_else(side: int) -> None:
    height, width = 5, 7
    images = torch.rand(2000, 3, height, width, generator=generator(1)) + 1
    out = cutout(images, side, generator())
    squares = {
        tuple(
            (row, column)
            for row in range(top, top + side)
            for column in range(left, left + side)
            if 0 <= row < height and 0 <= column < width
        )
        for top in range(-(side // 2), height - side // 2)
        for left in range(-(side // 2), width - side // 2)
    }
    seen = {tuple(map(tuple, (image[0] == 0).nonzero().tolist())) for image in out}
    assert seen == squares
    blank = out == 0
    assert torch.equal(blank, blank[:, :1].expand_as(blank))
    assert torch.equal(out[~blank], images[~blank])


def test_cutout_is_part_of_what_training_sees_and_none_changes_nothing(problem: MakeProblem) -> None:
    plain, squared = load(DataSettings()), load(DataSettings(cutout=3))
    assert plain.fingerprint == load(DataSettings(cutout=0)).fingerprint != squared.fingerprint
    states = []
    for some in (plain, dataclasses.replace(plain, cutout=0), squared):
        torch.manual_seed(0)
        model = problem().build()
        fit(model, some, RECIPE, 0)
        states.append(state_of(model))
    assert same_state(states[0], states[1])
    assert not same_state(states[0], states[2])


def test_normalised_training_images_have_mean_0_and_variance_1(data: Data) -> None:
    images = torch.from_numpy(data.train_images).permute(0, 2, 3, 1)
    out = normalise(images, data)
    assert out.shape == data.train_images.shape
    assert out.dtype == torch.float32
    assert float(out.mean()) == pytest.approx(0, abs=1e-4)
    assert float(out.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_each_channel_is_normalised_by_its_own_moments() -> None:
    data = dataclasses.replace(photographs(), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    white = normalise(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8), data)
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([1.0, 1.0, 0.0]))
    assert white.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.05), (1, 0.275), (2, 0.5), (6, 0.25), (9, 0.0625), (10, 0.0)])
def test_the_dense_schedule_warms_up_and_falls_to_zero(epoch: float, rate: float) -> None:
    schedule = dense_schedule(DenseSettings(epochs=10, learning_rate=0.5, warmup=0.2))
    assert schedule.at(epoch) == pytest.approx(rate)


def test_without_warmup_the_dense_schedule_starts_at_its_peak() -> None:
    schedule = dense_schedule(DenseSettings(epochs=10, learning_rate=0.5, warmup=0))
    assert [schedule.at(epoch) for epoch in (0, 5, 10)] == pytest.approx([0.5, 0.25, 0.0])


def rates_used(model: nn.Module, data: Data, recipe: Recipe) -> list[float]:
    used: list[float] = []
    original = torch.optim.SGD.step

    def step(optimizer: torch.optim.SGD, *args: object) -> object:
        used.append(optimizer.param_groups[0]["lr"])
        return original(optimizer, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        fit(model, data, recipe, seed=0)
    return used


def test_every_update_has_the_rate_of_its_middle(problem: MakeProblem, data: Data) -> None:
    recipe = dataclasses.replace(RECIPE, rate=LearningRate((0.0, 4.0), (0.4, 0.0)), start=1, stop=3)
    batches = len(data.train_labels) // 128
    expected = [0.4 - 0.1 * (1 + (i + 0.5) / batches) for i in range(2 * batches)]
    assert rates_used(problem().build(), data, recipe) == pytest.approx(expected)


def test_fine_tuning_decays_to_zero_or_stays(problem: MakeProblem) -> None:
    made = problem()
    for decay, end in (("linear", 0.0), ("constant", 0.02)):
        recipe = made.recipe(FineTune(epochs=2, learning_rate=0.02, decay=decay).plan(made.dense))
        assert (recipe.start, recipe.stop, recipe.rate.at(0)) == (0, 2, 0.02)
        assert recipe.rate.at(2) == pytest.approx(end)


def test_rewinding_replays_the_last_epochs_of_the_dense_schedule(problem: MakeProblem, data: Data) -> None:
    made = problem(dense={"epochs": 5, "rewind_epoch": 1})
    dense = made.dense_recipe
    replayed = made.recipe(LrRewind(epochs=2).plan(made.dense))
    early = made.recipe(WeightRewind().plan(made.dense))
    assert (replayed.start, replayed.stop, replayed.rate) == (3, 5, dense.rate)
    assert (early.start, early.stop, early.rate) == (1, 5, dense.rate)
    all_rates = rates_used(made.build(), data, dense)
    assert rates_used(made.build(), data, replayed) == all_rates[-2 * len(all_rates) // 5 :]
    assert rates_used(made.build(), data, early) == all_rates[len(all_rates) // 5 :]


def test_batches_are_whole_and_never_larger_than_the_data(problem: MakeProblem, data: Data) -> None:
    few = dataclasses.replace(data, train_images=data.train_images[:50], train_labels=data.train_labels[:50])
    for size, updates in ((50, 1), (64, 1), (20, 2), (2, 25)):
        assert len(rates_used(problem().build(), few, dataclasses.replace(RECIPE, batch_size=size))) == updates


def test_the_first_update_is_nesterovs_with_weight_decay(problem: MakeProblem, data: Data) -> None:
    few = dataclasses.replace(data, train_images=data.train_images[:50], train_labels=data.train_labels[:50], crop=0)
    model = problem().build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients: dict[str, torch.Tensor] = {}

    def remember(trained: nn.Module) -> None:
        gradients.update({name: p.grad.clone() for name, p in trained.named_parameters() if p.grad is not None})

    recipe = dataclasses.replace(RECIPE, batch_size=50, momentum=0.8, weight_decay=0.01)
    fit(model, few, recipe, seed=0, before_update=remember)
    for name, parameter in model.named_parameters():
        expected = before[name] - 0.1 * (1 + 0.8) * (gradients[name] + 0.01 * before[name])
        torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_learn_and_keep_fp32_weights(precision: Precision, problem: MakeProblem, data: Data) -> None:
    torch.manual_seed(0)
    made = problem(precision=precision, dense={"epochs": 6, "batch_size": 64})
    model = made.build()
    fit(model, data, made.dense_recipe, seed=0)
    assert evaluate(model, data) > 0.6
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_training_depends_on_the_seed_and_on_nothing_drawn_before(problem: MakeProblem, data: Data) -> None:
    def trained(seed: int, drawn: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(problem().build(), nn.Dropout(0.2))
        torch.manual_seed(drawn)
        fit(model, data, RECIPE, seed)
        return state_of(model)

    assert same_state(trained(1, 5), trained(1, 6))
    assert not same_state(trained(1, 5), trained(2, 5))


def test_hooks_run_before_and_after_every_update(problem: MakeProblem, data: Data) -> None:
    order: list[str] = []
    epochs: list[int] = []
    fit(
        problem().build(), data, dataclasses.replace(RECIPE, start=2, stop=4), seed=0,
        before_update=lambda _: order.append("before"), after_update=lambda _: order.append("after"),
        after_epoch=lambda epoch, _: epochs.append(epoch),
    )  # fmt: skip
    assert order == ["before", "after"] * (2 * (len(data.train_labels) // 128))
    assert epochs == [3, 4]


def test_divergence_is_an_error(problem: MakeProblem, data: Data) -> None:
    recipe = dataclasses.replace(RECIPE, rate=LearningRate((0.0, 1.0), (1e30, 1e30)))
    with pytest.raises(TrainingDivergedError, match="lower the learning rate"):
        fit(problem().build(), data, recipe, seed=0)


def test_evaluation_changes_nothing_and_is_exact(problem: MakeProblem, data: Data) -> None:
    model = problem().build()
    before = state_of(model)
    found = evaluate(model, data)
    assert same_state(before, state_of(model))
    images = torch.from_numpy(data.validation_images).permute(0, 2, 3, 1)
    with torch.no_grad():
        right = model.eval()(normalise(images, data)).argmax(1) == torch.from_numpy(data.validation_labels)
    assert found == int(right.sum()) / len(right)


def test_a_constant_answer_is_right_as_often_as_its_class(data: Data) -> None:
    class Always(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.eye(10)[3])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 10)

    assert evaluate(Always(), data) == pytest.approx(float((data.validation_labels == 3).mean()))


def test_threads_are_restored_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before


def arithmetic() -> dict[str, Any]:
    """What decides how a GPU computes in fp32; set, but without effect, on a machine without one."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "tf32": (cudnn.allow_tf32, cudnn.conv.fp32_precision == "tf32", cuda.matmul.allow_tf32),
        "deterministic": cudnn.deterministic,
        "benchmark": cudnn.benchmark,
        "enabled": cudnn.enabled,
    }


@pytest.fixture
def fast_arithmetic() -> Iterator[dict[str, Any]]:
    """A caller who has all that is fast and inexact."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        yield arithmetic()
    torch.set_float32_matmul_precision(precision)


def test_fp32_is_fp32_in_training_and_evaluation_and_the_caller_s_settings_stay(
    data: Data, fast_arithmetic: dict[str, Any]
) -> None:
    seen: list[dict[str, Any]] = []

    class Watched(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(arithmetic())
            return super().forward(x)

    model = Watched(nn.Flatten(), nn.Linear(64, 10))
    fit(model, data, RECIPE, seed=0)
    evaluate(model, data)
    exact = {"tf32": (False, False, False), "deterministic": True, "benchmark": False, "enabled": True}
    assert len(seen) > 10
    assert all(one == exact for one in seen)
    assert arithmetic() == fast_arithmetic == {
        "tf32": (True, True, True), "deterministic": False, "benchmark": True, "enabled": True,
    }  # fmt: skip
    with pytest.raises(RuntimeError), reproducible(0):
        assert arithmetic() == exact
        raise RuntimeError
    assert arithmetic() == fast_arithmetic


def test_the_fastest_precision_is_one_of_the_two() -> None:
    assert fastest_precision("cpu") in ("fp32", "bf16")
    assert math.isfinite(RECIPE.rate.at(0.5))


SCHEDULES: list[Schedule] = [
    UnstructuredSchedule(step_ratio=0.5, steps=2, importance="taylor"),
    UnstructuredSchedule(step_ratio=0.5, steps=2, importance="random", retrain="weight_rewind"),
    UnstructuredSchedule(step_ratio=0.7, retrain="lr_rewind", scope="layerwise"),
    StructuredSchedule(step_ratio=0.5, steps=2, importance="hessian", pruner="growing_reg", sparse_epochs=1),
    StructuredSchedule(step_ratio=0.5, importance="random", scope="global"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_is_the_same_to_the_bit_whatever_was_computed_before_it(
    precision: Precision, problem: MakeProblem, tmp_path: Path
) -> None:
    made = problem(precision=precision)
    first, other = Tree(made, Store(tmp_path / "first")), Tree(made, Store(tmp_path / "other"))
    for schedule in SCHEDULES:
        list(walk(schedule, first))
    torch.manual_seed(99)
    torch.rand(1000)
    for schedule in reversed(SCHEDULES):
        list(walk(schedule, other))
    assert first.store.ids() == other.store.ids()
    for schedule in SCHEDULES:
        for node in first.chain(schedule):
            assert first.content(node) == other.content(node)


SEEN_BY_TORCH = """
import os, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))

sys.meta_path.insert(0, Watch())
import {module}
assert "torch" in sys.modules
"""


@pytest.mark.parametrize(
    "module", ["search.algorithm", "search.tune.trial", "trainables.trainable", "trainables.training.loop"]
)
def test_threads_that_wait_leave_their_core_to_others(module: str) -> None:
    assert seen_by_torch(module) == "10000"


@pytest.mark.parametrize(("said", "seen"), [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")])
def test_threads_spin_for_as_long_as_the_user_has_said(said: dict[str, str], seen: str) -> None:
    assert seen_by_torch("search.algorithm", **said) == seen


def seen_by_torch(module: str, **more: str) -> str:
    ours = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", SEEN_BY_TORCH.format(module=module)]
    done = subprocess.run(command, env=ours | more, check=True, capture_output=True, text=True)  # noqa: S603 - our own
    return done.stdout.strip()
