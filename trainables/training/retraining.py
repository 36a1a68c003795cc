"""How what a cut has left is trained again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trainables.methods import Method, Need, Registry
from trainables.networks.network import Network
from trainables.records import names as n
from trainables.tasks.base import Task
from trainables.training.loop import DenseSettings, LearningRate, dense_schedule
from trainables.training.stepping import Loss


class Plan(NamedTuple):
    """Epochs ``start`` to ``stop`` of a learning-rate schedule."""

    rate: LearningRate
    start: int
    stop: int


class Beginnings(Protocol):
    """What a retraining can begin with or learn from, beside what the cut has left."""

    def early(self) -> Network:
        """The dense network at its early epoch (``dense.rewind_epoch``)."""

    def afresh(self) -> nn.Module:
        """The network in its pruned shape, with new random weights drawn by the step's seed."""

    def recalibrated(self, images: int) -> Network:
        """What the cut has left, with BatchNorm statistics of so many training images."""

    @property
    def task(self) -> Task:
        """What it is trained for."""

    def dense(self) -> nn.Module:
        """The dense network, where it is trained, in eval mode and not to be changed."""


class Retraining(Method):
    """Which weights a step's training begins with, and at which learning rates it trains. Masks are held meanwhile."""

    batch_size: int | None = Field(None, ge=2, description="images a batch in retraining; null: dense.batch_size")

    @abstractmethod
    def plan(self, dense: DenseSettings) -> Plan:
        """The epochs that it trains."""

    def begin(self, network: Network, beginnings: Beginnings) -> Network:  # noqa: ARG002 - for those that go elsewhere
        """The network that it begins with: what the cut has left."""
        return network

    def loss(self, beginnings: Beginnings) -> Loss | None:  # noqa: ARG002 - for those that learn from more than labels
        """What it minimises: the task's loss."""
        return None

    def refuse(self, dense: DenseSettings) -> str | None:  # noqa: ARG002
        """Why it can't follow a dense training like this, in one line with the remedy; None if it can."""
        return None

    def epochs_trained(self, dense: DenseSettings) -> int:
        """What it costs."""
        plan = self.plan(dense)
        return plan.stop - plan.start


class FineTune(Retraining):
    """Goes on at a learning rate of its own.

    On CIFAR-10 (12,000 images), linear decay from 0.05 beat a constant 0.05 by 3 to 8 points after one-shot, iterative and
    structured pruning; linear from 0.1 was better still after unstructured and worse after structured pruning.
    """

    name, label = "fine_tune", "fine-tuning"
    epochs: int = Field(1, ge=0, description="epochs of retraining after each cut")
    learning_rate: float = Field(0.05, gt=0, description="learning rate of fine-tuning")
    decay: Literal["constant", "linear"] = Field("linear", description="fine-tuning's schedule within a step")

    def plan(self, dense: DenseSettings) -> Plan:  # noqa: ARG002
        """From ``learning_rate`` on, constant or down to 0."""
        last = 0.0 if self.decay == "linear" else self.learning_rate
        return Plan(LearningRate((0.0, float(max(1, self.epochs))), (self.learning_rate, last)), 0, self.epochs)


class Distill(FineTune):
    """Fine-tuning on labels and on the dense network's answers to the same images, softened; fine_tune is its control."""

    name, label, source = "distill", "distillation", "Hinton et al. 2015, arXiv:1503.02531"
    needs = frozenset({Need.DENSE_NETWORK, Need.CLASSES})
    temperature: float = Field(4.0, gt=0, description="what distill divides the logits of both networks by")
    teacher_weight: float = Field(0.7, gt=0, le=1, description="distill's share of the dense network's answers in the loss")

    def loss(self, beginnings: Beginnings) -> Loss:
        """(1 - w) · the task's loss + w · T² · KL(teacher || student), means of a batch; both softened by T in the latter.

        The teacher runs in training's precision, in eval mode.
        """
        teacher, task, weight = beginnings.dense(), beginnings.task, self.teacher_weight

        def mixed(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
            with torch.no_grad():
                answers = teacher(inputs)
            return (1 - weight) * task.loss(logits, labels) + weight * self.divergence(logits, answers)

        return mixed

    def divergence(self, logits: Tensor, answers: Tensor) -> Tensor:
        """T² · KL(teacher || student) of logits [B, classes], or the mean over pixels of maps of them.

        T² keeps its gradients as large at any T.
        """
        student, teacher = (F.log_softmax(some.float() / self.temperature, dim=1) for some in (logits, answers))
        summed = self.temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return summed / student[0, 0].numel()


class LrRewind(Retraining):
    """Replays the last epochs of the dense training's schedule."""

    name, label = "lr_rewind", "learning-rate rewinding"
    source = "Renda et al. 2020, arXiv:2003.02389"
    needs = frozenset({Need.DENSE_SCHEDULE})
    epochs: int = Field(1, ge=0, description="epochs of retraining after each cut")

    def plan(self, dense: DenseSettings) -> Plan:
        """The last ``epochs`` of the dense epochs."""
        return Plan(dense_schedule(dense), dense.epochs - self.epochs, dense.epochs)

    def refuse(self, dense: DenseSettings) -> str | None:
        """There are only so many epochs to rewind."""
        if self.epochs <= dense.epochs:
            return None
        return (
            f"fine_tune_epochs: {self.epochs} epochs can't be rewound of dense.epochs {dense.epochs}; use at most that many"
        )


class WeightRewind(Retraining):
    """Goes back to the weights of an early epoch, and trains from there to the end."""

    name, label = "weight_rewind", "weight rewinding"
    source = "Frankle et al. 2019, arXiv:1903.01611; after the lottery ticket, Frankle and Carbin 2019, arXiv:1803.03635"
    needs = frozenset({Need.DENSE_SCHEDULE, Need.EARLY_WEIGHTS, Need.ALL_CHANNELS})

    def plan(self, dense: DenseSettings) -> Plan:
        """All dense epochs after the early one."""
        return Plan(dense_schedule(dense), dense.rewind_epoch, dense.epochs)

    def begin(self, network: Network, beginnings: Beginnings) -> Network:
        """The early weights."""
        network.model.load_state_dict(beginnings.early().model.state_dict())
        return network

    def refuse(self, dense: DenseSettings) -> str | None:
        """An early epoch is one before the last."""
        if dense.rewind_epoch < dense.epochs:
            return None
        return (
            f"dense.rewind_epoch: {dense.rewind_epoch} is no early epoch of dense.epochs {dense.epochs}; use a smaller one"
        )


class Scratch(Retraining):
    """Starts from new random weights in the shapes and masks that pruning left: a control."""

    name, label, control = "scratch", "training from scratch", True
    source = "Liu et al. 2019, arXiv:1810.05270"
    needs = frozenset({Need.DENSE_SCHEDULE})
    epochs: int = Field(1, ge=1, description="epochs of retraining after each cut")

    def plan(self, dense: DenseSettings) -> Plan:
        """The dense training's schedule, squeezed or stretched to ``epochs``."""
        return Plan(dense_schedule(dense.model_copy(update={"epochs": self.epochs})), 0, self.epochs)

    def begin(self, network: Network, beginnings: Beginnings) -> Network:
        """New weights."""
        return Network(beginnings.afresh(), network.masks, network.removed)


class Recalibrate(Retraining):
    """Trains nothing: BatchNorm statistics are estimated anew on augmented training images."""

    name, label = "recalibrate", "recalibrated BatchNorm"
    needs = frozenset({Need.BATCH_NORM})
    recalibration_images: int = Field(512, ge=2, description="training images that recalibrate estimates statistics on")

    def plan(self, dense: DenseSettings) -> Plan:  # noqa: ARG002
        """No epochs."""
        return Plan(LearningRate((0.0, 1.0), (0.0, 0.0)), 0, 0)

    def begin(self, network: Network, beginnings: Beginnings) -> Network:  # noqa: ARG002
        """What the cut has left, with statistics of its own."""
        return beginnings.recalibrated(self.recalibration_images)


RETRAININGS = Registry[Retraining](n.RETRAIN, Retraining, (FineTune, Distill, LrRewind, WeightRewind, Scratch, Recalibrate))


BATCH_SIZE = "batch_size"
RATES: Mapping[str, str] = {n.FINE_TUNE_LR: "learning_rate", n.FINE_TUNE_DECAY: "decay"}
"""What a schedule calls the fields of a retraining that it may choose itself, instead of the study's ``retraining``."""


def takes(name: str, setting: str) -> bool:
    """Whether a retraining has the field that a schedule calls so."""
    return RATES[setting] in RETRAININGS[name].model_fields


def takes_epochs(name: str) -> bool:
    """Whether a retraining's epochs are chosen by a schedule's ``fine_tune_epochs``."""
    return n.EPOCHS in RETRAININGS[name].model_fields


def identity(retraining: Retraining) -> dict[str, Any]:
    """The part of a step's settings that stands for it; how no epochs would have been trained has no effect."""
    if getattr(retraining, n.EPOCHS, None) == 0:
        return {n.EPOCHS: 0}
    told = RETRAININGS.identity(retraining)
    own = told.get(f"{n.RETRAIN}_settings", {})
    if BATCH_SIZE in own and own[BATCH_SIZE] is None:  # which those of the user's own had not always
        own = {key: value for key, value in own.items() if key != BATCH_SIZE}
        told = {key: value for key, value in told.items() if key != f"{n.RETRAIN}_settings"}
        told |= {f"{n.RETRAIN}_settings": own} if own else {}
    return told


def retraining_of(settings: Mapping[str, Any], *, trusted: bool = False) -> Retraining:
    """The retraining that a step's settings name."""
    return RETRAININGS.of(settings, trusted=trusted) if n.RETRAIN in settings else FineTune(epochs=0)
