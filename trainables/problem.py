"""What all schedules of a study start from: the data, the network, and how it is trained and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from trainables import own
from trainables.chain import MethodSettings, RegularisationSettings, RetrainSettings
from trainables.data.dataset import Data
from trainables.identity import NUMERICS_VERSION
from trainables.loading.checkpoint import Loaded, checkpoint_hash, load_checkpoint
from trainables.loading.pretrained import fetch, load_published, published, state_hash
from trainables.methods import Need
from trainables.networks.anatomy import Anatomy, survey, weights
from trainables.networks.factory import ModelSettings, build, is_own
from trainables.networks.limits import estimated_norms, frozen_norms, spared_weights
from trainables.networks.running import count_auxiliary, evaluating
from trainables.networks.size import check_size
from trainables.node import KIND, ROOT, Node
from trainables.own.in_memory import is_in_memory
from trainables.pruning import gates
from trainables.pruning.gate import Gate
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import machine_memory
from trainables.schedule import BaseSchedule, Schedule
from trainables.settings import Settings
from trainables.tasks.base import guarded
from trainables.tasks.registry import identity, is_own_task
from trainables.training.feeding import normalise, tensors
from trainables.training.loop import DenseSettings, Recipe, dense_schedule, judge
from trainables.training.optimizers import OPTIMIZERS, Optimizer, make
from trainables.training.padding import PADDED, paddable
from trainables.training.retraining import Plan, Retraining
from trainables.training.stepping import Precision

TRIED = 64
"""Images on which a task of the user's own is tried before the start."""


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
    latency: Mapping[str, Any] = field(default_factory=dict)
    """Settings of what times networks elsewhere than in PyTorch (``trainables.measuring.runtimes``)."""

    def build(self, *, check: bool = False) -> nn.Module:
        """The dense architecture, with random weights from torch's global generator."""
        classes, shape = len(self.data.classes), self.data.shape
        output = self.data.task.shape(classes, shape)
        return build(self.model, classes, shape, trusted=self.trusted, check=check, output=output)

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

    def spared_in(self, model: nn.Module) -> dict[str, float]:
        """``spared`` for a network that has lost channels: what a layer lost with them counts as gone."""
        if not self.spared:
            return {}
        dense, now = self._sizes, {name: weight.numel() for name, weight in weights(model).items()}
        return {
            name: max(0.0, 1 - (1 - share) * dense[name] / now[name]) if now[name] < dense[name] else share
            for name, share in self.spared.items()
        }

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """The dense network's prunable weights, counted by name."""
        return {name: weight.numel() for name, weight in weights(self.build()).items()}

    def refuse(self, family: str) -> str | None:
        """Why nothing of the network can be pruned in this family, or None."""
        if family == n.STRUCTURED:
            return self.gate.refused
        return (self.gate.refused if family == n.MIXED else None) or self._weights_refused

    @cached_property
    def _weights_refused(self) -> str | None:
        classes, family = len(self.data.classes), n.UNSTRUCTURED
        return gates.of(self.model, classes, self.data.shape, trusted=self.trusted, family=family).refused

    def _limits(self, family: str) -> dict[str, Any]:
        """What a step's settings say of limits, and of how the network is trained: nothing where all is as usual."""
        found: dict[str, Any] = {"auxiliary": self._auxiliary * self.model.auxiliary_in_retraining, "held": self._held}
        if family == n.UNSTRUCTURED:
            found["spared"] = self.spared
        else:
            found |= {"protected": sorted(self.gate.protected), "floors": dict(self.gate.floors)}
            found["outputs"] = list(self.gate.outputs) if self.gate.moved else []
        return {key: value for key, value in found.items() if value}

    @property
    def _auxiliary(self) -> float:
        """The weight of auxiliary losses; 0 for a network without such outputs, and where it has no effect."""
        wanted = self.model.auxiliary
        if not wanted or (self.given and not self.model.auxiliary_in_retraining):
            return 0.0
        return wanted if self._facts[0] else 0.0

    @property
    def _held(self) -> list[str]:
        """The BatchNorm layers that are frozen: retraining leaves their statistics as they are too."""
        return self._facts[1]

    @cached_property
    def _facts(self) -> tuple[int, list[str], int]:
        """How many auxiliary outputs the network has, its frozen BatchNorm layers, and how many others it has."""
        with torch.random.fork_rng(devices=[]):
            model = self.build()
        return count_auxiliary(model, self.data.shape), sorted(frozen_norms(model)), len(estimated_norms(model))

    @cached_property
    def given(self) -> bool:
        """Whether the dense network has been trained already, for these classes."""
        if self.model.weights is not None:
            return published(self.model.name).classes == len(self.data.classes)
        return self.model.brings_weights

    def load_weights(self, model: nn.Module) -> Loaded:
        """Read the weights that the dense network starts from into ``model``: none, unless a study names some."""
        if self.model.checkpoint is not None:
            return load_checkpoint(model, self.model.checkpoint)
        if self.model.weights is not None:
            return load_published(model, self.model, len(self.data.classes), self.data.shape)
        return Loaded()

    @cached_property
    def _weights_identity(self) -> dict[str, Any]:
        """What stands in a root's address for the weights that the dense network starts from."""
        if self.model.checkpoint is not None:
            return {"checkpoint": checkpoint_hash(self.model.checkpoint)}
        if self.model.weights is not None:
            return {"weights": state_hash(fetch(self.model, self.data.shape[0]))}
        return {}

    def root(self, seed: int) -> Node:
        """The address of the dense network of this seed."""
        start = {**self._weights_identity, "dense": self.dense.identity(given=self.given)}
        if OPTIMIZERS.has_own(self.dense.optimizer):
            start["optimizer"] = OPTIMIZERS.identity(self.optimizer)
        if self._auxiliary and not self.given:
            start["auxiliary"] = self._auxiliary
        if self.device != "cpu":
            start["arithmetic"] = "ieee"  # earlier versions let a GPU round products of fp32 to TF32
        if is_own(self.model.name):
            start["source"] = own.source_hash(self.model.name)
        if self.model.output is not None:
            start["output"] = self.model.output
        if task := identity(self.data.task):
            start["task"] = task
        return Node(
            None,
            {
                KIND: ROOT, "numerics": NUMERICS_VERSION, n.SEED: seed, "data": self.data.fingerprint,
                "classes": len(self.data.classes), "shape": list(self.data.shape), "model": self.model.name,
                "arguments": dict(self.model.arguments), "precision": self.precision, "device": self.device,
                "threads": self.threads, **({} if self.device == "cpu" else {"updates": "fused"}), **start,
            },
        )  # fmt: skip

    @cached_property
    def methods(self) -> MethodSettings:
        """The settings of the methods that schedules name."""
        recipe = self.dense.recipe.model_dump() if self.given and self.dense.recipe else None
        pads = self.taught if getattr(self.retrain, PADDED) and self._paddable else None
        return MethodSettings(self.retrain, self.regularisation, self.own, recipe, pads)

    @cached_property
    def _paddable(self) -> bool:
        with torch.random.fork_rng(devices=[]):
            return paddable(self.build(), self.skeleton)

    @cached_property
    def taught(self) -> DenseSettings:
        """How the dense network is trained, or has been, if it was given and that is known."""
        return self.dense.scheduled(given=self.given)

    @cached_property
    def optimizer(self) -> Optimizer:
        """What updates weights."""
        OPTIMIZERS.load(self.dense.optimizer, trusted=self.trusted)
        return OPTIMIZERS.make(self.dense.optimizer, self.own.get(self.dense.optimizer, {}))

    def chain(self, schedule: Schedule, root: Node | None = None) -> list[Node]:
        """The node of each step of ``schedule``, in order, below ``root`` (the dense network of its seed)."""
        return self.methods.chain(root or self.root(schedule.seed), schedule, self._limits)

    def looks(self, schedule: Schedule) -> list[Node]:
        """For each step of ``schedule`` the address of a look at it: the same cut, only recalibrated."""
        return self.methods.looks(self.root(schedule.seed), schedule, self._limits)

    def check_network(self) -> None:
        """InputError if the network can't be built for the data, or its weights can't be had or don't fit it."""
        classes, remedy = len(self.data.classes), "use a smaller network, or smaller images"
        check_size(self.model, classes, self.data.shape, machine_memory(), remedy)
        if self.dense.recipe is not None and not self.given:
            raise InputError("dense.recipe: the dense network is trained here, by the keys beside it; leave it out")
        make(self.optimizer, self.build(check=True), self.dense.momentum, self.dense.weight_decay)
        if is_own_task(self.data.task):
            self._check_task()
        _ = self.told

    def _check_task(self) -> None:
        """InputError if the task's loss and measure can't be had of the network's outputs."""
        data, task = self.data, self.data.task
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = evaluating(self.build())
        images, targets = tensors(data.validation_images[:TRIED], data.validation_labels[:TRIED], "cpu")
        with torch.enable_grad():
            loss = guarded(task, "its loss", lambda: task.loss(model(normalise(images, data)), targets))
        if not isinstance(loss, torch.Tensor) or loss.dim() or not loss.requires_grad:
            made = f"a tensor {list(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
            raise InputError(f"task: {task.name!r}: its loss is {made}; return a scalar tensor made of the outputs")
        judge(model, images, targets, data, "cpu", error=True)

    @cached_property
    def told(self) -> dict[str, list[str]]:
        """What to know of how the network starts and trains, by subject; InputError if its weights don't fit it."""
        found = {"Data": list(self.data.told), "Weights": self.load_weights(self.build()).told, "Auxiliary outputs": []}
        if self.model.weights is not None and (self.data.mean, self.data.std) != published(self.model.name).moments:
            found["Weights"].append("images are normalised in another way than theirs (data.mean, data.std)")
        if self._auxiliary:
            where = "also in retraining" if self.model.auxiliary_in_retraining else "off in retraining"
            found["Auxiliary outputs"] = [f"their losses count {self._auxiliary:g} in the dense training, {where}"]
        return {subject: notes for subject, notes in found.items() if notes}

    def check(self, schedule: BaseSchedule) -> None:
        """InputError if this problem's dense network can't be retrained as ``schedule`` asks."""
        family: str = schedule.family  # type: ignore[attr-defined]
        if reason := self.refuse(family):
            raise InputError(f"{family}: {reason}; unfreeze or release layers, or use another model or family")
        retraining = self.methods.retraining(schedule)
        lacking = {Need.EARLY_WEIGHTS} if self.dense.recipe else {Need.DENSE_SCHEDULE, Need.EARLY_WEIGHTS}
        if self.given and retraining.needs & lacking:
            source = "model.weights" if self.model.weights else "a network in memory"
            source = f"model.checkpoint {self.model.checkpoint!r}" if self.model.checkpoint else source
            raise InputError(
                f"retrain: {schedule.retrain!r} needs the dense training's recipe and early weights, which "
                f"{source} doesn't bring; {self._remedy(retraining)}, or train the dense network here"
            )
        if Need.CLASSES in retraining.needs and not self.data.task.distils:
            raise InputError(
                f"retrain: {schedule.retrain!r} needs {Need.CLASSES.value}, and the task is {self.data.task.name!r}; use "
                "fine_tune"
            )
        if Need.BATCH_NORM in retraining.needs and not self._facts[2]:
            raise InputError(
                f"retrain: {schedule.retrain!r} needs {Need.BATCH_NORM.value} that are trained, and model.name "
                f"{self.model.name!r} has none; use fine_tune, with fine_tune_epochs 0 for no training"
            )
        if reason := retraining.refuse(self.taught):
            raise InputError(reason)

    def _remedy(self, retraining: Retraining) -> str:
        """What to do about a given network that brings no schedule."""
        early = Need.EARLY_WEIGHTS in retraining.needs
        return "use fine_tune" if early else "use fine_tune, or tell its schedule (dense.recipe)"

    @property
    def dense_recipe(self) -> Recipe:
        """How the dense network is trained."""
        plan = Plan(dense_schedule(self.dense), 0, self.dense.epochs)
        return replace(self.recipe(plan), auxiliary=self._auxiliary, hold_frozen=False)

    def recipe(self, plan: Plan, batch_size: int | None = None) -> Recipe:
        """How a node below the dense network, which trains these epochs at these learning rates, is trained."""
        dense, auxiliary = self.dense, self._auxiliary if self.model.auxiliary_in_retraining else 0.0
        return Recipe(
            *plan, batch_size or dense.batch_size, dense.momentum, dense.weight_decay, self.precision, self.device,
            auxiliary, hold_frozen=True, optimizer=self.optimizer, clip_norm=dense.clip_norm, recorded=self._recorded,
        )  # fmt: skip

    @property
    def _recorded(self) -> bool:
        """Whether updates are replayed: on a GPU, where no code of the user's own may differ from one to the next."""
        return self.device != "cpu" and not self.trusted and not is_in_memory(self.model.name)
