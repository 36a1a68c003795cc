"""A stored network as objectives measure it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from trainables.data.dataset import Data
from trainables.measuring.footprint import Footprint
from trainables.measuring.timing import LARGE_BATCH, Timing, measure
from trainables.records.names import InputError
from trainables.records.objectives import Objective
from trainables.records.points import value_problem
from trainables.settings import one_line
from trainables.training.feeding import tensors
from trainables.training.loop import Judged, judge

SOURCES = "sources"
"""The key of a record that tells, for each column of an objective of the user's own, the code that measured it."""


@dataclass
class Stored:
    """A network as stored: read back, in fp32 (see ``trainables.records.objectives.Context``)."""

    model: nn.Module
    data: Data
    device: str
    threads: int
    counts: Footprint
    content: bytes
    dense: Mapping[str, Any] | None
    timings: list[Timing] = field(default_factory=list)
    """what was timed, in order"""

    def evaluate(self) -> float:
        """The task's measure on the validation images."""
        return self._judged.value

    def error(self) -> float:
        """Its standard error."""
        return self._judged.error or 0.0

    @cached_property
    def _judged(self) -> Judged:
        data, counted = self.data, self.data.task.quality.counted
        split = tensors(data.validation_images, data.validation_labels, self.device)
        return judge(self.model, *split, data, self.device, error=not counted)

    def milliseconds(self, batch: int | None = None) -> float:
        """Median of one forward pass of a batch, or of LARGE_BATCH."""
        model = self.model.to(self.device)
        self.timings.append(measure(model, self.data.shape, batch or LARGE_BATCH, self.threads))
        return self.timings[-1].median_ms


def judged(objectives: Iterable[Objective], stored: Stored, record: Mapping[str, Any]) -> dict[str, Any]:
    """What objectives measure, and by which code those of the user's own did; ``record`` is what there was before."""
    columns, sources = dict[str, Any](), dict(record.get(SOURCES, {}))
    for one in objectives:
        columns |= measured(one, stored)
        if one.source is not None:
            sources[one.column] = one.source
    return columns | ({SOURCES: sources} if sources else {})


def lacks(record: Mapping[str, Any], objective: Objective) -> bool:
    """Whether a record has no value on an objective, or one that other code measured."""
    sources = record.get(SOURCES)
    by = sources.get(objective.column) if isinstance(sources, dict) else None
    columns = (objective.column, *objective.fills)
    return by != objective.source or any(record.get(column) is None for column in columns)


def measured(objective: Objective, stored: Stored) -> dict[str, Any]:
    """The columns that an objective fills; InputError if code of the user's own fails, or measures what is no value."""
    if objective.source is None:
        return {objective.column: objective.measure(stored), **objective.beside(stored)}
    try:
        stored.model.eval()
        value = float(objective.measure(stored))
    except Exception as error:  # what code of the user's own raises can be anything
        raise InputError(f"objectives: {objective.name!r} can't be measured ({one_line(error)}); correct it") from error
    if problem := value_problem(objective, value):
        raise InputError(f"objectives: {objective.name!r}: {objective.column} {problem}; correct what it measures")
    return {objective.column: value}
