"""Schedules: how one network is pruned, step by step. Each family's is a class of its own."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trainables.methods import Need, Registry
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.levels import LEVELS, PARTS_PER_MILLION, Explicit, Level, Sparsity, Steps
from trainables.pruning.pruners import PRUNERS
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES
from trainables.records import names as n
from trainables.settings import Settings
from trainables.training.retraining import RATES, RETRAININGS, takes, takes_epochs

REMOVED = "removed_ppm"
"""The setting of a step that says how much of the dense network is gone after it, in parts per million."""


class BaseSchedule(Settings, ABC):
    """What all families' schedules have."""

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
    levels: tuple[Level, ...] | None = Field(
        None,
        min_length=1,
        description="explicit: the sparsity of each step, rising; first levels of 0 retrain what there is, as a control",
    )
    retrain: Annotated[str, AfterValidator(RETRAININGS.known)] = Field(
        "fine_tune",
        description=RETRAININGS.help() + " (scratch, with new weights, is a control)",
    )
    fine_tune_epochs: int = Field(1, ge=0, description="epochs of retraining after each cut")
    fine_tune_lr: float | None = Field(None, gt=0, description="learning rate of fine-tuning; the study's if left out")
    fine_tune_decay: Literal["constant", "linear"] | None = Field(
        None, description="fine-tuning's schedule within a step; the study's if left out"
    )
    seed: int = Field(0, ge=0, description="which dense network: each seed trains its own")

    @model_validator(mode="before")
    @classmethod
    def _levels_are_explicit(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("schedule", Explicit.name) != Explicit.name:
            return raw
        levels, before = raw.get("levels"), cls._steps_before(raw)
        if not isinstance(levels, list | tuple) or not levels or not isinstance(before, int):
            return raw
        return {"schedule": Explicit.name, "steps": before + len(levels), **raw}

    @classmethod
    def _steps_before(cls, raw: Mapping[str, Any]) -> Any:  # noqa: ARG003
        """The steps before those of its levels, as given."""
        return 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = (key for key, field in LEVELS[self.schedule].model_fields.items() if field.is_required())
        if missing := next((key for key in needed if getattr(self, key, None) is None), None):
            raise ValueError(f"a {self.schedule} schedule needs {missing!r}")
        if self.levels is not None and len(self.levels) != self.own_steps:
            raise ValueError(
                f"{len(self.levels)} levels are {len(self.levels)} steps, not {self.own_steps}; leave `steps` out"
            )
        targets = self._own_targets()
        if len(targets) != self.own_steps:
            raise ValueError(f"schedule {self.schedule} gives {len(targets)} levels for {self.own_steps} steps")
        rising = [target for target in targets if target or not self.levels]  # levels of 0 remove nothing, each as the next
        if targets != sorted(targets) or any(after <= before for before, after in itertools.pairwise([0, *rising])):
            raise ValueError("each step must remove more than the one before; use fewer steps or rising levels")
        if targets and targets[-1] >= PARTS_PER_MILLION:
            raise ValueError("the last step would remove everything; use fewer steps")
        return self

    @model_validator(mode="after")
    def _retrained(self) -> Self:
        if not self.fine_tune_epochs and takes_epochs(self.retrain) and RETRAININGS[self.retrain].control:
            raise ValueError(f"retrain {self.retrain} with 0 fine_tune_epochs is the network as it was cut; give epochs")
        if not self.fine_tune_epochs and takes_epochs(self.retrain) and self.levels and not self.levels[0]:
            raise ValueError("level 0 with 0 fine_tune_epochs is the network as it was; give epochs")
        for setting in RATES:
            if getattr(self, setting) is not None and not takes(self.retrain, setting):
                raise ValueError(f"{self.retrain} has no {setting} of its own; leave it out")
        return self

    @property
    def own_steps(self) -> int:
        """The steps that its levels are of."""
        return self.steps

    @property
    @abstractmethod
    def parts(self) -> tuple[UnstructuredSchedule | StructuredSchedule, ...]:
        """What it is made of, one after another: schedules of one kind of cut each."""

    def part_of(self, step: int) -> tuple[UnstructuredSchedule | StructuredSchedule, int]:
        """The part that a step, counted from 1, is of, and the step's number there."""
        for part in self.parts:
            if step <= part.steps:
                return part, step
            step -= part.steps
        raise IndexError(step)

    def targets(self) -> list[int]:
        """The sparsity that each step asks for, in parts per million: integers, so that equal levels share a step."""
        return self._own_targets()

    def halvings(self) -> list[float]:
        """How often each step asks to halve what there is, all before it counted."""
        return [-math.log2(1 - target / PARTS_PER_MILLION) for target in self.targets()]

    def _own_targets(self) -> list[int]:
        if not self.own_steps:
            return []
        fields = {name: getattr(self, name) for name in ("step_ratio", "sparsity", "levels")} | {"steps": self.own_steps}
        levels = LEVELS.make(self.schedule, {name: value for name, value in fields.items() if value is not None})
        return [round(PARTS_PER_MILLION * level) for level in levels.sparsities()]

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return {
            n.FAMILY: n.UNSTRUCTURED, n.IMPORTANCE: None, n.PRUNER: None, n.SCOPE: None, n.SCHEDULE: self.schedule,
            n.STEP_RATIO: self.step_ratio, n.STEPS: self.steps, n.FINE_TUNE_EPOCHS: self.fine_tune_epochs,
            n.SPARSE_EPOCHS: 0, n.STRENGTH: None, n.ROUND_TO: None, n.RETRAIN: self.retrain,
            n.FINE_TUNE_LR: self.fine_tune_lr, n.FINE_TUNE_DECAY: self.fine_tune_decay, n.SEED: self.seed,
            n.CHANNEL_IMPORTANCE: None, n.CHANNEL_SCOPE: None, n.CHANNEL_RATIO: None, n.CHANNEL_STEPS: None,
        }  # fmt: skip

    def columns_at(self, step: int) -> dict[str, Any]:  # noqa: ARG002 - for those whose steps differ
        """The columns that describe how the network after a step was made."""
        return self.columns()


class _OfWeights(BaseSchedule):
    """What ends with cuts of single weights."""

    importances, scopes, finalists_alone = WEIGHT_IMPORTANCES, WEIGHT_SCOPES, False

    importance: Annotated[str, AfterValidator(WEIGHT_IMPORTANCES.known)] = Field(
        "magnitude", description=WEIGHT_IMPORTANCES.help()
    )
    scope: Annotated[str, AfterValidator(WEIGHT_SCOPES.known)] = Field(
        "global", description=WEIGHT_SCOPES.help() + ": how what goes is shared out among the layers"
    )

    @model_validator(mode="after")
    def _possible_for_the_scope(self) -> Self:
        only = WEIGHT_SCOPES[self.scope].only
        if only is not None and self.own_steps and self._own_targets() != [round(PARTS_PER_MILLION * only)]:
            raise ValueError(f"scope {self.scope} removes {only:.0%} in one step; use step_ratio {only:g} and steps 1")
        return self


class UnstructuredSchedule(_OfWeights):
    """Single weights are removed."""

    family: Literal["unstructured"] = "unstructured"

    @property
    def parts(self) -> tuple[UnstructuredSchedule, ...]:
        """Itself."""
        return (self,)

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
    strength: float | None = Field(
        None,
        ge=0,
        description="of the penalty, as a multiple of the study's; 0, the same training without it, is its control",
    )

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
        if self.strength is not None and not PRUNERS[self.pruner].strengths:
            raise ValueError(f"pruner {self.pruner} has no penalty whose strength could be set; leave strength out")
        _check_channels_can_go(self.retrain)
        return self

    @property
    def parts(self) -> tuple[StructuredSchedule, ...]:
        """Itself."""
        return (self,)

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule."""
        return super().columns() | {
            n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.PRUNER: self.pruner, n.SCOPE: self.scope,
            n.ROUND_TO: self.round_to, n.SPARSE_EPOCHS: self.sparse_epochs, n.STRENGTH: self.strength,
        }  # fmt: skip


class MixedSchedule(_OfWeights):
    """Whole channels are removed first, then single weights: sparsity levels are of the weights that channels have left.

    With no more steps than those of channels it is a structured schedule, and its steps are that one's.
    """

    family: Literal["mixed"] = "mixed"
    steps: Steps = Field(2, description="number of steps, those of channels included")
    channel_importance: Annotated[str, AfterValidator(CHANNEL_IMPORTANCES.known)] = Field(
        "magnitude_l2", description="of the channels: " + CHANNEL_IMPORTANCES.help()
    )
    channel_scope: Annotated[str, AfterValidator(CHANNEL_SCOPES.known)] = Field(
        "local", description="of the channels: " + CHANNEL_SCOPES.help()
    )
    channel_ratio: Sparsity = Field(0.3, description="share of the remaining channels that each of the first steps removes")
    channel_steps: Steps = Field(1, description="how many steps remove channels, before those that remove weights")
    round_to: int = Field(1, ge=1, description="channels that remain are a multiple of this")

    @classmethod
    def _steps_before(cls, raw: Mapping[str, Any]) -> Any:
        return raw.get("channel_steps", cls.model_fields["channel_steps"].default)

    @model_validator(mode="after")
    def _channels(self) -> Self:
        _check_channels_can_go(self.retrain)
        if round(PARTS_PER_MILLION * (1 - self.channel_ratio) ** self.channel_steps) < 1:
            raise ValueError("the last cut of channels would remove everything; use fewer channel_steps")
        return self

    @property
    def own_steps(self) -> int:
        """The steps that remove weights."""
        return max(0, self.steps - self.channel_steps)

    @property
    def parts(self) -> tuple[UnstructuredSchedule | StructuredSchedule, ...]:
        """The cuts of channels, and those of weights, if it comes to them."""
        shared = {name: getattr(self, name) for name in (n.RETRAIN, n.FINE_TUNE_EPOCHS, *RATES, n.SEED)}
        first = StructuredSchedule(
            importance=self.channel_importance, scope=self.channel_scope, round_to=self.round_to,
            step_ratio=self.channel_ratio, steps=self.steps - self.own_steps, **shared,
        )  # fmt: skip
        if not self.own_steps:
            return (first,)
        levels = {name: getattr(self, name) for name in (n.SCHEDULE, n.STEP_RATIO, "sparsity", "levels")}
        then = UnstructuredSchedule(
            importance=self.importance, scope=self.scope, steps=self.own_steps, **levels, **shared
        )  # fmt: skip
        return first, then

    def targets(self) -> list[int]:
        """Of the dense channels, then of the weights that they have left."""
        return [target for part in self.parts for target in part.targets()]

    def halvings(self) -> list[float]:
        """Of channels, and then of the weights that they have left: these go by the channels on both sides of a layer."""
        first, *rest = self.parts
        before = first.halvings()
        return before + [2 * before[-1] + more for part in rest for more in part.halvings()]

    def columns(self) -> dict[str, Any]:
        """The columns of points.jsonl that describe this schedule, and its networks that have lost weights."""
        first = self.parts[0]
        return super().columns() | {
            n.FAMILY: self.family, n.IMPORTANCE: self.importance, n.SCOPE: self.scope, n.ROUND_TO: self.round_to,
            n.CHANNEL_IMPORTANCE: first.importance, n.CHANNEL_SCOPE: first.scope, n.CHANNEL_RATIO: self.channel_ratio,
            n.CHANNEL_STEPS: self.channel_steps,
        }  # fmt: skip

    def columns_at(self, step: int) -> dict[str, Any]:
        """As long as it has lost channels alone, a network is one of structured pruning."""
        return self.columns() if step > self.channel_steps else self.parts[0].columns()


def _check_channels_can_go(retrain: str) -> None:
    if Need.ALL_CHANNELS in RETRAININGS[retrain].needs:
        raise ValueError(f"{retrain} is for unstructured pruning: early weights have all channels")


def told_as(importance: Any, scope: Any) -> Any:
    """The name that an importance of channels has with a scope: of two that rank alike, one is used."""
    try:
        return CHANNEL_IMPORTANCES[importance].ranks_as(CHANNEL_SCOPES[scope]).name
    except (KeyError, TypeError):  # what is no name, or not known, is told by its own validator
        return importance


Schedule = UnstructuredSchedule | StructuredSchedule | MixedSchedule

FAMILIES: Mapping[str, type[Schedule]] = {
    n.UNSTRUCTURED: UnstructuredSchedule,
    n.STRUCTURED: StructuredSchedule,
    n.MIXED: MixedSchedule,
}
