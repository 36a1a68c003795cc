"""What can be asked for: the space of a search, and the list of a sweep, as Optuna sees them.

Both turn an Optuna trial into a schedule (define by run), and name the parameters of every prefix of a schedule, so that
each step of a trial can be told to Optuna as the point that it is.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from optuna.trial import BaseTrial, FixedTrial
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
from trainables.schedule import MixedSchedule, Schedule, StructuredSchedule, UnstructuredSchedule, told_as
from trainables.settings import Settings
from trainables.training.retraining import RATES, RETRAININGS, takes, takes_epochs

Params = dict[str, Any]

STEP_RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
STRUCTURED_RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7)
STARTING_RATIOS = {n.UNSTRUCTURED: (0.5, 0.8, 0.9, 0.95), n.STRUCTURED: (0.2, 0.3, 0.5), n.MIXED: (0.5, 0.8, 0.9)}
PREFERRED: Mapping[str, tuple[Any, ...]] = {
    n.IMPORTANCE: ("magnitude", "magnitude_l2"), n.RETRAIN: ("fine_tune",),
    n.ROUND_TO: (1,), n.PRUNER: ("base",), n.CHANNEL_IMPORTANCE: ("magnitude_l2",), n.CHANNEL_SCOPE: ("local",),
    n.CHANNEL_RATIO: (0.3,), n.CHANNEL_STEPS: (1,),
}  # fmt: skip
"""What starting points have, the first of these that the space has."""
CHAINS = 3
"""How many starting points come to each end."""
STEPS_AFTER = {n.UNSTRUCTURED: n.FINE_TUNE_EPOCHS, n.STRUCTURED: n.FINE_TUNE_EPOCHS, n.MIXED: n.CHANNEL_STEPS}
"""The choice after which a sampler is asked for the steps: drawn in another order, a seed would draw other schedules."""


def _of_channels(name: str, info: ValidationInfo) -> str:
    """A retraining that goes with cut channels."""
    if Need.ALL_CHANNELS in RETRAININGS[RETRAININGS.known(name, info)].needs:
        others = ", ".join(one for one, kind in RETRAININGS.items() if Need.ALL_CHANNELS not in kind.needs)
        raise ValueError(f"{name} needs {Need.ALL_CHANNELS.value}, which a structured cut takes; valid: {others}")
    return name


class FamilySpace(Settings):
    """What all families choose from; every list is a choice."""

    of_family: ClassVar[tuple[str, ...]] = ()
    """What is chosen beside what all families have."""
    schedules: ClassVar[type[Schedule]]
    plain_scope: ClassVar[str] = "global"
    """What starting points have."""

    step_ratio: tuple[Sparsity, ...] = Field(STEP_RATIOS, min_length=1, description="share of what remains, each step")
    max_steps: int = Field(12, ge=1, le=MOST_STEPS, description="most steps of a schedule")
    max_sparsity: Sparsity = Field(0.99, description="no schedule goes beyond this sparsity (structured: of channels)")
    fine_tune_epochs: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (1, 2, 4), min_length=1, description="epochs of retraining after each cut"
    )
    fine_tune_lr: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="learning rates of fine-tuning; none is the study's (retraining.learning_rate)"
    )
    fine_tune_decay: tuple[Literal["constant", "linear"], ...] = Field(
        (), description="schedules of fine-tuning within a step; none is the study's (retraining.decay)"
    )

    @property
    def ratios(self) -> tuple[float, ...]:
        """The step ratios of which a first step stays within ``max_sparsity``."""
        return tuple(ratio for ratio in self.step_ratio if ratio <= self.max_sparsity)

    def levels(self, chosen: Mapping[str, Any]) -> tuple[int, int]:
        """The fewest and the most steps of a schedule, by what was chosen before."""
        return 1, self.most_steps(chosen[n.STEP_RATIO]) if n.STEP_RATIO in chosen else 1

    def most_steps(self, step_ratio: float) -> int:
        """How many steps of this ratio stay within ``max_sparsity``."""
        within = math.log(1 - self.max_sparsity) / math.log(1 - step_ratio)
        return min(self.max_steps, math.floor(within + 1e-9))

    def steps_to(self, sparsity: float, step_ratio: float) -> int | None:
        """The fewest steps of this ratio that come to a sparsity; None if it lies beyond the longest schedule."""
        steps = max(1, math.ceil(math.log(1 - sparsity) / math.log(1 - step_ratio) - 1e-9))
        return steps if steps <= self.most_steps(step_ratio) else None

    @property
    def most(self) -> float:
        """The largest sparsity that a schedule comes to."""
        return max(1 - (1 - ratio) ** self.most_steps(ratio) for ratio in self.ratios)

    @property
    def deepest(self) -> Mapping[str, Any]:
        """What a schedule that goes so far has, beside its ``step_ratio``."""
        return {}

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if min(self.step_ratio) > self.max_sparsity:
            raise ValueError(f"no step_ratio is within max_sparsity {self.max_sparsity}; raise it, or give a smaller ratio")
        return self


class UnstructuredSpace(FamilySpace):
    """Choices of unstructured pruning."""

    schedules: ClassVar[type[Schedule]] = UnstructuredSchedule

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

    of_family = (n.ROUND_TO, n.PRUNER, n.SPARSE_EPOCHS)
    schedules = StructuredSchedule
    plain_scope = "local"

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


class MixedSpace(UnstructuredSpace):
    """Choices of pruning channels first, and then weights of what they leave; the ratios and steps are those of weights."""

    of_family = (n.CHANNEL_IMPORTANCE, n.CHANNEL_SCOPE, n.CHANNEL_RATIO, n.CHANNEL_STEPS, n.ROUND_TO)
    schedules = MixedSchedule

    importance: tuple[Annotated[str, AfterValidator(WEIGHT_IMPORTANCES.known)], ...] = Field(
        ("magnitude",), min_length=1, description=WEIGHT_IMPORTANCES.help()
    )
    channel_importance: tuple[Annotated[str, AfterValidator(CHANNEL_IMPORTANCES.known)], ...] = Field(
        ("magnitude_l2",), min_length=1, description="of the channels: " + CHANNEL_IMPORTANCES.help()
    )
    channel_scope: tuple[Annotated[str, AfterValidator(CHANNEL_SCOPES.known)], ...] = Field(
        ("local",), min_length=1, description="of the channels: " + CHANNEL_SCOPES.help()
    )
    channel_ratio: tuple[Sparsity, ...] = Field(
        (0.3,), min_length=1, description="share of the remaining channels that each of the first steps removes"
    )
    channel_steps: tuple[Annotated[int, Field(ge=1, le=12)], ...] = Field(
        (1,), min_length=1, description="how many steps remove channels, before those that remove weights"
    )
    round_to: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1, description="multiples of channels")
    retrain: tuple[Annotated[str, AfterValidator(_of_channels)], ...] = Field(
        ("fine_tune", "lr_rewind"), min_length=1, description=RETRAININGS.help()
    )

    def levels(self, chosen: Mapping[str, Any]) -> tuple[int, int]:
        """The fewest and the most steps of a schedule, those of channels included."""
        return 1, int(chosen[n.CHANNEL_STEPS]) + super().levels(chosen)[1]

    @property
    def deepest(self) -> Mapping[str, Any]:
        """The most cuts of the most channels."""
        most = max(self.channel_steps)
        return {n.CHANNEL_RATIO: max(self.channel_ratio), n.CHANNEL_STEPS: most, n.STEPS: most + 1}


class SpaceSettings(Settings):
    """The families that a search chooses from."""

    unstructured: UnstructuredSpace | None = None
    structured: StructuredSpace | None = None
    mixed: MixedSpace | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.families:
            raise ValueError(
                "space: name unstructured, structured, mixed or several; `unstructured: {}` takes the defaults"
            )
        return self

    @property
    def families(self) -> dict[str, FamilySpace]:
        """Those that there are, by name."""
        found: dict[str, FamilySpace | None] = {name: getattr(self, name) for name in n.FAMILIES}
        return {name: family for name, family in found.items() if family is not None}


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
    """Geometric schedules of one or more families.

    ``defaults`` are the study's own values of what a schedule may choose itself (``fine_tune_lr``, ``fine_tune_decay``).
    ``ends`` are sparsities, each of a family, at which the first schedules are to end.
    """

    size: int | None = None

    def __init__(
        self, settings: SpaceSettings, defaults: Mapping[str, Any] | None = None, ends: Iterable[tuple[str, float]] = ()
    ) -> None:
        self._families, self._defaults, self._ends = settings.families, defaults or {}, tuple(ends)

    def schedule(self, trial: BaseTrial) -> Schedule:
        """Ask the trial for a family and, below it, for what that family takes."""
        family = trial.suggest_categorical("family", list(self._families))
        space = self._families[family]
        chosen: Params = {}
        for field in _fields(space):
            if _counts(field, chosen):
                chosen[field] = trial.suggest_categorical(f"{family}.{field}", list(_choices(space, field)))
            if field == STEPS_AFTER[family]:
                chosen[n.STEPS] = trial.suggest_int(f"{family}.{n.STEPS}", *space.levels(chosen))
        return space.schedules(**_whole(chosen))

    def holds(self, params: Params) -> bool:  # noqa: ARG002
        """Always: there is one space."""
        return True

    def longest(self) -> Iterator[Params]:
        """Parameters of the longest schedule of every recipe; every other schedule of the space is a prefix of one."""
        for family, space in self._families.items():
            fields = _fields(space)
            choices = [dict.fromkeys(_choices(space, field)) for field in fields]
            found: dict[tuple[Any, ...], Params] = {}
            for values in itertools.product(*choices):
                recipe: Params = {}
                for field, value in zip(fields, values, strict=True):
                    recipe |= {field: value} if _counts(field, recipe) else {}
                named = {f"{family}.{name}": value for name, value in recipe.items()}
                most = {f"{family}.{n.STEPS}": space.levels(recipe)[1]}
                found[tuple(named.items())] = {"family": family, **named, **most}
            yield from found.values()

    def starting_points(self) -> Sequence[Params]:
        """Magnitude pruning, fine-tuned longest: chains that come to each end, then one-shot at a few ratios a family."""
        points = [point for family, sparsity in self._ends for point in self._toward(family, sparsity)]
        points += [
            self._starting_point(family, space, ratio)
            for family, space in self._families.items()
            for ratio in STARTING_RATIOS[family]
            if ratio in space.ratios
        ]
        return [point for i, point in enumerate(points) if point not in points[:i]]

    def _toward(self, family: str, sparsity: float) -> Iterator[Params]:
        """The chains that come to a sparsity and go least beyond it."""
        space = self._families[family]
        steps = {ratio: count for ratio in space.ratios if (count := space.steps_to(sparsity, ratio))}
        for ratio in sorted(steps, key=lambda ratio: -((1 - ratio) ** steps[ratio]))[:CHAINS]:
            point = self._starting_point(family, space, ratio)
            yield self.prefix(point, steps[ratio] - 1 + point[f"{family}.{n.STEPS}"])

    def one_cut(self, family: str, sparsity: float | None = None) -> Schedule:
        """A starting point with one cut to a sparsity; as deep as the family goes without one."""
        space = self._families[family]
        schedule = self.schedule(FixedTrial(self._starting_point(family, space, space.ratios[0])))
        if _only({n.SCOPE: schedule.scope}) is not None:
            return schedule
        deepest = {n.STEP_RATIO: space.most, **space.deepest}
        return schedule.model_copy(update=deepest if sparsity is None else {n.STEP_RATIO: sparsity})

    def _starting_point(self, family: str, space: FamilySpace, ratio: float) -> Params:
        recipe: Params = {}
        for field in _fields(space):
            if _counts(field, recipe):
                choices = _choices(space, field)
                wanted: dict[str, tuple[Any, ...]] = {**PREFERRED, n.SCOPE: (space.plain_scope,), n.STEP_RATIO: (ratio,)}
                wanted |= {n.FINE_TUNE_EPOCHS: (max(space.fine_tune_epochs),)}
                wanted |= {name: (value,) for name, value in self._defaults.items()}
                recipe[field] = next((name for name in wanted.get(field, ()) if name in choices), choices[0])
        recipe[n.STEPS] = 1 + recipe.get(n.CHANNEL_STEPS, 0)
        return {"family": family, **{f"{family}.{name}": value for name, value in recipe.items()}}

    def prefix(self, params: Params, steps: int) -> Params:
        """The same schedule with fewer steps, which is a schedule of the space itself."""
        return {**params, f"{params['family']}.{n.STEPS}": steps}

    def params(self, schedule: Schedule) -> Params:
        """The parameters that stand for a schedule of the space."""
        space, chosen = self._families.get(schedule.family), Params()
        for field in _fields(space) if space else ():
            if _counts(field, chosen):
                own = self._choice_for(schedule) if field == n.IMPORTANCE else getattr(schedule, field)
                chosen[field] = self._defaults.get(field) if own is None else own
        usual = {field: (None, self._defaults.get(field)) for field in RATES if field not in chosen}
        chosen |= {field: value for field in usual if (value := getattr(schedule, field)) not in usual[field]}
        chosen[n.STEPS] = schedule.steps
        return {"family": schedule.family} | {f"{schedule.family}.{name}": value for name, value in chosen.items()}

    def _choice_for(self, schedule: Schedule) -> str:
        """The choice that a schedule's importance is told for: its own name, or one that ranks alike."""
        choices = getattr(self._families.get(schedule.family), "importance", ())
        if not isinstance(schedule, StructuredSchedule) or schedule.importance in choices:
            return schedule.importance
        alike = (name for name in choices if told_as(name, schedule.scope) == schedule.importance)
        return next(alike, schedule.importance)


def _fields(space: FamilySpace) -> tuple[str, ...]:
    """What is chosen, in order; what the study says for all schedules is no choice."""
    rates = tuple(field for field in RATES if getattr(space, field))
    return (n.IMPORTANCE, n.SCOPE, n.STEP_RATIO, n.RETRAIN, n.FINE_TUNE_EPOCHS, *rates, *space.of_family)


def _counts(field: str, chosen: Params) -> bool:
    """Whether a choice has an effect after those that were made before it."""
    if field == n.STEP_RATIO:
        return _only(chosen) is None
    if field == n.FINE_TUNE_EPOCHS:
        return takes_epochs(chosen[n.RETRAIN])
    if field in RATES:
        return takes(chosen[n.RETRAIN], field) and chosen.get(n.FINE_TUNE_EPOCHS) != 0
    return field != n.SPARSE_EPOCHS or PRUNERS[chosen[n.PRUNER]].regularises


def _only(chosen: Params) -> float | None:
    """The one sparsity that a scope can have."""
    scope = chosen[n.SCOPE]
    return WEIGHT_SCOPES[scope].only if scope in WEIGHT_SCOPES else None


def _whole(chosen: Params) -> Params:
    """The fields of the schedule that was chosen."""
    return chosen if n.STEP_RATIO in chosen else {n.STEP_RATIO: _only(chosen), **chosen}


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


def read(space: Space, fixed: FixedTrial) -> Schedule | None:
    """The schedule that given parameters stand for; None if it is not of the space, or not any more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # all that Optuna says of a number that is out of range
            return space.schedule(fixed)
    except (KeyError, ValueError, UserWarning):
        return None


def without(settings: SpaceSettings, refused: Mapping[str, Mapping[str, str]]) -> SpaceSettings:
    """The space less the importances and pruners that can't work for the network (field -> name -> reason)."""
    spaces = {}
    for family, space in settings.families.items():
        left = {}
        for field, kind in OF_CHANNELS[family].items():
            choices, reasons = getattr(space, field), refused.get(kind, {})
            left[field] = tuple(name for name in choices if name not in reasons)
            if not left[field]:
                raise InputError(f"space.{family}.{field}: none can work for this network: {reasons[choices[0]]}")
        spaces[family] = space.model_copy(update=left)
    return settings.model_copy(update=spaces)


OF_CHANNELS: Mapping[str, Mapping[str, str]] = {
    n.UNSTRUCTURED: {},
    n.STRUCTURED: {n.IMPORTANCE: n.IMPORTANCE, n.PRUNER: n.PRUNER},
    n.MIXED: {n.CHANNEL_IMPORTANCE: n.IMPORTANCE},
}
"""Each family's choices of methods that may not work for a network's channels, and their kind."""


def asked_of_channels(settings: SpaceSettings) -> dict[str, tuple[str, ...]]:
    """The importances and pruners of channels that a space chooses from."""
    found: dict[str, tuple[str, ...]] = {n.IMPORTANCE: (), n.PRUNER: ()}
    for family, space in settings.families.items():
        for field, kind in OF_CHANNELS[family].items():
            found[kind] = tuple(dict.fromkeys((*found[kind], *getattr(space, field))))
    return found
