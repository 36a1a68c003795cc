"""A study's folder read into frames. It may come from anyone, so everything is checked on the way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

import trainables.records.names as n
from analysis.columns import frame, known
from trainables.records.jsonl import read_rows
from trainables.records.limits import Limits, moved_drop
from trainables.records.methods import MEASURE, labels_of, measure_of, objective_of, read_methods
from trainables.records.objectives import ACCURACY, OBJECTIVES, Objective, Quality, columns_of
from trainables.records.points import LARGEST, fault_of, format_of
from trainables.records.untrusted import check_links, parse_json, parse_yaml, read

TIMES = (n.LATENCY, n.LATENCY_LARGE, n.LATENCY_DENSE, n.LATENCY_LARGE_DENSE)


@dataclass(frozen=True, eq=False)
class Study:
    """What a study wrote: its settings, where it ran, and one row for every step of every trial."""

    folder: Path
    text: str
    """study.yaml as it stands on disk"""
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    points: pd.DataFrame
    trials: pd.DataFrame
    objectives: tuple[Objective, ...]
    """in the study's order"""
    measure: Quality = ACCURACY
    """what the quality of networks is measured by"""

    @property
    def name(self) -> str:
        """The study's name, or its folder's."""
        return n.printable(str(self.settings.get("name") or self.folder.resolve().name))

    @property
    def accuracy_drop(self) -> float:
        """How much worse than the dense network's the measure is at the hypervolume's reference (0.1 = 10 points)."""
        return moved_drop(float(_accuracy_drop(self.settings)), self.limits, self.measure)

    @cached_property
    def limits(self) -> Limits:
        """What the study file limits."""
        return _limits(self.settings, self.folder / n.STUDY_FILE, self.measure)

    @cached_property
    def retrainings(self) -> Mapping[str, str]:
        """What retrainings are called, by name; nothing in folders that were written before methods were described."""
        return labels_of(n.RETRAIN, read_methods(self.folder / n.METHODS_FILE))

    @property
    def forms(self) -> tuple[str, ...]:
        """The stored forms that networks were measured in."""
        return tuple(_forms(self.settings))

    @property
    def compact(self) -> bool:
        """Whether the bytes are of compact files."""
        return format_of(self.forms) == n.COMPACT

    @cached_property
    def dense(self) -> pd.DataFrame:
        """The dense networks in files of their own, which all are compared with: one row for each seed."""
        return dense_rows(self.points)

    @cached_property
    def dense_forms(self) -> pd.DataFrame:
        """The dense networks as they compete: in each stored form, one row for each seed."""
        rows = self.points[(self.points[n.FAMILY] == n.DENSE) & (self.points[n.STORED_FORMAT] == format_of(self.forms))]
        return rows.drop_duplicates([n.SEED, n.FORM], keep="last").reset_index(drop=True)

    @cached_property
    def pruned(self) -> pd.DataFrame:
        """Every pruned network once in each stored form, in the order in which the trials met them."""
        return pruned_rows(self.points)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """Every pruned network once, in the first of its stored forms."""
        return self.pruned[self.pruned[n.FORM] == self.forms[0]].reset_index(drop=True)


def load_study(folder: str | Path) -> Study:
    """Read results/<study>/; an InputError says in one line what is missing or broken."""
    folder = Path(folder)
    if not folder.is_dir():
        raise n.InputError(f"{folder}: no such folder; give the folder of a study, results/<study>")
    check_links(folder)
    text = _read_text(folder / n.STUDY_FILE)
    settings = _settings(text, folder / n.STUDY_FILE)
    measure = measure_in(folder)
    _limits(settings, folder / n.STUDY_FILE, measure)
    objectives = _objectives(settings["objectives"], folder, measure)
    points = of_format(load_points(folder, objectives, measure), format_of(_forms(settings)))
    if pruned_rows(points).empty:
        raise n.InputError(f"{folder / n.POINTS_FILE}: no pruned network in the study's storage_forms; run the study")
    return Study(folder, text, settings, _provenance(folder), points, _trials(folder), objectives, measure)


def load_points(folder: str | Path, objectives: Sequence[Objective] = (), measure: Quality = ACCURACY) -> pd.DataFrame:
    """All lines of a study's points.jsonl, found again or not, typed, in file order, with the columns of ``objectives``."""
    path = Path(folder) / n.POINTS_FILE
    if not path.is_file():
        raise n.InputError(f"{path}: no such file; run the study first")
    rows = read_rows(path, lambda row: fault_of(row, objectives=objectives, measure=measure))
    told = (measure, *objectives)
    points = frame([known(row, columns_of(told)) for _, row in rows], told)
    if pruned_rows(points).empty:
        raise n.InputError(f"{path}: no pruned network yet; run the study, or let it go on")
    lacking = set(points[n.SEED]) - set(dense_rows(points)[n.SEED])
    if lacking:
        raise n.InputError(f"{path}: no dense network of seed {min(lacking)} to compare with; run the study again")
    return points


def of_format(points: pd.DataFrame, stored_format: str) -> pd.DataFrame:
    """The points in files of one format, for bytes of two can't be compared, and all rows of the dense networks."""
    return points[(points[n.FAMILY] == n.DENSE) | (points[n.STORED_FORMAT] == stored_format)].reset_index(drop=True)


def dense_rows(points: pd.DataFrame) -> pd.DataFrame:
    """The rows of the dense networks in files of their own, the last of each seed."""
    own = points[(points[n.FAMILY] == n.DENSE) & (points[n.STORED_FORMAT] == n.SAFETENSORS)]
    return own.drop_duplicates(n.SEED, keep="last").reset_index(drop=True)


def pruned_rows(points: pd.DataFrame) -> pd.DataFrame:
    """The rows of the pruned networks, each form of a step once: its first row, unless a later one was timed."""
    pruned = points[points[n.FAMILY] != n.DENSE]
    # All of them from one row, because the dense network's belong to the point's.
    timed = pruned[pruned[n.LATENCY].notna()].drop_duplicates(n.STEP_ID).set_index(n.STEP_ID)[list(TIMES)]
    once = pruned.drop_duplicates([n.STEP_ID, n.FORM]).reset_index(drop=True)
    times = timed.reindex(once[n.STEP_ID]).reset_index(drop=True)
    return once.assign(**{str(column): times[column] for column in times})


def _settings(text: str, path: Path) -> dict[str, Any]:
    try:
        settings = parse_yaml(text)
    except ValueError as error:
        raise n.InputError(f"{path}: no valid YAML ({error}); repair it") from None
    settings = settings if isinstance(settings, dict) else {}
    objectives = settings.get("objectives")
    if not _are_names(objectives):
        raise n.InputError(
            f"{path}: objectives: {objectives!r} cannot be used; list two or three of {', '.join(OBJECTIVES)}"
        )
    drop = _accuracy_drop(settings)
    of_accuracy = _reference(settings).get("drop") is None
    most = 1 if of_accuracy else LARGEST
    if isinstance(drop, bool) or not isinstance(drop, int | float) or not 0 < drop <= most:
        what, give = ("accuracy_drop", "a share above 0, up to 1") if of_accuracy else ("drop", "a number above 0")
        raise n.InputError(f"{path}: reference.{what}: {drop!r} cannot be used; give {give}")
    if not _are_texts(_forms(settings)):
        raise n.InputError(f"{path}: storage_forms: {_forms(settings)!r} cannot be used; list stored forms, each once")
    return settings


def _limits(settings: Mapping[str, Any], path: Path, measure: Quality) -> Limits:
    try:
        limits = Limits.model_validate(settings.get("limits") or {})
        limits.check(measure)
        return limits
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(["limits", *map(str, wrong["loc"])])
        told = wrong["msg"].removeprefix("Value error, ")
        raise n.InputError(f"{path}: {field}: {told}; correct it") from None
    except ValueError as error:
        raise n.InputError(f"{path}: limits.{error}; correct it") from None


def _forms(settings: Mapping[str, Any]) -> Any:
    return settings.get("storage_forms", [n.FP32])


def _are_texts(value: Any) -> bool:
    texts = isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
    return texts and len(set(value)) == len(value)


def _are_names(value: Any) -> bool:
    return _are_texts(value) and 2 <= len(value) <= 3


def measure_in(folder: Path) -> Quality:
    """What the quality of networks is measured by: accuracy, unless the folder describes something else."""
    path = folder / n.METHODS_FILE
    try:
        return measure_of(read_methods(path).get(MEASURE, {}))
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"]))
        raise n.InputError(f"{path}: {MEASURE}: {field}: {wrong['msg']}; run the study again") from None


def _objectives(names: Sequence[str], folder: Path, measure: Quality) -> tuple[Objective, ...]:
    """The objectives, those that aren't ours as ``methods.json`` describes them."""
    path = folder / n.METHODS_FILE
    methods, found = read_methods(path), []
    for name in names:
        objective = measure if name == measure.name else objective_of(name, methods, path)
        if objective is None:
            raise n.InputError(
                f"{folder / n.STUDY_FILE}: objectives: {name!r} cannot be used: it is none of {', '.join(OBJECTIVES)}, and "
                f"{n.METHODS_FILE} doesn't describe it; run the study again"
            )
        found.append(objective)
    return tuple(found)


def _accuracy_drop(settings: Mapping[str, Any]) -> Any:
    section = _reference(settings)
    drop = section.get("drop")
    return section.get("accuracy_drop", n.REFERENCE_ACCURACY_DROP) if drop is None else drop


def _reference(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    section = settings.get("reference")
    return section if isinstance(section, dict) else {}


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / n.PROVENANCE_FILE
    if not path.is_file():
        return {}
    try:
        provenance = parse_json(_read_text(path))
    except ValueError as error:
        raise n.InputError(f"{path}: no valid JSON ({error}); repair or remove the file") from None
    return provenance if isinstance(provenance, dict) else {"value": provenance}


def _trials(folder: Path) -> pd.DataFrame:
    path = folder / n.TRIALS_FILE
    records = [_trial(record, f"{path}, line {number}") for number, record in read_rows(path)]
    trials = pd.DataFrame([{column: r.get(column) for column in n.TRIAL_COLUMNS} for r in records], columns=n.TRIAL_COLUMNS)
    # A trial that was taken up again has a line for each attempt; the last one tells how it ended.
    return trials.astype({n.TRIAL: "object"}).drop_duplicates(n.TRIAL, keep="last").reset_index(drop=True)


def _trial(record: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    kinds = {n.TRIAL: int, n.STATE: str, n.REASON: str | None}
    if wrong := next((name for name, kind in kinds.items() if not isinstance(record.get(name), kind)), None):
        raise n.InputError(f"{where}: {wrong}: {record.get(wrong)!r} cannot be used; repair or remove the line")
    return record


def _read_text(path: Path) -> str:
    try:
        return read(path).decode()
    except FileNotFoundError:
        raise n.InputError(f"{path}: no such file; give the folder of a study that has been run") from None
    except UnicodeDecodeError:
        raise n.InputError(f"{path}: no UTF-8 text; restore the file that the study wrote") from None
    except OSError as error:
        raise n.InputError(f"{path}: cannot be read ({error.strerror}); restore the file that the study wrote") from None
