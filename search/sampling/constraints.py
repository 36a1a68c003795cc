"""A study's limits as constraints of Optuna's rows: of rows that are added, Optuna calls nobody's function for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainables.records import names as n
from trainables.records.fronts import best_of
from trainables.records.limits import Limits, excesses, within
from trainables.records.objectives import Quality

EXCESS = "excess"
"""User attribute of a row: how far each of a step's stored forms is beyond each limit."""

Constraints = Callable[[Mapping[str, Any]], Mapping[str, float]]
"""From a point to how far it is beyond each limit; 0 or less is within."""


def no_constraints(_point: Mapping[str, Any]) -> Mapping[str, float]:
    """Of a study without limits."""
    return {}


def constraints_of(limits: Limits, dense: Mapping[int, Mapping[str, Any]], measure: Quality) -> Constraints:
    """The constraints of a study, whose dense networks are on record by seed."""
    if not limits.given:
        return no_constraints
    return lambda point: excesses(limits, point, dense[point[n.SEED]], measure)


def constrained(
    values: Sequence[list[float]], found: Sequence[Mapping[str, float]], reference: Sequence[float]
) -> tuple[list[float], dict[str, Any], dict[str, float]]:
    """Of a step's stored forms the values of the best, what attributes tell of all, and the constraints of that one.

    ``values`` are gains. The best is worth most above the ``reference``, among those within all limits if there are any.
    """
    inside = [i for i, each in enumerate(found) if within(each.values())] or range(len(values))
    best = inside[best_of([values[i] for i in inside], reference)] if len(values) > 1 else 0
    attributes: dict[str, Any] = {n.FORMS: list(values)} if len(values) > 1 else {}
    if found[best]:
        attributes[EXCESS] = [list(each.values()) for each in found]
    return values[best], attributes, dict(found[best])
