"""The study file: one search or sweep, typed, validated, and written out with every default."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from torch import nn

from search.sampling.samplers import SAMPLERS, SamplerSettings
from search.sampling.space import SpaceSettings
from trainables import own
from trainables.chain import RegularisationSettings, RetrainSettings
from trainables.data.settings import DataSettings
from trainables.forms.forms import FORMS
from trainables.measuring.chosen import objective
from trainables.measuring.runtimes import LatencySettings
from trainables.networks.factory import ModelSettings, is_torchvision
from trainables.records import names as n
from trainables.records.contrasts import Contrast, Seeds, Where, where_of
from trainables.records.limits import Limits, column_of, moved_drop
from trainables.records.names import InputError
from trainables.records.objectives import ACCURACY, COMPRESSION, OBJECTIVES, LatencyOn, Objective, Quality
from trainables.records.untrusted import check_links, parse_yaml, read
from trainables.schedule import FAMILIES, Schedule
from trainables.settings import TRUSTED, Settings, nearest, one_of, parse, refusal
from trainables.storage.base import Place, is_url
from trainables.storage.folder import Folder
from trainables.storage.places import open_storage
from trainables.tasks.base import Task
from trainables.tasks.registry import TaskSettings, task_of
from trainables.training.loop import DenseSettings
from trainables.training.retraining import RETRAININGS

LOCAL = "results"
"""The folder that holds the drivers' own files where the storage is a URL."""

STOPS = ("none", "front")

Overrides = Sequence[str] | Mapping[str, Any]
"""Values of keys, by dotted name; or as the command line has them, ``key=value`` each."""


def _measure(info: ValidationInfo) -> Quality:
    """The measure of the study's task, which is validated before; accuracy where that failed, which is told."""
    settings = info.data.get("task")
    return task_of(settings, info.data.get("methods", {})).quality if settings is not None else ACCURACY


def _objective(name: str, info: ValidationInfo) -> str:
    objective(name, _measure(info), trusted=bool((info.context or {}).get(TRUSTED)))
    return name


def _usual(value: Any, info: ValidationInfo) -> Any:
    return (_measure(info).name, COMPRESSION.name) if value is None else value


NULL: Any = None
OBJECTIVE = Annotated[str, AfterValidator(_objective)]


def _without_file_scheme(storage: str) -> str:
    return storage.removeprefix("file://")


class ReferenceSettings(Settings):
    """The fixed reference point of the hypervolume."""

    drop: float | None = Field(
        None,
        gt=0,
        description="the reference lies this far below the dense network's measure, or above one to be minimised, in its "
        "unit; null: accuracy_drop, except where a measure has no scale that all know",
    )
    accuracy_drop: float = Field(
        n.REFERENCE_ACCURACY_DROP, gt=0, le=1, description="the reference lies this far below the dense accuracy"
    )


class SearchSettings(SamplerSettings):
    """How the search chooses and when it ends: at whichever budget is reached first."""

    sampler: Annotated[str, AfterValidator(SAMPLERS.known)] = Field("tree", description=SAMPLERS.help())
    trials: int | None = Field(
        100, ge=1, description="trials to run; a schedule known already costs none; a sweep runs all of its schedules"
    )
    epochs: int | None = Field(None, ge=1, description="no new trial once this many epochs were computed")
    minutes: float | None = Field(None, gt=0, description="no new trial after this time in one run")
    stall_epochs: int | None = Field(
        None, ge=1, description="no new trial once the hypervolume has grown by less than stall_share over so many epochs"
    )
    stall_share: float = Field(0.01, gt=0, description="the growth that counts, as a share of the hypervolume")
    stop: Annotated[str, AfterValidator(one_of(STOPS))] = Field(
        "none",
        description="none | front, which ends a trial once no step that it has left can be expected to reach the front; "
        "never in a sweep. It spares random, nsga2 and tpe epochs; tree hardly needs it",
    )
    seed: int = Field(0, ge=0, description="seed of the sampler")
    starting_points: bool = Field(True, description="begin with one-shot magnitude pruning at a few ratios")
    targets: dict[Literal["bytes", "params", "macs"], Annotated[float, Field(gt=0, lt=1)]] = Field(
        {}, description="begin with schedules that end at a share of the dense network's, such as {macs: 0.5}"
    )

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if all(budget is None for budget in (self.trials, self.epochs, self.minutes, self.stall_epochs)):
            raise ValueError("the search would never end; give trials, epochs, minutes or stall_epochs")
        if self.targets and not self.starting_points:
            raise ValueError("targets are starting points; leave out starting_points: false")
        return self

    @property
    def looks_at(self) -> int:
        """How many cuts a trial looks at for the sampler."""
        return SAMPLERS.make(self.sampler, self.model_dump()).looks_at


def _each_once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is given twice and would count twice; give each once")
    return seeds


def _one_each(forms: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(forms)) < len(forms):
        raise ValueError("a form is given twice; give each once")
    return forms


class FinalistSettings(Settings):
    """The best recipes of a sweep, run again on fresh seeds; those used for choosing are left out of what is concluded."""

    family: Annotated[str, AfterValidator(one_of(n.FAMILIES))] = Field(n.STRUCTURED, description="whose recipes compete")
    top: int = Field(3, ge=1, description="how many of the best run again, beside random importance as the control")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_each_once)] = Field(
        min_length=1, description="the fresh seeds, on which the sweep has no schedule of this family"
    )

    def compete(self, schedule: Schedule) -> bool:
        """Whether a schedule of the sweep has a say in who runs again."""
        return schedule.family == self.family and not RETRAININGS[schedule.retrain].control


def _shareable(gpu: float) -> float:
    if gpu > 1 and gpu != int(gpu):
        raise ValueError("a part of a GPU, or whole ones")
    return gpu


class ResourceSettings(Settings):
    """What one trial takes; as many trials run at once as fit."""

    cpu: float = Field(1, gt=0, description="processor cores a trial; also its threads")
    gpu: Annotated[float, AfterValidator(_shareable)] = Field(
        0, ge=0, description="GPUs a trial, fractions allowed; 0 trains on the CPU"
    )


class Study(Settings):
    """One search (``space``) or one fixed list of schedules (``sweep``) over one network and one data set.

    In Python it takes the keys of a study file, ``Study(name="mine", data={"dataset": "digits"}, space={...})``; with
    ``allow_code`` it may name code of the user's own, which is imported. InputError, in one line, if something is wrong.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the folder of results")
    data: DataSettings = DataSettings()
    task: TaskSettings = TaskSettings()
    model: ModelSettings = ModelSettings()
    dense: DenseSettings = DenseSettings()
    retraining: RetrainSettings = RetrainSettings()
    regularisation: RegularisationSettings = RegularisationSettings()
    methods: dict[str, dict[str, Any]] = Field(
        {}, description="settings of methods of your own, such as {package.module:Class: {strength: 2}}"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of training; auto is bf16 where it is fast")
    objectives: Annotated[tuple[OBJECTIVE, ...], BeforeValidator(_usual)] = Field(
        default=NULL,
        min_length=2,
        max_length=3,
        description=f"two or three of {', '.join(OBJECTIVES)} (of another task its measure, in place of accuracy), "
        "latency.onnx, latency.package.module:measure, or package.module:Class of your own (--allow-code); null: the "
        "task's measure and compression",
    )
    storage_forms: Annotated[tuple[Annotated[str, AfterValidator(FORMS.known)], ...], AfterValidator(_one_each)] = Field(
        (n.FP32,),
        min_length=1,
        description=f"stored forms that every step is measured in, at no epochs: {FORMS.help()}; fp32 alone is measured as "
        "the step's own file, and otherwise all are in compact files",
    )
    reference: ReferenceSettings = ReferenceSettings()
    latency: LatencySettings = LatencySettings()
    limits: Limits = Limits()
    space: SpaceSettings | None = Field(None, description="what the sampler chooses from")
    sweep: tuple[dict[str, Any], ...] | None = Field(
        None,
        min_length=1,
        description="schedules to run, instead of a space; a list in any field but levels stands for each of its values",
    )
    finalists: FinalistSettings | None = Field(None, description="of a sweep: the best run again on fresh seeds")
    arms: dict[str, Where] = Field({}, description="networks by the columns of their points, under names for contrasts")
    contrasts: dict[str, Contrast] | None = Field(
        None, description="what analysis compares: left less right, within seeds; its own questions if left out"
    )
    seeds: tuple[Seeds, ...] = Field((), description="seeds that never conclude: of tuning, of selection, added later")
    search: SearchSettings = SearchSettings()
    resources: ResourceSettings = ResourceSettings()
    reuse: tuple[Annotated[str, AfterValidator(_without_file_scheme)], ...] = Field(
        (), description="folders or URLs of other studies, whose steps are read where they are the same, and never written"
    )
    keep: Literal["all", "front", "none"] = Field("all", description="whose weights stay on disk when the study has ended")
    storage: Annotated[str, AfterValidator(_without_file_scheme)] = Field(
        "results", description="folder that holds the folders of results, or s3://bucket/prefix or gs://bucket/prefix"
    )

    _trusted: bool = PrivateAttr(default=False)
    _home: Path | None = PrivateAttr(default=None)

    def __init__(self, /, *, allow_code: bool = False, **fields: Any) -> None:
        context = {TRUSTED: allow_code}
        try:
            self.__pydantic_validator__.validate_python(fields, self_instance=self, context=context)
        except ValidationError as error:
            raise refusal(Study, error, "study") from None
        _check_fresh(self, self.schedules(trusted=allow_code))

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # what validates a dictionary doesn't go through it

    def model_post_init(self, context: Any, /) -> None:
        """Remember whether code of the user's own may be imported."""
        self._trusted = bool((context or {}).get(TRUSTED))

    @classmethod
    def load(cls, path: str | Path, overrides: Overrides = (), *, allow_code: bool = False) -> Study:
        """The study in a YAML file, with ``overrides`` such as ``{"search.trials": 20}``; InputError if one is wrong."""
        return load_study(path, overrides, trusted=allow_code)

    def of(self, model: nn.Module | None) -> Self:
        """The study of a network in memory, or of what it names if there is none; InputError if it names another."""
        return self if model is None else self.model_copy(update={"model": self.model.of(model)})

    def beside(self, folder: Path, name: str, sweep: Sequence[Mapping[str, Any]]) -> Self:
        """A sweep over the same network and data, inside this study's place; its driver's files are in ``folder``/name."""
        fields: dict[str, Any] = {
            "name": name, "storage": str(self.place_of(folder)), "space": None, "sweep": tuple(sweep), "limits": Limits(),
            "finalists": None, "arms": {}, "contrasts": None, "seeds": (), "search": SearchSettings(), "keep": "all",
        }  # fmt: skip
        made = self.model_copy(update=fields)
        made._home = folder / name
        return made

    @property
    def trusted(self) -> bool:
        """Whether code of the user's own, which it may name, is imported."""
        return self._trusted

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.space is None) == (self.sweep is None):
            raise ValueError("a study needs either 'space' or 'sweep', and not both")
        if self.reference.drop is None and not self.measure.has_scale:
            raise InputError(
                f"reference.drop: {self.measure.name} has no scale that all know; say how much worse than the dense "
                "network a network may be, in its unit"
            )
        if len(set(self.objectives)) != len(self.objectives):
            raise ValueError("objectives: each can be named once")
        measured = {*n.COUNTED, *(one.column for one in self.goals)}
        measure = self.measure
        try:
            self.limits.check(measure)
        except ValueError as error:
            raise InputError(f"limits.{error}") from None
        if unmeasured := [name for name in self.limits.given if column_of(name, measure) not in measured]:
            raise InputError(f"limits: the study measures nothing that {unmeasured[0]} limits; add it to objectives")
        columns = [one.column for one in self.goals]
        if twice := [one for one in self.goals if columns.count(one.column) > 1]:
            raise ValueError(f"objectives: {twice[0].name} and {twice[1].name} fill one column; rename one")
        if self.finalists is not None and self.sweep is None:
            raise ValueError("finalists are chosen among the schedules of a sweep; give a sweep")
        for name, contrast in (self.contrasts or {}).items():
            for side in (contrast.left, contrast.right):
                where_of(side, self.arms, f"contrasts.{name}")
        return self

    @property
    def folder(self) -> Path:
        """Where the driver keeps its own files; the steps are there too, unless the storage is a URL."""
        return self._home or Path(LOCAL if is_url(self.storage) else self.storage) / self.name

    @property
    def place(self) -> Place:
        """Where the steps are, and copies of the driver's files: the folder, or a URL."""
        return self.place_of(self.folder)

    def place_of(self, folder: Path) -> Place:
        """The place of the steps if the driver's own files are in ``folder``, which may have been moved."""
        return f"{self.storage.rstrip('/')}/{self.name}" if is_url(self.storage) else folder

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives. Those of the user's own were imported, if they may be, when the study was validated."""
        return tuple(objective(name, self.measure, trusted=True) for name in self.objectives)

    @property
    def made_task(self) -> Task:
        """What networks are trained for."""
        return task_of(self.task, self.methods)

    @property
    def measure(self) -> Quality:
        """What the quality of networks is measured by."""
        return self.made_task.quality

    @property
    def drop(self) -> float:
        """How much worse than the dense network's the measure is at the hypervolume's reference."""
        return moved_drop(self.asked_drop, self.limits, self.measure)

    @property
    def asked_drop(self) -> float:
        """The same as ``reference`` has it, which limits may have moved."""
        return self.reference.drop or self.reference.accuracy_drop

    def named(self) -> list[str]:
        """All words of the study that may name a network or a method, defaults of its schedules included."""
        told = self.model_dump(mode="json", include={"model", "space", "sweep", "search", "storage_forms"})
        told["objectives"] = [one.target if isinstance(one, LatencyOn) else one.name for one in self.goals]
        others = (self.data.dataset, self.data.transforms, self.task.name, self.dense.optimizer)
        of_data = {name for name in others if name is not None}
        return sorted({*of_data, *_strings(told), *_strings([schedule.model_dump() for schedule in self.schedules()])})

    def own_code(self) -> list[str]:
        """The networks and methods of the user's own that the study names."""
        return [name for name in self.named() if own.is_own(name) and not is_torchvision(name)]

    def schedules(self, *, trusted: bool = False) -> list[Schedule]:
        """The schedules of a sweep, in order and each once; InputError if one of them is wrong.

        Methods of the user's own are imported if ``trusted``; once they have been, they are known.
        """
        entries = enumerate(self.sweep or ())
        found = itertools.chain.from_iterable(_expand(entry, f"sweep.{i}", trusted=trusted) for i, entry in entries)
        return list(dict.fromkeys(found))


def _strings(value: Any) -> Iterator[str]:
    """Every text in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _expand(entry: Mapping[str, Any], where: str, *, trusted: bool) -> Iterator[Schedule]:
    choices = {key: _choices(key, value, where) for key, value in entry.items()}
    for values in itertools.product(*choices.values()):
        fields = dict(zip(choices, values, strict=True))
        family = fields.get("family", n.UNSTRUCTURED)
        if not isinstance(family, str) or family not in FAMILIES:
            raise InputError(f"{where}.family: {family!r} is no family; {nearest(str(family), FAMILIES)}")
        yield parse(FAMILIES[family], {**fields, "family": family}, where, trusted=trusted)


def _choices(key: str, value: Any, where: str) -> Sequence[Any]:
    """A list is a choice; the levels of one schedule are a list themselves."""
    if value == []:
        raise InputError(f"{where}.{key}: [] leaves nothing to choose; give a value, or leave the key out")
    if key != "levels":
        return value if isinstance(value, list) else [value]
    choices = value if isinstance(value, list) and isinstance(value[0], list) else [value]
    if not all(isinstance(levels, list) and levels for levels in choices):
        raise InputError(f"{where}.levels: {value!r} cannot be used: give a list of sparsities, or a list of such lists")
    return [tuple(levels) for levels in choices]


def load_study(path: str | Path, overrides: Overrides = (), *, trusted: bool = False) -> Study:
    """The study in a YAML file, with overrides; InputError if anything is wrong with it.

    Methods of the user's own that it names are imported if ``trusted``.
    """
    raw = read_yaml(Path(path))
    for key, value in overrides.items() if isinstance(overrides, Mapping) else map(_override, overrides):
        _put(raw, key, value)
    study = parse(Study, raw, str(path), trusted=trusted)
    _check_fresh(study, study.schedules(trusted=trusted))
    return study


def _check_fresh(study: Study, schedules: Sequence[Schedule]) -> None:
    """InputError if a schedule is wrong, nothing competes to be a finalist, or they would run on a seed that chose them."""
    if study.finalists is None:
        return
    if not any(study.finalists.compete(schedule) for schedule in schedules):
        raise InputError(
            f"finalists.family: no schedule of the sweep is {study.finalists.family} and pruned from a trained network; "
            "add some, or leave the finalists out"
        )
    chosen_by = {schedule.seed for schedule in schedules if schedule.family == study.finalists.family}
    if used := [seed for seed in study.finalists.seeds if seed in chosen_by]:
        fresh = [max(chosen_by) + i for i in range(1, 4)]
        raise InputError(
            f"finalists.seeds: the sweep chooses on {used} too; give seeds that its {study.finalists.family} schedules "
            f"don't have, such as {fresh}"
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping of plain data."""
    try:
        return _mapping(read(path), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such study file; presets are in search/studies/") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error}); give a YAML file") from None


def _mapping(content: bytes, path: str) -> dict[str, Any]:
    """The mapping of plain data that YAML from ``path`` holds."""
    try:
        raw = parse_yaml(content.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: can't be read ({error}); give a YAML file") from None
    except ValueError as error:
        raise InputError(f"{path}: is not valid YAML ({error}); correct it") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: holds {type(raw).__name__}, not keys and values; see search/studies/ for examples")
    return raw


def _override(override: str) -> tuple[str, Any]:
    return key_and_value(override, "--set", "search.trials=20")


def key_and_value(given: str, option: str, example: str) -> tuple[str, Any]:
    """``key=value`` of a command line, its value as YAML reads it; InputError if it isn't that."""
    key, equals, text = given.partition("=")
    if not equals or not key:
        raise InputError(f"{option} {given!r}: is not key=value, for example {option} {example}")
    try:
        return key, parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{option} {given!r}: the value is not valid YAML ({error}); quote it") from None


def _put(raw: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for section in sections:
        if not isinstance(raw.get(section), dict):
            raw[section] = {}
        raw = raw[section]
    raw[key] = value


def to_yaml(study: Study) -> str:
    """The study with every default written out."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, width=120)


OF_ANY_STUDY = (n.STEPS_FOLDER, n.LATENCY_FOLDER, n.LOCK_FILE, n.SNAPSHOT_FILE)
"""What may lie in a folder without a study file: it is right, or without meaning, whatever the study is."""


def check_folder(study: Study, *, trusted: bool = False) -> None:
    """InputError if the study's folder or URL holds other settings, or can't be written."""
    folder, written = study.folder, study.folder / n.STUDY_FILE
    if folder.is_dir():
        check_links(folder)
    if written.exists():
        before = parse(Study, read_yaml(written), str(written), trusted=trusted)
        check_same(before, study, str(folder))
        if before.storage != study.storage and (is_url(before.storage) or is_url(study.storage)):
            raise InputError(
                f"storage: {study.storage!r}, but {folder} belongs to a study with its steps in {before.storage!r}; "
                f"choose another `name`, or move {folder} away"
            )
    elif folder.is_file() or (folder.is_dir() and any(path.name not in OF_ANY_STUDY for path in folder.iterdir())):
        raise InputError(f"storage: {folder} is not empty and holds no study; choose another `name` or `storage`")
    Folder(folder).check()
    if is_url(study.place):
        remote = open_storage(study.place)
        remote.check()
        if content := remote.read(n.STUDY_FILE):
            file = f"{study.place}/{n.STUDY_FILE}"
            check_same(parse(Study, _mapping(content, file), file, trusted=trusted), study, str(study.place))


OF_PLACE = ("data.root", "model.checkpoint", "resources", "keep", "storage", "reuse", "search")
"""What may differ when a study that has been run is looked at: nothing on record means something else for it.

Data and checkpoint may have moved: what they hold is part of the dense network's address, and is compared there.
"""
MAY_CHANGE = (*OF_PLACE, "space", "objectives", "reference", "latency", "limits", "arms", "contrasts", "seeds")
"""What a study may be continued with: every step on record stays what it is, and the sampler is told of it anew.

A sampler is made afresh for each ask, from what it was told, so that it too may be another.
"""


def check_same(
    before: Study, study: Study, where: str, remedy: str = "choose another `name`, or remove it",
    may_differ: Sequence[str] = MAY_CHANGE,
) -> None:  # fmt: skip
    """InputError if the study differs in more than in what may differ: that with which it may be continued.

    A sweep without finalists, which come after its schedules, may grow at its end: the numbers of those before stay.
    """
    if may_differ is MAY_CHANGE and before.sweep and study.sweep and study.finalists is None:
        study = study.model_copy(update={"sweep": study.sweep[: len(before.sweep)]})
    for key, (old, new) in _differences(before.model_dump(mode="json"), study.model_dump(mode="json"), may_differ):
        raise InputError(f"{key}: {new!r}, but {where} holds a study with {old!r}; {remedy}")


def _differences(old: Any, new: Any, may_differ: Sequence[str], path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    if path in may_differ or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), may_differ, f"{path}.{key}".lstrip("."))
    elif path == "sweep" and isinstance(old, list) and isinstance(new, list):  # as a whole it would fill the screen
        for i, (one, other) in enumerate(itertools.zip_longest(old, new)):
            yield from _differences(one, other, may_differ, f"{path}.{i}")
    else:
        yield path, (old, new)


def describe() -> Iterator[tuple[str, str]]:
    """(key, explanation and default) of every field that a study file can hold, for ``--help``."""
    yield from _describe(Study, "")
    for family, kind in FAMILIES.items():
        for name, field in kind.model_fields.items():
            if name != "family":
                yield f"sweep.N.{name} ({family})", _explain(field)


def _describe(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in kind.model_fields.items():
        nested = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_section(a)]
        if nested:
            yield from _describe(nested[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _explain(field)


def _explain(field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"default {yaml_inline(field.get_default())}"
    return f"{field.description or ''} [{default}]"


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def yaml_inline(value: Any) -> str:
    """A default as it would be written in a study file."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
