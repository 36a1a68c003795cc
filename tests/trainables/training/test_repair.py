"""Retraining with the dense network's answers, and BatchNorm statistics without retraining: closed forms."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import MakeProblem, same_state, state_of
from trainables.data.dataset import Data
from trainables.networks.factory import ModelSettings
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.words import recipe
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.tasks.labels import Classification
from trainables.training.loop import LearningRate, Recipe, fit
from trainables.training.recalibrating import drawn, recalibrate
from trainables.training.retraining import Distill
from trainables.tree import Tree, walk


def bare(num_classes: int) -> nn.Module:
    """A network without BatchNorm."""
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, num_classes))


class Teaching:
    """What a retraining learns from: a network that counts how often it is asked."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher, self.asked = teacher.eval(), 0
        teacher.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.asked += 1

    task = Classification()

    def dense(self) -> nn.Module:
        return self.teacher


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (4.0, 0.7), (8.0, 0.25)])
def test_the_gradient_of_distillation_is_the_closed_form(temperature: float, weight: float) -> None:
    """(1 - w)(p - y) + w T (p_T - q_T), the mean over a batch."""
    random = torch.Generator().manual_seed(0)
    logits, answers = (3 * torch.randn(5, 7, generator=random) for _ in range(2))
    labels = torch.randint(7, (5,), generator=random)
    logits.requires_grad_()
    beginnings: Any = Teaching(nn.Identity())
    method = Distill(temperature=temperature, teacher_weight=weight)
    method.loss(beginnings)(logits, labels, answers).backward()
    with torch.no_grad():
        by_label = logits.softmax(1) - nn.functional.one_hot(labels, 7)
        by_teacher = (logits / temperature).softmax(1) - (answers / temperature).softmax(1)
        expected = ((1 - weight) * by_label + weight * temperature * by_teacher) / 5
    torch.testing.assert_close(logits.grad, expected)


def test_a_network_learns_nothing_from_its_own_answers() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = Distill().divergence(logits, logits.detach())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-6


def test_the_teacher_sees_each_batch_once_as_the_network_sees_it(problem: MakeProblem, data: Data) -> None:
    torch.manual_seed(0)
    student, teacher = problem().build(), problem().build()
    before, seen = state_of(teacher), list[tuple[str, Tensor]]()
    for name, model in (("student", student), ("teacher", teacher)):
        model.register_forward_pre_hook(lambda _, inputs, name=name: seen.append((name, inputs[0].clone())))
    teaching: Any = Teaching(teacher)
    recipe = Recipe(LearningRate((0.0, 1.0), (0.1, 0.0)), 0, 1, 128, 0.9, 5e-4, "fp32")
    fit(student, data, recipe, seed=0, loss=Distill().loss(teaching))
    updates = len(data.train_labels) // 128
    assert teaching.asked == updates
    assert [name for name, _ in seen] == ["student", "teacher"] * updates
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(seen[::2], seen[1::2], strict=True))
    assert same_state(before, state_of(teacher))


def test_distillation_is_a_step_of_its_own_beside_fine_tuning(tree: Tree) -> None:
    taught, control = (UnstructuredSchedule(step_ratio=0.8, retrain=name) for name in ("distill", "fine_tune"))
    (one,), (other,) = list(walk(taught, tree)), list(walk(control, tree))
    assert one[n.EPOCHS] == other[n.EPOCHS] == 1 and one[n.ACCURACY_BEFORE] == other[n.ACCURACY_BEFORE]
    assert one[n.STEP_ID] != other[n.STEP_ID] and one[n.RETRAIN] == "distill"
    networks = [tree.network(tree.chain(schedule)[0]).model for schedule in (taught, control)]
    assert not same_state(*(state_of(network) for network in networks))


@pytest.mark.parametrize("images", [100, 600])
def test_recalibrated_statistics_are_those_of_augmented_training_images(
    images: int, problem: MakeProblem, data: Data
) -> None:
    some = dataclasses.replace(data, cutout=3)
    torch.manual_seed(0)
    model = problem().build()
    before = state_of(model)
    recalibrate(model, some, images, seed=7)
    batches = drawn(some, images, 7, "cpu")
    assert sum(map(len, batches)) == images and max(map(len, batches)) <= 256
    assert not torch.equal(torch.cat(batches), torch.cat(drawn(some, images, 8, "cpu")))
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        outputs = [first(batch).transpose(0, 1).flatten(1) for batch in batches]
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, torch.stack([one.mean(1) for one in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([one.var(1) for one in outputs]).mean(0))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and {name.rpartition(".")[2] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_recalibration_leaves_what_is_frozen(problem: MakeProblem, data: Data) -> None:
    model = problem().build()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].requires_grad_(False)
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    recalibrate(model, data, 64, seed=0)
    now = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert [torch.equal(one, other) for one, other in zip(before, now, strict=True)] == [True] + [False] * (len(norms) - 1)


@pytest.mark.parametrize("schedule", [
    UnstructuredSchedule(step_ratio=0.8, steps=2, retrain="recalibrate"),
    StructuredSchedule(step_ratio=0.3, steps=2, retrain="recalibrate"),
])  # fmt: skip
def test_recalibration_is_a_retraining_of_no_epochs(schedule: Schedule, problem: MakeProblem, tree: Tree) -> None:
    points = list(walk(schedule, tree))
    assert [(point[n.EPOCHS], point[n.FINE_TUNE_EPOCHS]) for point in points] == [(0, 0)] * 2
    assert "recalibrated BatchNorm after each" in recipe(points[-1])
    assert any(point[n.ACCURACY] != point[n.ACCURACY_BEFORE] for point in points)
    again = Tree(problem(), tree.store)
    assert [point[n.ACCURACY] for point in walk(schedule, again)] == [point[n.ACCURACY] for point in points]


def test_a_network_without_batch_norm_is_refused_by_name(problem: MakeProblem) -> None:
    made = problem(model=ModelSettings(name=f"{__name__}:bare"), trusted=True)
    with pytest.raises(InputError, match=r"retrain: 'recalibrate' needs BatchNorm layers .*; use fine_tune"):
        made.check(UnstructuredSchedule(step_ratio=0.5, retrain="recalibrate"))
    made.check(UnstructuredSchedule(step_ratio=0.5))
