"""Schedules of sparsity: which share each step of a chain asks for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from trainables.methods import Method, Registry
from trainables.records import names as n

PARTS_PER_MILLION = 1_000_000
"""Targets are integers, so that equal levels share a step; floats differ in the last digit."""
MOST_STEPS = 1000

Sparsity = Annotated[float, Field(ge=1 / PARTS_PER_MILLION, lt=1)]


def _nothing_or_something(level: float) -> float:
    if 0 < level < 1 / PARTS_PER_MILLION:
        raise ValueError("is less than a millionth; give more, or 0 for a step that removes nothing")
    return level


Level = Annotated[float, Field(ge=0, lt=1), AfterValidator(_nothing_or_something)]
"""A sparsity, or 0: such a step retrains what there is, and is the control of those that cut."""
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]


class Levels(Method):
    """The sparsity of each step. Its fields are those of a schedule that it depends on."""

    @abstractmethod
    def sparsities(self) -> Sequence[float]:
        """The sparsity of each step, rising, below 1."""


class Geometric(Levels):
    """The same share of what remains, each step; its beginnings are geometric schedules too, so it alone is searched."""

    name = "geometric"
    step_ratio: Sparsity = Field(description="geometric: share of what remains that one step removes")
    steps: Steps = Field(1, description="number of steps; 1 is one-shot")

    def sparsities(self) -> Sequence[float]:
        """1 − (1 − step_ratio)^k."""
        return [1 - (1 - self.step_ratio) ** k for k in range(1, self.steps + 1)]


class Linear(Levels):
    """Equal shares of the dense network, each step."""

    name = "linear"
    sparsity: Sparsity = Field(description="linear and cubic: the sparsity of the last step")
    steps: Steps = Field(1, description="number of steps; 1 is one-shot")

    def sparsities(self) -> Sequence[float]:
        """sparsity · k / steps."""
        return [self.sparsity * k / self.steps for k in range(1, self.steps + 1)]


class Cubic(Levels):
    """Automated gradual pruning (AGP): fast at first, gentle at the end."""

    name, source = "cubic", "Zhu and Gupta 2017, arXiv:1710.01878"
    sparsity: Sparsity = Field(description="linear and cubic: the sparsity of the last step")
    steps: Steps = Field(1, description="number of steps; 1 is one-shot")

    def sparsities(self) -> Sequence[float]:
        """sparsity · (1 − (1 − k / steps)³)."""
        return [self.sparsity * (1 - (1 - k / self.steps) ** 3) for k in range(1, self.steps + 1)]


class Explicit(Levels):
    """A list of levels; as many steps as it has."""

    name = "explicit"
    levels: tuple[Level, ...] = Field(
        min_length=1, description="explicit: the sparsity of each step, rising; 0 retrains what there is, as a control"
    )
    steps: Steps = Field(1, description="number of steps; 1 is one-shot")

    def sparsities(self) -> Sequence[float]:
        """As listed."""
        return self.levels


LEVELS = Registry[Levels](n.SCHEDULE, Levels, (Geometric, Linear, Cubic, Explicit))
