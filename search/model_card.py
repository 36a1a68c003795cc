"""The model card of an exported file: what it holds, how it came about, and how to use it and make it again."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from search.study import Study
from trainables.exporting.base import Format
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.confirmation import Member
from trainables.records.jsonl import Row
from trainables.records.objectives import Quality
from trainables.records.points import point_id
from trainables.records.words import recipe
from trainables.training.retraining import RETRAININGS

PACKAGES = ("torch", "torch-pruning", "onnx", "onnxruntime")
MEASURES = (
    (n.SPARSITY, "sparsity", "{:.1%}"), (n.COMPRESSION, "compression", "{:.2f}×"), (n.PARAMS, "parameters", "{:,}"),
    (n.MACS, "MACs of one image", "{:,}"), (n.LATENCY, "latency at batch 1, PyTorch", "{:.3f} ms"),
)  # fmt: skip
SAME_RECIPE = (n.TRIAL, n.STEP_ID, n.PARENT_ID, n.SEED)
"""Where runs of one recipe with other seeds differ before anything is measured."""


@dataclass(frozen=True)
class Exported:
    """What a card tells of: a point of a study, the dense network that it was pruned from, and the file it went to."""

    point: Row
    dense: Row
    study: Study
    folder: Path
    problem: Problem
    format: Format
    file: Path
    again: Member | None = None
    """the same recipe on fresh seeds, if it ran on some"""


def about(point: Row, folder: Path, measure: Quality) -> dict[str, Any]:
    """Which point a file holds, and what was measured of it; what formats put into their metadata."""
    names = (measure.column, measure.test, *(name for name, *_ in MEASURES))
    measures = {name: point[name] for name in names if point.get(name) is not None}
    return {"study": folder.name, "point": point_id(point), "recipe": described(point), "measures": measures}


def described(point: Row) -> str:
    """How a network was pruned, in words."""
    if point.get(n.STEP) is None:
        return "a step that no trial on record names"
    if not point[n.STEP]:
        return "the dense network, not pruned"
    retrain = str(point.get(n.RETRAIN))
    labels = {retrain: RETRAININGS[retrain].described()["label"]} if retrain in RETRAININGS else {}
    return f"{point[n.FAMILY]}: {recipe(point, labels)}"


def card(exported: Exported, notes: Sequence[str], size: int, alike: Iterable[Row]) -> str:
    """The card, in Markdown; ``alike`` are points of the same recipe from other seeds, its own among them."""
    return "\n".join(
        [
            f"# {exported.file.name}", "", *_numbers(exported, size, list(alike)), "", *[f"- {note}" for note in notes],
            "", "## Recipe", "", *_recipe(exported), "", "## Data", "", *_data(exported.problem), "",
            "## Use", "", "```python", exported.format.usage(exported.file.name, exported.problem), "```", "",
            "## Make it again", "", *_again(exported), "",
        ]
    )  # fmt: skip


def _numbers(exported: Exported, size: int, alike: Sequence[Row]) -> list[str]:
    point, dense, count = exported.point, exported.dense, len(exported.problem.data.validation_labels)
    measure = exported.study.measure
    lines = ["| | this network | dense network |", "|---|---|---|"]
    for name, where in ((measure.column, "validation"), (measure.test, "test")):
        if point.get(name) is not None:
            before = measure.told(dense[name]) if dense.get(name) is not None else ""
            lines.append(f"| {measure.name}, {where} | {measure.told(point[name])} | {before} |")
    for name, label, how in MEASURES:
        if point.get(name) is not None:
            before = how.format(dense[name]) if dense.get(name) is not None else ""
            lines.append(f"| {label} | {how.format(point[name])} | {before} |")
    lines.append(f"| bytes of this file ({exported.format.name}) | {size:,} | |")
    if (value := point.get(measure.column)) is None:
        return [*lines, "", "Nothing was measured of this stored form."]
    noise = math.sqrt(value * (1 - value) / count) if measure.counted else point.get(measure.error)
    if noise is not None:
        told = measure.told_drop(round(noise, 4))
        lines += ["", f"The standard error of the {measure.name} on {count:,} validation images is {told} here."]
    if len(alike) > 1:
        found = [row[measure.column] for row in alike]
        mean, spread = measure.told(float(np.mean(found))), measure.told_drop(round(float(np.std(found, ddof=1)), 4))
        lines.append(f"The same recipe with {len(alike)} seeds: {mean} on average, standard deviation {spread}.")
    if exported.again is not None:
        lines.append(exported.again.told(measure))
    if point.get(measure.test) is None:
        lines.append(
            "It was chosen on these validation images, and looks better on them than it is; the test split is unopened."
        )
    return lines


def _recipe(exported: Exported) -> list[str]:
    study, problem, point = exported.study, exported.problem, exported.point
    arguments = json.dumps(dict(study.model.arguments))
    start = f"from {study.model.checkpoint or study.model.weights}" if problem.given else f"{study.dense.epochs} epochs"
    return [
        f"- Network: `{study.model.name}`, arguments `{arguments}`; dense training: {start}.",
        f"- Pruned: {described(point)}.",
        f"- Seed {point[n.SEED]}; precision {problem.precision}, {problem.threads} threads, {problem.device}.",
    ]


def _data(problem: Problem) -> list[str]:
    data = problem.data
    return [
        f"- {len(data.train_labels):,} training and {len(data.validation_labels):,} validation images of "
        f"{'x'.join(map(str, data.shape))} (channels, height, width); fingerprint `{data.fingerprint}`.",
        f"- Prepared so: `{json.dumps(data.preparation)}`; mean {list(data.mean)} and standard deviation {list(data.std)} "
        "by channel.",
        f"- Classes, in order: {', '.join(data.classes)}.",
    ]


def _again(exported: Exported) -> list[str]:
    options = [f"--option {name}={_plain(value)}" for name, value in _settings(exported.format).items()]
    command = [
        "python -m search export", shlex.quote(str(exported.folder)), f"--point {point_id(exported.point)}",
        f"--format {exported.format.name}", *options, f"--to {shlex.quote(exported.file.name)}",
    ]  # fmt: skip
    versions = [f"{name} {found}" for name in PACKAGES if (found := _version(name))]
    return [
        f"    {' '.join(command)}", "",
        f"Step `{exported.point[n.STEP_ID]}` of study `{exported.study.name}`, data set `{exported.study.data.dataset}`; "
        f"the study's folder has its study file and its provenance. Written with {', '.join(versions)}.",
    ]  # fmt: skip


def _settings(chosen: Format) -> Mapping[str, Any]:
    """The settings that were given, or aren't as usual; the stored form is part of the point's name."""
    return {name: value for name, value in chosen.model_dump(exclude_defaults=True).items() if name != n.FORM}


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


def of_other_seeds(point: Row, points: Iterable[Row]) -> list[Row]:
    """One point a seed of the recipe of ``point``, as far as they were measured."""
    found: dict[int, Row] = {point[n.SEED]: point}
    if point.get(n.STEP):
        for row in points:
            if row[n.STEP] and all(row.get(name) == point.get(name) for name in _recipe_columns()):
                found.setdefault(row[n.SEED], row)
    return list(found.values())


def _recipe_columns() -> Sequence[str]:
    names = n.POINT_COLUMNS[: n.POINT_COLUMNS.index(n.EPOCHS)]
    return [name for name in names if name not in SAME_RECIPE]
