"""What can be asked for: the space of a search, and the list of a sweep, as Optuna sees them.

Both turn an Optuna trial into a schedule (define by run), and name the parameters of every prefix of a schedule, so that
each step of a trial can be told to Optuna as the point that it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Protocol, Self

from optuna.trial import BaseTrial
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from trainables.methods import Need
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.levels import MOST_STEPS, Sparsity
from trainables.pruning.pruners import PRUNERS
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule, told_as
from trainables.settings import Settings
from trainables.training.retraining import RETRAININGS, takes_epochs

Params = dict[str, Any]

STEP_RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
STRUCTURED_RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7)
STARTING_RATIOS = {n.UNSTRUCTURED: (0.5, 0.8, 0.9, 0.95), n.STRUCTURED: (0.2, 0.3, 0.5)}


def _of_channels(name: str, info: ValidationInfo) -> str:
    """A retraining that goes with cut channels."""
    if Need.ALL_CHANNELS in RETRAININGS[RETRAININGS.known(name, info)].needs:
        others = ", ".join(one for one, kind in RETRAININGS.items() if Need.ALL_CHANNELS not in kind.needs)
        raise ValueError(f"{name} needs {Need.ALL_CHANNELS.value}, which a structured cut takes; valid: {others}")
    return name


class FamilySpace(Settings):
    """What both families choose from; every list is a choice."""

    step_ratio: tuple[Sparsity, ...] = Field(STEP_RATIOS, min_length=1, description="share of what remains, each step")
    max_steps: int = Field(12, ge=1, le=MOST_STEPS, description="most steps of a schedule")
    max_sparsity: Sparsity = Field(0.99, description="no schedule goes beyond this sparsity (structured: of channels)")
    fine_tune_epochs: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (1, 2, 4), min_length=1, description="epochs of retraining after each cut"
    )

    @property
    def ratios(self) -> tuple[float, ...]:
        """The step ratios of which a first step stays within ``max_sparsity``."""
        return tuple(ratio for ratio in self.step_ratio if ratio <= self.max_sparsity)

    def most_steps(self, step_ratio: float) -> int:
        """How many steps of this ratio stay within ``max_sparsity``."""
        within = math.log(1 - self.max_sparsity) / math.log(1 - step_ratio)
        return min(self.max_steps, math.floor(within + 1e-9))

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if min(self.step_ratio) > self.max_sparsity:
            raise ValueError(f"no step_ratio is within max_sparsity {self.max_sparsity}; raise it, or give a smaller ratio")
        return self


class UnstructuredSpace(FamilySpace):
    """Choices of unstructured pruning."""

    importance: tuple[Annotated[str, AfterValidator(WEIGHT_IMPORTANCES.known)], ...] = Field(
        ("magnitude", "taylor", "random"), min_length=1, description=WEIGHT_IMPORTANCES.help()
    )
    scope: tuple[Annotated[str, AfterValidator(WEIGHT_SCOPES.known)], ...] = Field(
        ("global", "layerwise"), min_length=1, description=WEIGHT_SCOPES.help()
    )
    retrain: tuple[Annotated[str, AfterValidator(RETRAININGS.known)], ...] = Field(
        ("fine_tune", "lr_rewind"), min_length=1, description=RETRAININGS.help()
    )


class StructuredSpace(FamilySpace):
    """Choices of structured pruning."""

    step_ratio: tuple[Sparsity, ...] = Field(
        STRUCTURED_RATIOS, min_length=1, description="share of the remaining channels, each step"
    )
    max_sparsity: Sparsity = Field(0.9, description="no schedule removes more than this share of the channels")
    importance: tuple[Annotated[str, AfterValidator(CHANNEL_IMPORTANCES.known)], ...] = Field(
        ("magnitude_l1", "magnitude_l2", "lamp", "fpgm", "bn_scale", "taylor", "hessian", "random"),
        min_length=1,
        description=CHANNEL_IMPORTANCES.help(),
    )
    pruner: tuple[Annotated[str, AfterValidator(PRUNERS.known)], ...] = Field(
        ("base", "bn_scale", "group_norm", "growing_reg"), min_length=1, description=PRUNERS.help()
    )
    scope: tuple[Annotated[str, AfterValidator(CHANNEL_SCOPES.known)], ...] = Field(
        ("local", "global"), min_length=1, description=CHANNEL_SCOPES.help()
    )
    round_to: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1, description="multiples of channels")
    sparse_epochs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2), min_length=1, description="epochs of regularised training before each cut (not for base)"
    )
    retrain: tuple[Annotated[str, AfterValidator(_of_channels)], ...] = Field(
        ("fine_tune", "lr_rewind"), min_length=1, description=RETRAININGS.help()
    )


class SpaceSettings(Settings):
    """The families that a search chooses from."""

    unstructured: UnstructuredSpace | None = None
    structured: StructuredSpace | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.unstructured is None and self.structured is None:
            raise ValueError("space: name unstructured, structured or both; `unstructured: {}` takes the defaults")
        return self


class Space(Protocol):
    """What the searcher needs to know of a space or a sweep."""

    size: int | None
    """How many schedules there are, if they are a fixed list."""

    def schedule(self, trial: BaseTrial) -> Schedule:
        """The schedule that the trial's parameters stand for, asking the trial for them."""

    def holds(self, params: Params) -> bool:
        """Whether these parameters are of this space; a sweep's study has rows of the finalists too, who come later."""

    def starting_points(self) -> Sequence[Params]:
        """Parameters to begin with."""

    def longest(self) -> Iterator[Params]:
        """Parameters of schedules of which all others are prefixes; of a list of schedules none, for it is run whole."""

    def prefix(self, params: Params, steps: int) -> Params:
        """The parameters of the schedule cut off after ``steps`` steps."""

    def params(self, schedule: Schedule) -> Params:
        """The parameters that stand for a schedule."""


class SearchSpace:
    """Geometric schedules of one or both families."""

    size: int | None = None

    def __init__(self, settings: SpaceSettings) -> None:
        self._families = {
            name: family
            for name, family in ((n.UNSTRUCTURED, settings.unstructured), (n.STRUCTURED, settings.structured))
            if family is not None
        }

    def schedule(self, trial: BaseTrial) -> Schedule:
        """Ask the trial for a family and, below it, for what that family takes."""
        family = trial.suggest_categorical("family", list(self._families))
        space = self._families[family]

        def choose(field: str) -> Any:
            return trial.suggest_categorical(f"{family}.{field}", list(_choices(space, field)))

        fields: dict[str, Any] = {name: choose(name) for name in ("importance", "scope", "step_ratio", "retrain")}
        if takes_epochs(fields["retrain"]):
            fields["fine_tune_epochs"] = choose("fine_tune_epochs")
        fields["steps"] = trial.suggest_int(f"{family}.steps", 1, space.most_steps(fields["step_ratio"]))
        if family == n.UNSTRUCTURED:
            return UnstructuredSchedule(**fields)
        fields["round_to"] = choose("round_to")
        fields["pruner"] = choose("pruner")
        if PRUNERS[fields["pruner"]].regularises:
            fields["sparse_epochs"] = choose("sparse_epochs")
        return StructuredSchedule(**fields)

    def holds(self, params: Params) -> bool:  # noqa: ARG002
        """Always: there is one space."""
        return True

    def longest(self) -> Iterator[Params]:
        """Parameters of the longest schedule of every recipe; every other schedule of the space is a prefix of one."""
        for family, space in self._families.items():
            fields = ["importance", "scope", "step_ratio", "retrain", "fine_tune_epochs"]
            fields += ["round_to", "pruner", "sparse_epochs"] if family == n.STRUCTURED else []
            choices = [dict.fromkeys(_choices(space, field)) for field in fields]
            found: dict[tuple[Any, ...], Params] = {}
            for values in itertools.product(*choices):
                recipe = dict(zip(fields, values, strict=True))
                if not takes_epochs(recipe["retrain"]):
                    del recipe["fine_tune_epochs"]
                if "pruner" in recipe and not PRUNERS[recipe["pruner"]].regularises:
                    del recipe["sparse_epochs"]
                named = {f"{family}.{name}": value for name, value in recipe.items()}
                steps = {f"{family}.steps": space.most_steps(recipe["step_ratio"])}
                found[tuple(named.items())] = {"family": family, **named, **steps}
            yield from found.values()

    def starting_points(self) -> Sequence[Params]:
        """One-shot magnitude pruning, fine-tuned longest, at a few ratios of each family."""
        return [
            self._starting_point(family, space, ratio)
            for family, space in self._families.items()
            for ratio in STARTING_RATIOS[family]
            if ratio in space.ratios
        ]

    @staticmethod
    def _starting_point(family: str, space: FamilySpace, ratio: float) -> Params:
        def preferred(field: str, *names: Any) -> Any:
            choices = getattr(space, field)
            return next((name for name in names if name in choices), choices[0])

        fields = {
            "importance": preferred("importance", "magnitude", "magnitude_l2"),
            "scope": preferred("scope", "global" if family == n.UNSTRUCTURED else "local"),
            "step_ratio": ratio,
            "retrain": preferred("retrain", "fine_tune"),
            "fine_tune_epochs": max(space.fine_tune_epochs),
            "steps": 1,
        }
        if family == n.STRUCTURED:
            fields |= {"round_to": preferred("round_to", 1), "pruner": preferred("pruner", "base")}
            fields |= {"sparse_epochs": preferred("sparse_epochs")} if PRUNERS[fields["pruner"]].regularises else {}
        return {"family": family, **{f"{family}.{name}": value for name, value in fields.items()}}

    def prefix(self, params: Params, steps: int) -> Params:
        """The same schedule with fewer steps, which is a schedule of the space itself."""
        return {**params, f"{params['family']}.steps": steps}

    def params(self, schedule: Schedule) -> Params:
        """The parameters that stand for a schedule of the space."""
        names = ["scope", "step_ratio", "retrain", "steps"]
        names += ["fine_tune_epochs"] if takes_epochs(schedule.retrain) else []
        if isinstance(schedule, StructuredSchedule):
            names += ["round_to", "pruner", *(["sparse_epochs"] if PRUNERS[schedule.pruner].regularises else [])]
        fields = {"importance": self._choice_for(schedule)} | {name: getattr(schedule, name) for name in names}
        return {"family": schedule.family} | {f"{schedule.family}.{name}": value for name, value in fields.items()}

    def _choice_for(self, schedule: Schedule) -> str:
        """The choice that a schedule's importance is told for: its own name, or one that ranks alike."""
        choices = getattr(self._families.get(schedule.family), "importance", ())
        if isinstance(schedule, UnstructuredSchedule) or schedule.importance in choices:
            return schedule.importance
        alike = (name for name in choices if told_as(name, schedule.scope) == schedule.importance)
        return next(alike, schedule.importance)


def _choices(space: FamilySpace, field: str) -> Sequence[Any]:
    """What a field is chosen from."""
    choices: Sequence[Any] = space.ratios if field == n.STEP_RATIO else getattr(space, field)
    return choices


class Sweep:
    """A fixed list of schedules, run in its order. Its finalists come to its end; before them nothing changes."""

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self.schedules = list(schedules)
        self.size: int | None = len(self.schedules)

    def schedule(self, trial: BaseTrial) -> Schedule:
        """The schedule of the number that the trial has."""
        schedule = self.schedules[trial.suggest_int("schedule", 0, len(self.schedules) - 1)]
        trial.suggest_int("steps", 1, schedule.steps)
        return schedule

    def holds(self, params: Params) -> bool:
        """Whether the number is in the list."""
        return bool(params.get("schedule", 0) < len(self.schedules))

    def starting_points(self) -> Sequence[Params]:
        """All of them."""
        return [{"schedule": number, "steps": schedule.steps} for number, schedule in enumerate(self.schedules)]

    def longest(self) -> Iterator[Params]:
        """None: there is nothing to choose."""
        return iter(())

    def prefix(self, params: Params, steps: int) -> Params:
        """The same schedule, broken off after ``steps`` steps."""
        return {**params, "steps": steps}

    def params(self, schedule: Schedule) -> Params:
        """The number of the schedule in the list."""
        return {"schedule": self.schedules.index(schedule), "steps": schedule.steps}


def without(settings: SpaceSettings, refused: Mapping[str, Mapping[str, str]]) -> SpaceSettings:
    """The space less the importances and pruners that can't work for the network (field -> name -> reason)."""
    if settings.structured is None:
        return settings
    left = {}
    for field, reasons in refused.items():
        choices = getattr(settings.structured, field)
        left[field] = tuple(name for name in choices if name not in reasons)
        if not left[field]:
            raise InputError(f"space.structured.{field}: none can work for this network: {reasons[choices[0]]}")
    return settings.model_copy(update={"structured": settings.structured.model_copy(update=left)})
