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
from trainables.networks.anatomy import Anatomy, survey
from trainables.networks.checkpoint import checkpoint_hash, load_checkpoint
from trainables.networks.factory import ModelSettings, build, is_own
from trainables.networks.limits import spared_weights
from trainables.networks.size import check_size
from trainables.node import KIND, ROOT, Node
from trainables.pruning import gates
from trainables.pruning.gate import Gate, refuse_weights
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
    def skeleton(self) -> Anatomy:
        """The dense architecture, as it takes to rebuild what was cut."""
        return survey(self.build(), self.data.shape)

    @cached_property
    def gate(self) -> Gate:
        """What of the network whole channels can be cut of; InputError if it can't be told."""
        return gates.of(self.model, len(self.data.classes), self.data.shape, trusted=self.trusted)

    @cached_property
    def anatomy(self) -> Anatomy:
        """The dense architecture as structured pruning sees it; InputError if it can't be cut."""
        if self.gate.refused:
            raise InputError(f"structured: {self.gate.refused}")
        return self.gate.anatomy(self.skeleton)

    @cached_property
    def spared(self) -> dict[str, float]:
        """The largest share of each prunable weight that may go, of those that are limited."""
        return spared_weights(self.build(), self.model.wishes)

    def refuse(self, family: str) -> str | None:
        """Why nothing of the network can be pruned in this family, or None."""
        if family == n.STRUCTURED:
            return self.gate.refused
        return self._weights_refused

    @cached_property
    def _weights_refused(self) -> str | None:
        return refuse_weights(self.build, self.skeleton, len(self.data.classes), self.spared)

    def _limits(self, family: str) -> dict[str, Any]:
        """What a step's settings say of limits: nothing where there are none."""
        if family == n.UNSTRUCTURED:
            return {"spared": self.spared} if self.spared else {}
        found = {"protected": sorted(self.gate.protected), "floors": dict(self.gate.floors)}
        if self.gate.moved:
            found["outputs"] = list(self.gate.outputs)
        return {key: value for key, value in found.items() if value}

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
        if self.device != "cpu":
            start["arithmetic"] = "ieee"  # earlier versions let a GPU round products of fp32 to TF32
        if is_own(self.model.name):
            start["source"] = own.source_hash(self.model.name)
        if self.model.output is not None:
            start["output"] = self.model.output
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
        limits = self._limits(schedule.family)
        return self.methods.chain(root or self.root(schedule.seed), schedule, limits)

    def check_network(self) -> None:
        """InputError if the network can't be built for the data, or its checkpoint doesn't fit it."""
        classes, remedy = len(self.data.classes), "use a smaller network, or smaller images"
        check_size(self.model, classes, self.data.shape, machine_memory(), remedy)
        self.build(check=True)
        _ = self.checkpoint_told

    @cached_property
    def checkpoint_told(self) -> list[str]:
        """What was chosen in the checkpoint, or left out, in words; InputError if it doesn't fit the network."""
        return load_checkpoint(self.build(), self.model.checkpoint).told if self.model.checkpoint is not None else []

    def check(self, schedule: BaseSchedule) -> None:
        """InputError if this problem's dense network can't be retrained as ``schedule`` asks."""
        family: str = schedule.family  # type: ignore[attr-defined]
        if reason := self.refuse(family):
            raise InputError(f"{family}: {reason}; unfreeze or release layers, or use another model or family")
        retraining = self.methods.retraining(schedule)
        if self.model.checkpoint is not None and retraining.needs & {Need.DENSE_SCHEDULE, Need.EARLY_WEIGHTS}:
            raise InputError(
                f"retrain: {schedule.retrain!r} needs the dense training's recipe and early weights, which "
                f"model.checkpoint {self.model.checkpoint!r} doesn't bring; use fine_tune, or train the dense network here"
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
