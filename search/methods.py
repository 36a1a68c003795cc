"""All methods that a study can name, as tables for people and for reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search.sampling.samplers import SAMPLERS
from search.study import Study, describe
from trainables.data.sets.registry import DATASETS
from trainables.exporting.formats import FORMATS
from trainables.forms.forms import FORMS
from trainables.measuring.runtimes import TARGETS
from trainables.methods import Method, Registry
from trainables.pruning.channel_importances import CHANNEL_IMPORTANCES
from trainables.pruning.channel_scopes import CHANNEL_SCOPES
from trainables.pruning.levels import LEVELS
from trainables.pruning.pruners import PRUNERS
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES
from trainables.records import names as n
from trainables.records.methods import MEASURE, OBJECTIVE_KIND
from trainables.records.methods import described as of_measure
from trainables.records.objectives import OBJECTIVES
from trainables.tasks.registry import TASKS
from trainables.training.optimizers import OPTIMIZERS
from trainables.training.retraining import RETRAININGS

REGISTRIES: Mapping[str, Registry[Any]] = {
    "importance of weights": WEIGHT_IMPORTANCES,
    "scope, unstructured": WEIGHT_SCOPES,
    "importance of channels": CHANNEL_IMPORTANCES,
    "scope, structured": CHANNEL_SCOPES,
    "pruner, structured": PRUNERS,
    "schedule": LEVELS,
    "retraining": RETRAININGS,
    "optimizer": OPTIMIZERS,
    "sampler": SAMPLERS,
    "data set": DATASETS,
    "task": TASKS,
    "stored form": FORMS,
    "export format": FORMATS,
    "latency target": TARGETS,
}
"""Every kind of method, in the words of the documentation."""

OF_A_SCHEDULE = {n.EPOCHS, *LEVELS.settings(), "dataset", "function"}
"""Settings that a schedule gives, or a name, and no section of a study file."""


def table() -> Iterator[str]:
    """The lines of the table of methods in docs/methods.md."""
    yield "| kind | name | what it does | settings | source |"
    yield "|---|---|---|---|---|"
    for kind, registry in REGISTRIES.items():
        for name, method in registry.items():
            settings = ", ".join(f"`{key}`" for key in method.model_fields if key not in OF_A_SCHEDULE)
            about = method.line().replace("|", "\\|").replace("``", "`")
            yield f"| {kind} | `{name}` | {about} | {settings} | {method.source} |"
            kind = ""  # noqa: PLW2901 - told once
    for kind, one in zip(("objective", *[""] * len(OBJECTIVES)), OBJECTIVES.values(), strict=False):
        yield f"| {kind} | `{one.name}` | {one.__doc__} |  |  |"


def keys() -> Iterator[str]:
    """The lines of docs/study_keys.md: every key of a study file, by section."""
    yield "# Keys of a study file"
    yield ""
    yield "Made by `python -m search methods --keys`. `--set key=value` overrides one. What ran, with every"
    yield "default, is in `results/<study>/study.yaml`."
    sections: dict[str, list[str]] = {}
    for key, text in describe():
        told = text.replace("|", "\\|").replace("<", "&lt;")
        section = key.partition(".")[0] if "." in key else "The study itself"
        sections.setdefault(section, []).append(f"| `{key}` | {told} |")
    for section, lines in sections.items():
        yield from ("", f"## {section}", "", "| key | meaning |", "|---|---|", *lines)


def described(study: Study) -> dict[str, dict[str, Any]]:
    """What reports say of a study's methods: kind -> name -> what it is."""
    found: dict[str, dict[str, Any]] = {OBJECTIVE_KIND: {one.name: one.describe() for one in study.goals}}
    if measure := of_measure(study.measure):
        found[MEASURE] = measure
    named = set(study.named())
    for registry in REGISTRIES.values():
        methods: dict[str, type[Method]] = {name: registry[name] for name in sorted(named) if name in registry}
        found.setdefault(registry.field, {}).update((name, method.described()) for name, method in methods.items())
    return found
