"""Schedules, and the addresses of their steps.

A pruned network is determined by the dense network and the chain of steps that led to it. So a step's address is the hash
of its parent's address and of the settings that have an effect on it; whatever has none is left out, and schedules that
begin alike share their beginnings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trainables.pruning import channels as structured
from trainables.pruning import masks as unstructured
from trainables.pruning.masks import PARTS_PER_MILLION
from trainables.records import names as n
from trainables.settings import Settings, one_of

RETRAINING = ("fine_tune", "lr_rewind", "weight_rewind", "scratch")
SCHEDULES = ("geometric", "linear", "cubic", "explicit")


def address(parent: str | None, settings: Mapping[str, Any]) -> str:
    """Hash of the parent's address and the settings, 16 hexadecimal digits."""
    text = json.dumps({"parent": parent, "settings": dict(settings)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Node:
    """One address in the tree: the dense network, a regularised training, or a step."""

    parent: Node | None
    settings: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """Hash of the parent's address and the settings, 16 hexadecimal digits."""
        return address(self.parent.id if self.parent else None, self.settings)

    @property
    def seed(self) -> int:
        """The seed of every random draw of this node; it depends on the address, never on the order of work."""
        return int(self.id[:12], 16)

    @property
    def root(self) -> Node:
        """The dense network that this node descends from."""
        return self.parent.root if self.parent else self

    @property
    def step_parent(self) -> Node | None:
        """The step (or dense network) before this one; a regularised training between them is passed over."""
        parent = self.parent
        return parent.parent if parent is not None and parent.settings["kind"] == "sparse" else parent


class RetrainSettings(Settings):
    """How fine-tuning runs within a step; rewinding has the dense schedule's learning rates.

    On CIFAR-10 (12,000 images), linear decay from 0.05 beat a constant 0.05 by 3 to 8 points after one-shot, iterative and
    structured pruning; linear from 0.1 was better still after unstructured and worse after structured pruning.
    """

    learning_rate: float = Field(0.05, gt=0, description="learning rate of fine-tuning")
    decay: Literal["constant", "linear"] = Field("linear", description="fine-tuning's schedule within a step")
    score_images: int = Field(256, ge=1, description="training images that taylor, hessian and activation scores see")


Sparsity = Annotated[float, Field(ge=1 / PARTS_PER_MILLION, lt=1)]


MOST_STEPS = 1000


class BaseSchedule(Settings, ABC):
    """What both families' schedules have."""

    schedule: Annotated[str, AfterValidator(one_of(SCHEDULES))] = Field(
        "geometric", description="geometric (step_ratio of what remains, each step) | linear | cubic (AGP) | explicit"
    )
    step_ratio: Sparsity | None = Field(None, description="geometric: share of what remains that one step removes")
    steps: int = Field(1, ge=1, le=MOST_STEPS, description="number of steps; 1 is one-shot")
    sparsity: Sparsity | None = Field(None, description="linear and cubic: the sparsity of the last step")
    levels: tuple[Sparsity, ...] | None = Field(
        None, min_length=1, description="explicit: the sparsity of each step, rising"
    )
    retrain: Annotated[str, AfterValidator(one_of(RETRAINING))] = Field(
        "fine_tune",
        description="fine_tune | lr_rewind (Renda et al. 2020) | weight_rewind (lottery ticket) | "
        "scratch (new weights: a control)",
    )
    fine_tune_epochs: int = Field(1, ge=0, description="epochs of retraining after each cut")
    seed: int = Field(0, ge=0, description="which dense network: each seed trains its own")

    @model_validator(mode="before")
    @classmethod
    def _levels_are_explicit(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("schedule", "explicit") != "explicit":
            return raw
        levels = raw.get("levels")
        return {"schedule": "explicit", "steps": len(levels), **raw} if isinstance(levels, list | tuple) and levels else raw

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"geometric": "step_ratio", "explicit": "levels"}.get(self.schedule, "sparsity")
        if getattr(self, needed) is None:
            raise ValueError(f"a {self.schedule} schedule needs {needed!r}")
        if self.levels is not None and len(self.levels) != self.steps:
            raise ValueError(f"{len(self.levels)} levels are {len(self.levels)} steps, not {self.steps}; leave `steps` out")
        targets = self.targets()
        if any(later <= earlier for earlier, later in itertools.pairwise([0, *targets])):
            raise ValueError("each step must remove more than the one before; use fewer steps or rising levels")
        if targets[-1] >= PARTS_PER_MILLION:
            raise ValueError("the last step would remove everything; use fewer steps")
        return self

    def targets(self) -> list[int]:
        """The sparsity that each step asks for, in parts per million: integers, so that equal levels share a step."""
        return [round(PARTS_PER_MILLION * level) for level in LEVELS[self.schedule](self)]

    @abstractmethod
    def step_settings(self, target: int) -> dict[str, Any]:
        """What the family's cut depends on."""

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return {
            n.FAMILY: n.UNSTRUCTURED, n.IMPORTANCE: None, n.PRUNER: None, n.SCOPE: None, n.SCHEDULE: self.schedule,
            n.STEP_RATIO: self.step_ratio, n.STEPS: self.steps, n.FINE_TUNE_EPOCHS: self.fine_tune_epochs,
            n.SPARSE_EPOCHS: 0, n.ROUND_TO: None, n.RETRAIN: self.retrain, n.SEED: self.seed,
        }  # fmt: skip


class UnstructuredSchedule(BaseSchedule):
    """Single weights are removed."""

    family: Literal["unstructured"] = "unstructured"
    importance: Annotated[str, AfterValidator(one_of(unstructured.IMPORTANCES))] = Field(
        "magnitude", description="magnitude | taylor | random"
    )
    scope: Annotated[str, AfterValidator(one_of(unstructured.SCOPES))] = Field(
        "global", description="rank all weights together (global) or each layer's alone (layerwise)"
    )

    def step_settings(self, target: int) -> dict[str, Any]:
        """What the cut depends on."""
        return {n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.SCOPE: self.scope, "removed_ppm": target}

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return super().columns() | {n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.SCOPE: self.scope}


class StructuredSchedule(BaseSchedule):
    """Whole channels are removed, so sparsity levels are fractions of the dense *channels*."""

    family: Literal["structured"] = "structured"
    importance: Annotated[str, AfterValidator(one_of(structured.IMPORTANCES))] = Field(
        "magnitude_l2", description=" | ".join(structured.IMPORTANCES) + " (lamp with local scope is magnitude_l2)"
    )
    pruner: Annotated[str, AfterValidator(one_of(structured.PRUNERS))] = Field(
        "base", description="base | bn_scale | group_norm | growing_reg; the last three regularise before the cut"
    )
    scope: Annotated[str, AfterValidator(one_of(structured.SCOPES))] = Field(
        "local", description="the same share of every group of layers (local) or one ranking of all (global)"
    )
    round_to: int = Field(1, ge=1, description="channels that remain are a multiple of this")
    sparse_epochs: int = Field(0, ge=0, description="epochs of regularised training before each cut; base has none")

    @model_validator(mode="before")
    @classmethod
    def _told_as(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        other = structured.RANKS_LIKE.get((str(raw.get(n.IMPORTANCE)), str(raw.get(n.SCOPE, "local"))))
        return {**raw, n.IMPORTANCE: other} if other else raw

    @model_validator(mode="after")
    def _regularised(self) -> Self:
        if self.pruner == "base" and self.sparse_epochs:
            raise ValueError("pruner base has no regularised training; set sparse_epochs to 0")
        if self.pruner != "base" and not self.sparse_epochs:
            raise ValueError(f"pruner {self.pruner} is base unless it trains with its regulariser; set sparse_epochs")
        if self.retrain == "weight_rewind":
            raise ValueError("weight_rewind is for unstructured pruning: early weights have all channels")
        return self

    def step_settings(self, target: int) -> dict[str, Any]:
        """What the cut depends on."""
        return {
            n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.SCOPE: self.scope, n.ROUND_TO: self.round_to,
            "removed_ppm": target,
        }  # fmt: skip

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return super().columns() | {
            n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.PRUNER: self.pruner, n.SCOPE: self.scope,
            n.ROUND_TO: self.round_to, n.SPARSE_EPOCHS: self.sparse_epochs,
        }  # fmt: skip


Schedule = UnstructuredSchedule | StructuredSchedule

FAMILIES: Mapping[str, type[Schedule]] = {"unstructured": UnstructuredSchedule, "structured": StructuredSchedule}


def _geometric(s: BaseSchedule) -> Sequence[float]:
    assert s.step_ratio is not None
    return [1 - (1 - s.step_ratio) ** k for k in range(1, s.steps + 1)]


def _linear(s: BaseSchedule) -> Sequence[float]:
    assert s.sparsity is not None
    return [s.sparsity * k / s.steps for k in range(1, s.steps + 1)]


def _cubic(s: BaseSchedule) -> Sequence[float]:
    """Automated gradual pruning (Zhu and Gupta 2017, arXiv:1710.01878): fast at first, gentle at the end."""
    assert s.sparsity is not None
    return [s.sparsity * (1 - (1 - k / s.steps) ** 3) for k in range(1, s.steps + 1)]


def _explicit(s: BaseSchedule) -> Sequence[float]:
    assert s.levels is not None
    return s.levels


LEVELS: Mapping[str, Callable[[BaseSchedule], Sequence[float]]] = {
    "geometric": _geometric,
    "linear": _linear,
    "cubic": _cubic,
    "explicit": _explicit,
}


def chain(
    root: Node, schedule: Schedule, retrain: RetrainSettings, regularisation: structured.RegularisationSettings
) -> list[Node]:
    """The node of each step of ``schedule`` below ``root``, in order; regularised trainings are parents between them."""
    nodes, node = [], root
    for target in schedule.targets():
        if isinstance(schedule, StructuredSchedule) and schedule.pruner != "base":
            sparse = {n.PRUNER: schedule.pruner, **regularisation.of(schedule.pruner), "epochs": schedule.sparse_epochs}
            node = Node(node, {"kind": "sparse", **sparse})
        node = Node(node, {"kind": "prune", **schedule.step_settings(target), **_effective(schedule, retrain)})
        nodes.append(node)
    return nodes


def _effective(schedule: Schedule, retrain: RetrainSettings) -> dict[str, Any]:
    """The settings of scoring and retraining that have an effect on a step of this schedule."""
    effective: dict[str, Any] = {}
    data_dependent = structured.NEEDS_DATA if schedule.family == n.STRUCTURED else unstructured.NEEDS_GRADIENTS
    if schedule.importance in data_dependent:
        effective["score_images"] = retrain.score_images
    if schedule.retrain == "weight_rewind":
        return effective | {n.RETRAIN: schedule.retrain}
    effective["epochs"] = schedule.fine_tune_epochs
    if schedule.fine_tune_epochs == 0:
        return effective
    if schedule.retrain == "fine_tune":
        effective |= {"learning_rate": retrain.learning_rate, "decay": retrain.decay}
    return effective | {n.RETRAIN: schedule.retrain}
