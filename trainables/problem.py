"""What all schedules of a study start from: the data, the network, and how it is trained and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from trainables import own
from trainables.chain import MethodSettings, RegularisationSettings, RetrainSettings
from trainables.data.dataset import Data
from trainables.identity import NUMERICS_VERSION
from trainables.methods import Need
from trainables.networks.anatomy import Anatomy, classifier
from trainables.networks.checkpoint import checkpoint_hash, load_checkpoint
from trainables.networks.factory import ModelSettings, build, is_own
from trainables.networks.size import check_size
from trainables.node import KIND, ROOT, Node
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import machine_memory
from trainables.schedule import BaseSchedule, Schedule
from trainables.settings import Settings
from trainables.training.loop import DenseSettings, Precision, Recipe, dense_schedule
from trainables.training.retraining import Plan


@dataclass(frozen=True)
class Problem:
    """Data and network, and the settings that hold for every step.

    ``own`` has the settings of the user's own methods, by name. ``trusted`` lets such methods, and a factory of the user's
    own, be imported.
    """

    data: Data
    model: ModelSettings = field(default_factory=ModelSettings)
    dense: DenseSettings = field(default_factory=DenseSettings)
    retrain: Settings = field(default_factory=RetrainSettings)
    regularisation: Settings = field(default_factory=RegularisationSettings)
    precision: Precision = "fp32"
    threads: int = 1
    device: str = "cpu"
    trusted: bool = False
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
        if not self.model.brings_weights:
            start: dict[str, Any] = {"dense": dense}
        else:
            # Of the dense recipe only what retraining takes over has an effect on given weights.
            start = {"dense": {name: dense[name] for name in ("batch_size", "momentum", "weight_decay")}}
        if self.model.checkpoint is not None:
            start["checkpoint"] = self._checkpoint_hash
        if self.device != "cpu":
            start["arithmetic"] = "ieee"  # earlier versions let a GPU round products of fp32 to TF32
        if is_own(self.model.name):
            start["source"] = own.source_hash(self.model.name)
        return Node(
            None,
            {
                KIND: ROOT, "numerics": NUMERICS_VERSION, n.SEED: seed, "data": self.data.fingerprint,
                "classes": len(self.data.classes), "shape": list(self.data.shape), "model": self.model.name,
                "arguments": dict(self.model.arguments), "precision": self.precision, "device": self.device,
                "threads": self.threads, **start,
            },
        )  # fmt: skip

    @cached_property
    def methods(self) -> MethodSettings:
        """The settings of the methods that schedules name."""
        return MethodSettings(self.retrain, self.regularisation, self.own)

    def chain(self, schedule: Schedule, root: Node | None = None) -> list[Node]:
        """The node of each step of ``schedule``, in order, below ``root`` (the dense network of its seed)."""
        return self.methods.chain(root or self.root(schedule.seed), schedule)

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
        retraining = self.methods.retraining(schedule)
        if self.model.brings_weights and retraining.needs & {Need.DENSE_SCHEDULE, Need.EARLY_WEIGHTS}:
            given = f"model.checkpoint {self.model.checkpoint!r}" if self.model.checkpoint else "a network in memory"
            raise InputError(
                f"retrain: {schedule.retrain!r} needs the dense training's recipe and early weights, which "
                f"{given} doesn't bring; use fine_tune, or train the dense network here"
            )
        if reason := retraining.refuse(self.dense):
            raise InputError(reason)

    @property
    def dense_recipe(self) -> Recipe:
        """How the dense network is trained."""
        return self.recipe(Plan(dense_schedule(self.dense), 0, self.dense.epochs))

    def recipe(self, plan: Plan) -> Recipe:
        """How a node that trains these epochs at these learning rates is trained."""
        dense = self.dense
        return Recipe(*plan, dense.batch_size, dense.momentum, dense.weight_decay, self.precision, self.device)
