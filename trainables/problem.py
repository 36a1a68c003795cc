"""What all schedules of a study start from: the data, the network, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from trainables.data.dataset import Data
from trainables.identity import NUMERICS_VERSION
from trainables.networks.anatomy import Anatomy, classifier
from trainables.networks.checkpoint import checkpoint_hash, load_checkpoint
from trainables.networks.factory import ModelSettings, build
from trainables.networks.size import check_size
from trainables.pruning.channels import RegularisationSettings
from trainables.records.names import InputError
from trainables.records.untrusted import machine_memory
from trainables.schedule import BaseSchedule, Node, RetrainSettings
from trainables.training.loop import DenseSettings, LearningRate, Precision, Recipe, dense_schedule


@dataclass(frozen=True)
class Problem:
    """Data and network, and the settings that hold for every step. ``trusted`` lets ``model.name`` import user code."""

    data: Data
    model: ModelSettings = field(default_factory=ModelSettings)
    dense: DenseSettings = field(default_factory=DenseSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    regularisation: RegularisationSettings = field(default_factory=RegularisationSettings)
    precision: Precision = "fp32"
    threads: int = 1
    device: str = "cpu"
    trusted: bool = False

    def build(self, *, check: bool = False) -> nn.Module:
        """The dense architecture, with random weights from torch's global generator."""
        return build(self.model, len(self.data.classes), self.data.shape, trusted=self.trusted, check=check)

    @cached_property
    def anatomy(self) -> Anatomy:
        """The dense architecture as structured pruning sees it."""
        model = self.build()
        return Anatomy.of(model, self.data.shape, tuple(classifier(model, len(self.data.classes))))

    @cached_property
    def _checkpoint_hash(self) -> str:
        assert self.model.checkpoint is not None
        return checkpoint_hash(self.model.checkpoint)

    def root(self, seed: int) -> Node:
        """The address of the dense network of this seed."""
        dense = self.dense.model_dump()
        if self.model.checkpoint is None:
            start: dict[str, Any] = {"dense": dense}
        else:
            # Of the dense recipe only what retraining takes over has an effect on given weights.
            shared = {name: dense[name] for name in ("batch_size", "momentum", "weight_decay")}
            start = {"checkpoint": self._checkpoint_hash, "dense": shared}
        return Node(
            None,
            {
                "kind": "dense", "numerics": NUMERICS_VERSION, "seed": seed, "data": self.data.fingerprint,
                "classes": len(self.data.classes), "shape": list(self.data.shape), "model": self.model.name,
                "arguments": dict(self.model.arguments), "precision": self.precision, "device": self.device,
                "threads": self.threads, **start,
            },
        )  # fmt: skip

    def check_network(self) -> None:
        """InputError if the network can't be built for the data, or its checkpoint doesn't fit it."""
        classes, remedy = len(self.data.classes), "use a smaller network, or smaller images"
        check_size(self.model, classes, self.data.shape, machine_memory(), remedy)
        model = self.build(check=True)
        classifier(model, classes)
        if self.model.checkpoint is not None:
            load_checkpoint(model, self.model.checkpoint)

    def check(self, schedule: BaseSchedule) -> None:
        """InputError if this problem's dense network can't be retrained as ``schedule`` asks."""
        if schedule.retrain == "fine_tune":
            return
        if self.model.checkpoint is not None:
            raise InputError(
                f"retrain: {schedule.retrain!r} needs the dense training's recipe and early weights, which "
                f"model.checkpoint {self.model.checkpoint!r} doesn't bring; use fine_tune, or train the dense network here"
            )
        if schedule.retrain == "lr_rewind" and schedule.fine_tune_epochs > self.dense.epochs:
            raise InputError(
                f"fine_tune_epochs: {schedule.fine_tune_epochs} epochs can't be rewound of dense.epochs "
                f"{self.dense.epochs}; use at most that many"
            )
        if schedule.retrain == "weight_rewind" and self.dense.rewind_epoch >= self.dense.epochs:
            raise InputError(
                f"dense.rewind_epoch: {self.dense.rewind_epoch} is no early epoch of dense.epochs {self.dense.epochs}; "
                "use a smaller one"
            )

    def recipe(self, settings: dict[str, Any]) -> Recipe:
        """How a node with these settings trains."""
        rate, start, stop = self._rate(settings)
        dense = self.dense
        return Recipe(rate, start, stop, dense.batch_size, dense.momentum, dense.weight_decay, self.precision, self.device)

    def _rate(self, settings: dict[str, Any]) -> tuple[LearningRate, int, int]:
        total = self.dense.epochs
        if settings["kind"] == "dense":
            return dense_schedule(self.dense), 0, total
        if settings.get("retrain") == "weight_rewind":
            return dense_schedule(self.dense), self.dense.rewind_epoch, total
        epochs = settings["epochs"]
        if settings.get("retrain") == "scratch":
            return dense_schedule(self.dense.model_copy(update={"epochs": epochs})), 0, epochs
        if settings.get("retrain") == "lr_rewind":
            return dense_schedule(self.dense), total - epochs, total
        rate = settings.get("learning_rate", 0.0)
        last = 0.0 if settings.get("decay") == "linear" else rate
        return LearningRate((0.0, float(max(1, epochs))), (rate, last)), 0, epochs
