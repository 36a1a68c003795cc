"""Schedules: how one network is pruned, step by step. Each family's is a class of its own."""

from __future__ import annotations

import itertools
from abc import ABC
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trainables.methods import Need, Registry
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.levels import LEVELS, PARTS_PER_MILLION, Explicit, Sparsity, Steps
from trainables.pruning.pruners import PRUNERS
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES
from trainables.records import names as n
from trainables.settings import Settings
from trainables.training.retraining import RETRAININGS, takes_epochs

REMOVED = "removed_ppm"
"""The setting of a step that says how much of the dense network is gone after it, in parts per million."""


class BaseSchedule(Settings, ABC):
    """What both families' schedules have."""

    importances: ClassVar[Registry[Any]]
    scopes: ClassVar[Registry[Any]]
    finalists_alone: ClassVar[bool]
    """Whether a comparison asks of this family's recipes only which is best, so that those that lost are left closed."""

    schedule: Annotated[str, AfterValidator(LEVELS.known)] = Field(
        "geometric", description="geometric (step_ratio of what remains, each step) | linear | cubic (AGP) | explicit"
    )
    step_ratio: Sparsity | None = Field(None, description="geometric: share of what remains that one step removes")
    steps: Steps = Field(1, description="number of steps; 1 is one-shot")
    sparsity: Sparsity | None = Field(None, description="linear and cubic: the sparsity of the last step")
    levels: tuple[Sparsity, ...] | None = Field(
        None, min_length=1, description="explicit: the sparsity of each step, rising"
    )
    retrain: Annotated[str, AfterValidator(RETRAININGS.known)] = Field(
        "fine_tune",
        description="fine_tune | lr_rewind (Renda et al. 2020) | weight_rewind (lottery ticket) | "
        "scratch (new weights: a control)",
    )
    fine_tune_epochs: int = Field(1, ge=0, description="epochs of retraining after each cut")
    seed: int = Field(0, ge=0, description="which dense network: each seed trains its own")

    @model_validator(mode="before")
    @classmethod
    def _levels_are_explicit(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("schedule", Explicit.name) != Explicit.name:
            return raw
        levels = raw.get("levels")
        if not isinstance(levels, list | tuple) or not levels:
            return raw
        return {"schedule": Explicit.name, "steps": len(levels), **raw}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = (key for key, field in LEVELS[self.schedule].model_fields.items() if field.is_required())
        if missing := next((key for key in needed if getattr(self, key, None) is None), None):
            raise ValueError(f"a {self.schedule} schedule needs {missing!r}")
        if self.levels is not None and len(self.levels) != self.steps:
            raise ValueError(f"{len(self.levels)} levels are {len(self.levels)} steps, not {self.steps}; leave `steps` out")
        targets = self.targets()
        if len(targets) != self.steps:
            raise ValueError(f"schedule {self.schedule} gives {len(targets)} levels for {self.steps} steps")
        if any(later <= earlier for earlier, later in itertools.pairwise([0, *targets])):
            raise ValueError("each step must remove more than the one before; use fewer steps or rising levels")
        if targets[-1] >= PARTS_PER_MILLION:
            raise ValueError("the last step would remove everything; use fewer steps")
        return self

    @model_validator(mode="after")
    def _retrained(self) -> Self:
        if not self.fine_tune_epochs and takes_epochs(self.retrain) and RETRAININGS[self.retrain].control:
            raise ValueError(f"retrain {self.retrain} with 0 fine_tune_epochs is the network as it was cut; give epochs")
        return self

    def targets(self) -> list[int]:
        """The sparsity that each step asks for, in parts per million: integers, so that equal levels share a step."""
        fields = {name: getattr(self, name) for name in ("step_ratio", "steps", "sparsity", "levels")}
        levels = LEVELS.make(self.schedule, {name: value for name, value in fields.items() if value is not None})
        return [round(PARTS_PER_MILLION * level) for level in levels.sparsities()]

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return {
            n.FAMILY: n.UNSTRUCTURED, n.IMPORTANCE: None, n.PRUNER: None, n.SCOPE: None, n.SCHEDULE: self.schedule,
            n.STEP_RATIO: self.step_ratio, n.STEPS: self.steps, n.FINE_TUNE_EPOCHS: self.fine_tune_epochs,
            n.SPARSE_EPOCHS: 0, n.ROUND_TO: None, n.RETRAIN: self.retrain, n.SEED: self.seed,
        }  # fmt: skip


class UnstructuredSchedule(BaseSchedule):
    """Single weights are removed."""

    importances, scopes, finalists_alone = WEIGHT_IMPORTANCES, WEIGHT_SCOPES, False

    family: Literal["unstructured"] = "unstructured"
    importance: Annotated[str, AfterValidator(WEIGHT_IMPORTANCES.known)] = Field(
        "magnitude", description=WEIGHT_IMPORTANCES.help()
    )
    scope: Annotated[str, AfterValidator(WEIGHT_SCOPES.known)] = Field(
        "global", description=WEIGHT_SCOPES.help() + ": how what goes is shared out among the layers"
    )

    @model_validator(mode="after")
    def _possible_for_the_scope(self) -> Self:
        only = WEIGHT_SCOPES[self.scope].only
        if only is not None and self.targets() != [round(PARTS_PER_MILLION * only)]:
            raise ValueError(f"scope {self.scope} removes {only:.0%} in one step; use step_ratio {only:g} and steps 1")
        return self

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return super().columns() | {n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.SCOPE: self.scope}


class StructuredSchedule(BaseSchedule):
    """Whole channels are removed, so sparsity levels are fractions of the dense *channels*."""

    importances, scopes, finalists_alone = CHANNEL_IMPORTANCES, CHANNEL_SCOPES, True

    family: Literal["structured"] = "structured"
    importance: Annotated[str, AfterValidator(CHANNEL_IMPORTANCES.known)] = Field(
        "magnitude_l2", description=CHANNEL_IMPORTANCES.help() + " (lamp with local scope is magnitude_l2)"
    )
    pruner: Annotated[str, AfterValidator(PRUNERS.known)] = Field(
        "base", description=PRUNERS.help() + "; all but base regularise before the cut"
    )
    scope: Annotated[str, AfterValidator(CHANNEL_SCOPES.known)] = Field(
        "local", description=CHANNEL_SCOPES.help() + ": how what goes is shared out among the groups of layers"
    )
    round_to: int = Field(1, ge=1, description="channels that remain are a multiple of this")
    sparse_epochs: int = Field(0, ge=0, description="epochs of regularised training before each cut; base has none")

    @model_validator(mode="before")
    @classmethod
    def _told_as(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        name, scope = raw.get(n.IMPORTANCE), raw.get(n.SCOPE, cls.model_fields[n.SCOPE].default)
        return {**raw, n.IMPORTANCE: told_as(name, scope)} if name is not None else raw

    @model_validator(mode="after")
    def _regularised(self) -> Self:
        regularises = PRUNERS[self.pruner].regularises
        if not regularises and self.sparse_epochs:
            raise ValueError(f"pruner {self.pruner} has no regularised training; set sparse_epochs to 0")
        if regularises and not self.sparse_epochs:
            raise ValueError(f"pruner {self.pruner} is base unless it trains with its regulariser; set sparse_epochs")
        if Need.ALL_CHANNELS in RETRAININGS[self.retrain].needs:
            raise ValueError(f"{self.retrain} is for unstructured pruning: early weights have all channels")
        return self

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return super().columns() | {
            n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.PRUNER: self.pruner, n.SCOPE: self.scope,
            n.ROUND_TO: self.round_to, n.SPARSE_EPOCHS: self.sparse_epochs,
        }  # fmt: skip


def told_as(importance: Any, scope: Any) -> Any:
    """The name that an importance of channels has with a scope: of two that rank alike, one is used."""
    try:
        return CHANNEL_IMPORTANCES[importance].ranks_as(CHANNEL_SCOPES[scope]).name
    except (KeyError, TypeError):  # what is no name, or not known, is told by its own validator
        return importance


Schedule = UnstructuredSchedule | StructuredSchedule

FAMILIES: Mapping[str, type[Schedule]] = {n.UNSTRUCTURED: UnstructuredSchedule, n.STRUCTURED: StructuredSchedule}
