"""What the test split said of a front: of its own networks, and of the same recipes on fresh seeds.

A front was selected on validation data, among many, so part of what it shows there is luck: of the images, and of the seed.
The test images take the first away, and fresh seeds the second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from trainables.records import names as n
from trainables.records.fronts import on_front, volume
from trainables.records.jsonl import Row, read_rows
from trainables.records.objectives import LOG2, Objective, Quality, gains, reference
from trainables.records.points import fault_of, form_of, point_id, quality_problem, stored_format
from trainables.records.untrusted import is_address
from trainables.records.words import counted

Record = Mapping[str, Any]
CONTROL, AGAIN = "control", "again"
"""Columns of ``again.jsonl``: the step that a member is compared with, and its own, on the ``seed``."""


SURE = 2.0
"""Standard errors that a difference exceeds which chance alone hardly makes."""


@dataclass(frozen=True)
class Terms:
    """What a study searched by: objectives, the measure among them, and how far below dense the reference lies."""

    objectives: Sequence[Objective]
    measure: Quality
    drop: float

    def excess(self, row: Record, dense: Record) -> list[float]:
        """Gains above the reference of the dense network; NaN where something wasn't measured, or has no logarithm."""
        if not all(_known(one.get(goal.column), goal) for one in (row, dense) for goal in self.objectives):
            return [math.nan] * len(self.objectives)
        origin = reference(dense, self.objectives, self.drop)
        return [gain - at for gain, at in zip(gains(row, dense, self.objectives), origin, strict=True)]

    def on_test(self, row: Record) -> Row:
        """The row with what the test images said in place of what validation did."""
        return {**row, self.measure.column: row[self.measure.test]}

    def lost(self, row: Record, dense: Record) -> float:
        """How much worse than the dense network it is, in the measure's unit."""
        return self.worse(row[self.measure.column], dense[self.measure.column])

    def worse(self, value: float, than: float) -> float:
        """How much worse one value of the measure is than another."""
        return self.measure.gain(than, than) - self.measure.gain(value, than)


def _known(value: Any, goal: Objective) -> bool:
    return value is not None and not math.isnan(value) and (value > 0 or goal.scale != LOG2)


class Optimism(NamedTuple):
    """What validation told of some networks, less what the test images did, on average."""

    networks: int
    pruned: float
    dense: float | None
    """of the dense networks; None where they weren't opened"""
    before: float | None
    """the networks' hypervolume on validation data; None like the above"""
    after: float | None
    """on the test images"""

    @property
    def against_dense(self) -> float | None:
        """What selection alone gave: images that are easier, or harder, are so for the dense network too."""
        return None if self.dense is None else self.pruned - self.dense

    def told(self, measure: Quality) -> str:
        """In a sentence or two."""
        opened = "was" if self.networks == 1 else "were"
        text = (
            f"From validation to test data the {counted(self.networks, 'network')} of the front that {opened} opened "
            f"{lost_or_gained(self.pruned, measure)}{' on average' if self.networks > 1 else ''}"
        )
        if self.dense is None or self.before is None or self.after is None:
            return f"{text}."
        gap = self.pruned - self.dense
        told = f"flattered them by {measure.told_loss(gap)}" if gap > 0 else "did not flatter them"
        return (
            f"{text}, and the dense network {lost_or_gained(self.dense, measure)}: beside it, selection {told}. Their "
            f"hypervolume is {self.after:.3f} on the test data, and was {self.before:.3f}."
        )


def lost_or_gained(amount: float, measure: Quality) -> str:
    """By how much a value became worse, in words."""
    return f"{'lost' if amount >= 0 else 'gained'} {measure.told_loss(abs(amount))}"


def lost_beside_dense(lost: float, error: float | None, measure: Quality) -> str:
    """How much worse than the dense network it is on the test images, and whether their noise alone explains that."""
    text = lost_or_gained(lost, measure)
    if error is None:
        return text
    sure = "" if abs(lost) > SURE * error else ", within which they are the same"
    return f"{text} (standard error on the same images {measure.told_loss(error)}{sure})"


def optimism(opened: Sequence[Row], dense: Sequence[Row], terms: Terms) -> Optimism | None:
    """Of points and dense networks with their values on the test images; None without any point."""
    if not opened:
        return None
    roots = {row[n.SEED]: row for row in dense}
    pruned, both = fmean(_flattered(row, terms) for row in opened), [row for row in opened if row[n.SEED] in roots]
    if not both:
        return Optimism(len(opened), pruned, None, None, None)
    tested = {seed: terms.on_test(row) for seed, row in roots.items()}
    before = [terms.excess(row, roots[row[n.SEED]]) for row in both]
    after = [terms.excess(terms.on_test(row), tested[row[n.SEED]]) for row in both]
    own = fmean(_flattered(row, terms) for row in roots.values())
    return Optimism(len(opened), pruned, own, volume(before), volume(after))


def _flattered(row: Row, terms: Terms) -> float:
    return terms.worse(row[terms.measure.test], row[terms.measure.column])


class Seen(NamedTuple):
    """A member of the front on one fresh seed, on the test images."""

    seed: int
    value: float
    lost: float
    """against the dense network of the seed"""
    to_control: float | None
    """against that one trained for as many more epochs; None where it wasn't measured"""


@dataclass(frozen=True)
class Member:
    """A member of the front, again on fresh seeds."""

    row: Row
    """its point in the search"""
    seen: tuple[Seen, ...]
    on_front: float
    """the probability to be on the front of the means (``fronts.on_front``)"""

    @property
    def point(self) -> str:
        """Its name."""
        return point_id(self.row)

    @property
    def chance(self) -> str:
        """The probability in words; a bootstrap of some seeds is never sure."""
        return "over 99%" if self.on_front > 0.99 else "under 1%" if self.on_front < 0.01 else f"{self.on_front:.0%}"

    def told(self, measure: Quality) -> str:
        """In a sentence."""
        told = {name: measure.told_spread(*self.over_seeds(name)) for name in ("value", "lost", "to_control")}
        unit = " points" if measure.is_share else f" {measure.unit}".rstrip()
        return (
            f"The same recipe on {len(self.seen)} fresh seeds: {told['value']}{' %' * measure.is_share} on the test data, "
            f"{told['lost']}{unit} worse than the dense network and {told['to_control']} worse than that trained as long; "
            f"on the front with a probability of {self.chance}."
        )

    def over_seeds(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation over the seeds of a field of ``Seen``; NaN where there are too few."""
        values = np.array([value for one in self.seen if (value := getattr(one, name)) is not None], np.float64)
        spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        return (float(values.mean()) if len(values) else math.nan), spread


def members_again(folder: Path, members: Sequence[Row], terms: Terms) -> list[Member]:
    """The members (points) of the front of the study in ``folder`` that were opened on fresh seeds, in their order.

    InputError naming the file and the line if it holds what can be no such record.
    """
    place = folder / n.CONFIRMATION_FOLDER
    opened, dense = _opened(place, terms)
    plan: dict[str, list[Row]] = {}
    for _, line in read_rows(place / n.AGAIN_FILE, _fault):
        if line[n.SEED] in dense:
            plan.setdefault(line[n.STEP_ID], []).append(line)
    rows = [row for row in members if any(_named(one[AGAIN], row) in opened for one in plan.get(row[n.STEP_ID], ()))]
    seeds = sorted({line[n.SEED] for row in rows for line in plan[row[n.STEP_ID]]})
    if not seeds:
        return []
    rivals = {n.SAFETENSORS: dense} | _dense_forms(place, opened, terms)
    values = [[_excess_of(row, plan[row[n.STEP_ID]], seed, opened, dense, terms) for seed in seeds] for row in rows]
    values += [[terms.excess(of[seed], dense[seed]) if seed in of else _nothing(terms) for seed in seeds]
               for of in rivals.values()]  # fmt: skip
    chances = on_front(np.array(values, np.float64))
    seen = [tuple(_seen(row, plan[row[n.STEP_ID]], opened, dense, terms)) for row in rows]
    return [Member(row, one, float(chance)) for row, one, chance in zip(rows, seen, chances, strict=False)]


def _nothing(terms: Terms) -> list[float]:
    return [math.nan] * len(terms.objectives)


def _opened(place: Path, terms: Terms) -> tuple[dict[str, Row], dict[int, Row]]:
    """What was opened, with the test images' values as the measure: points by name, and the dense networks by seed."""
    points, dense = dict[str, Row](), dict[int, Row]()
    for _, row in read_rows(place / n.CONFIRMED_FILE, lambda row: _problem(row, terms)):
        points[point_id(row)] = terms.on_test(row)
        if row[n.FAMILY] == n.DENSE and stored_format(row) == n.SAFETENSORS:
            dense[row[n.SEED]] = points[point_id(row)]
    return points, dense


def _dense_forms(place: Path, opened: Mapping[str, Row], terms: Terms) -> dict[str, dict[int, Row]]:
    """The dense networks as they compete in stored forms: form -> seed -> row. In fp32 one is what its own file holds."""
    forms: dict[str, dict[int, Row]] = {}
    for _, row in read_rows(place / n.POINTS_FILE, lambda row: _fault_of(row, terms)):
        if row[n.FAMILY] == n.DENSE and stored_format(row) != n.SAFETENSORS and (found := opened.get(point_id(row))):
            tested = {**row, terms.measure.column: found[terms.measure.column]}
            forms.setdefault(form_of(row), {})[row[n.SEED]] = tested
    return forms


def _fault_of(row: Row, terms: Terms) -> str | None:
    return fault_of(row, objectives=terms.objectives, measure=terms.measure)


def _problem(row: Row, terms: Terms) -> str | None:
    if fault := _fault_of(row, terms):
        return fault
    problem = quality_problem(terms.measure, row.get(terms.measure.test))
    return f"{terms.measure.test} {problem}" if problem else None


def _fault(line: Row) -> str | None:
    whole = all(is_address(line.get(name)) for name in (n.STEP_ID, AGAIN)) and type(line.get(n.SEED)) is int
    return None if whole and (line.get(CONTROL) is None or is_address(line[CONTROL])) else "is no network made again"


def _named(step_id: str, like: Record) -> str:
    """A step's point in the stored form of another."""
    return point_id({**like, n.STEP_ID: step_id})


def _excess_of(
    row: Row, plan: Iterable[Row], seed: int, opened: Mapping[str, Row], dense: Mapping[int, Row], terms: Terms
) -> list[float]:
    found = next((opened.get(_named(line[AGAIN], row)) for line in plan if line[n.SEED] == seed), None)
    return _nothing(terms) if found is None else terms.excess(found, dense[seed])


def _seen(
    row: Row, plan: Iterable[Row], opened: Mapping[str, Row], dense: Mapping[int, Row], terms: Terms
) -> Iterable[Seen]:
    for line in sorted(plan, key=lambda line: line[n.SEED]):
        found, root = opened.get(_named(line[AGAIN], row)), dense[line[n.SEED]]
        if found is None:
            continue
        control = opened.get(_named(line.get(CONTROL) or root[n.STEP_ID], row))
        value = found[terms.measure.column]
        yield Seen(line[n.SEED], value, terms.lost(found, root), None if control is None else terms.lost(found, control))
