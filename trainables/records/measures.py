"""What a task measures, for those who can't import its class: described in ``methods.json`` and in records of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainables.records.objectives import ACCURACY, OBJECTIVES, Described, Description, Quality

MEASURE = "measure"
"""The key of a record, and the kind of a method, that tell what the quality of networks is measured by; not of accuracy."""


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
