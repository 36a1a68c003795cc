"""``methods.json``: the methods of a study, for those who can't import their classes: kind -> name -> description.

What a task measures is described in the same way, there and in the records of steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables.records import names as n
from trainables.records.objectives import ACCURACY, OBJECTIVES, Described, Description, Objective, Quality, latency_on
from trainables.records.untrusted import parse_json, read

OBJECTIVE_KIND = "objectives"
SOURCE = "source"
"""The key of a description that holds the hash of its code; null for a method of this program."""
MEASURE = "measure"
"""The key of a record, and the kind of a method, that tell what the quality of networks is measured by; not of accuracy."""

Methods = Mapping[str, Mapping[str, Mapping[str, Any]]]


def to_text(methods: Methods) -> str:
    """The file's content."""
    return json.dumps(methods, indent=1, allow_nan=False) + "\n"


def read_methods(path: Path) -> Methods:
    """What a study's folder says of its methods; nothing where there is no file, as in old folders."""
    try:
        found = parse_json(read(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise n.InputError(f"{path}: can't be read ({error}); run the study again, which writes it anew") from None
    if not _mapping(found) or not all(_mapping(kind) and all(map(_mapping, kind.values())) for kind in found.values()):
        raise n.InputError(f"{path}: is no mapping of kinds to names to descriptions; run the study again")
    return dict(found)


def labels_of(kind: str, methods: Methods) -> dict[str, str]:
    """What reports call the methods of a kind, by name."""
    told = ((name, described.get("label")) for name, described in methods.get(kind, {}).items())
    return {name: n.printable(label) for name, label in told if isinstance(label, str)}


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def objective_of(name: str, methods: Methods, where: Path) -> Objective | None:
    """The objective of this name: ours, or as the study's folder describes it; None if neither knows it."""
    described = methods.get(OBJECTIVE_KIND, {}).get(name)
    if (ours := OBJECTIVES.get(name) or latency_on(name)) or described is None:
        return ours
    try:
        return Described(n.printable(name), Description.model_validate(described))
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"]))
        raise n.InputError(f"{where}: {OBJECTIVE_KIND}.{name}.{field}: {wrong['msg']}; run the study again") from None


class QualityDescription(Description):
    """What is on record of a measure. A range that has no end has null there."""

    low: float | None = None
    high: float | None = None
    counted: bool = False


class Measure(Described, Quality):
    """A measure as it is described; what computes it is its task."""

    def __init__(self, name: str, described: QualityDescription) -> None:
        super().__init__(name, described)
        self.low = -math.inf if described.low is None else described.low
        self.high = math.inf if described.high is None else described.high
        self.counted, self.slack = described.counted, None
        self.fills = () if self.counted else (self.error,)

    measure = Quality.measure

    def describe(self) -> dict[str, Any]:
        """What those need who can't import the task."""
        ends = {"low": self.low, "high": self.high}
        return {
            **{name: getattr(self, name) for name in Description.model_fields},
            **{name: value if math.isfinite(value) else None for name, value in ends.items()},
            "counted": self.counted,
        }


def measure_of(described: Mapping[str, Any]) -> Quality:
    """The measure as it was described, accuracy without anything; pydantic's ValidationError if it can't be one."""
    for name, fields in described.items():
        return Measure(name, QualityDescription.model_validate(fields))
    return ACCURACY


def described(measure: Quality) -> dict[str, dict[str, Any]]:
    """name -> description, for ``measure_of``; nothing for accuracy, which all know."""
    return {} if measure.name in OBJECTIVES else {measure.name: measure.describe()}
