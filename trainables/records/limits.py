"""What a network must keep and may cost: limits in units as people write them, and how far a network is beyond them.

What of the measure is given up is in the measure's own unit, which only the study knows: so it is kept as it was written,
and ``Limits.check`` says whether it fits.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from trainables.records import names as n
from trainables.records.objectives import LATENCY, MAXIMISE, Quality, latency_on

NUMBER = re.compile(r"\s*(-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(.*?)\s*", re.IGNORECASE)
RELATIVE = "%"
"""Of the dense network's value."""
THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
BYTES = {
    "": 1.0, "B": 1.0, "bytes": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10,
    "MiB": 2.0**20, "GiB": 2.0**30,
}  # fmt: skip
MILLISECONDS = {"": 1.0, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
POINTS = {"": 1.0, "point": 1.0, "points": 1.0, "pt": 1.0, "pp": 1.0}
SHARE = {"": 1.0, RELATIVE: 1e-2}
ROUNDING = 1e-9
"""Differences of floats are off in the last digits; a network at the limit keeps it."""

Units = Mapping[str, float]
Amount = float | str
"""In the base unit; or a text with its unit: a share of the dense network's value, "50%", or an amount of the measure."""


def amount(units: Units | None = None, *, signed: bool = False) -> BeforeValidator:
    """A validator that reads a number with one of these units; ValueError, naming the nearest, for another one.

    Without units they are the measure's, and stay to be read; ``signed`` ones may be 0 or less.
    """

    def read(value: Any) -> Amount | None:
        if value is None:
            return None
        number, unit = _parted(value, units)
        if number <= 0 and not signed:
            raise ValueError("a limit must be above 0")
        if units is None:
            return f"{number:.12g}{'' if unit == RELATIVE else ' '}{unit}" if unit else number
        return f"{number:.12g}%" if unit == RELATIVE and RELATIVE not in units else number * _factor(unit, units)

    return BeforeValidator(read)


def _parted(value: Any, units: Units | None) -> tuple[float, str]:
    found = None if isinstance(value, bool) else NUMBER.fullmatch(str(value))
    if found is None or not math.isfinite(float(found[1])):
        raise ValueError(f"give a number and a unit: {_listed(units) if units else f'that of the measure, or {RELATIVE}'}")
    return float(found[1]), found[2]


def _factor(unit: str, units: Units) -> float:
    known = {name.casefold(): factor for name, factor in units.items()}
    if unit.casefold() in known:
        return known[unit.casefold()]
    near = difflib.get_close_matches(unit, [name for name in units if name], n=1, cutoff=0.0)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"there is no unit {unit!r}; {meant}valid: {_listed(units)}")


def _listed(units: Units) -> str:
    return ", ".join(dict.fromkeys([*(name for name in units if name), RELATIVE]))


OF_DENSE = "; % is of the dense network's"
Bytes = Annotated[Amount, amount(BYTES)]
Count = Annotated[Amount, amount(THOUSANDS)]
Milliseconds = Annotated[Amount, amount(MILLISECONDS)]


def _by_target(value: Any) -> Any:
    """``2ms`` of PyTorch as it is; ``onnx=2ms``, or a list of both, as a mapping by target."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not any("=" in str(one) for one in given):
        return given[0] if isinstance(given, list) and len(given) == 1 else value
    pairs = (str(one).rpartition("=") for one in given)
    return {target or PYTORCH: told for target, _, told in pairs}


def _is_target(target: str) -> str:
    if target != PYTORCH and latency_on(f"{LATENCY.name}.{target}") is None:
        raise ValueError(f"{target!r} is no target; give {PYTORCH}, onnx or package.module:measure")
    return target


PYTORCH = "torch"
"""The target that an amount alone is of."""
Targets = dict[Annotated[str, AfterValidator(_is_target)], Milliseconds]


class Limits(BaseModel):
    """What a network must keep and may cost. They choose and steer; no step is another for them."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    max_drop: Annotated[Amount, amount()] | None = Field(
        None,
        description="how much worse than the dense network the measure may be: points of accuracy, such as 0.5, or of any "
        "other measure in its unit; 1% is relative",
    )
    min_accuracy: Annotated[float, amount(SHARE)] | None = Field(
        None, description="validation accuracy that is kept at least, such as 0.9 or 90%"
    )
    worst_value: Annotated[Amount, amount(signed=True)] | None = Field(
        None, description="the worst value of the measure that is kept, whichever it is, such as 0.3 of mae"
    )
    max_bytes: Bytes | None = Field(None, description=f"bytes of the stored network, such as 200k or 64 KiB{OF_DENSE}")
    max_params: Count | None = Field(None, description=f"parameters kept, such as 50k{OF_DENSE}")
    max_macs: Count | None = Field(None, description=f"multiply-accumulates of one image, such as 20M{OF_DENSE}")
    max_latency: Annotated[Targets | Milliseconds | None, BeforeValidator(_by_target)] = Field(
        None,
        description="milliseconds at batch 1, such as 2ms, 800us; or by target, {onnx: 2ms}, or --max-latency onnx=2ms; "
        f"latency, latency.onnx, must be an objective{OF_DENSE}",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(twice := [name for name in OF_QUALITY if getattr(self, name) is not None]) > 1:
            raise ValueError(f"{' and '.join(twice)} both limit the measure; give one of them")
        if self.min_accuracy is not None and self.min_accuracy > 1:
            raise ValueError(f"min_accuracy: {self.min_accuracy:g} is more than all; give a share such as 0.9, or 90%")
        return self

    def check(self, measure: Quality) -> None:
        """ValueError naming the limit that this measure can't have."""
        if self.min_accuracy is not None and measure.column != COLUMNS[MIN_ACCURACY]:
            raise ValueError(f"{MIN_ACCURACY}: what is measured is {measure.name}; give {WORST}")
        for name, read in ((MAX_DROP, lost_of), (WORST, _value)):
            if (value := getattr(self, name)) is not None:
                try:
                    read(value, measure)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None

    @property
    def given(self) -> dict[str, Amount]:
        """Those that are set, by name."""
        found = dict[str, Amount]()
        for name in Limits.model_fields:
            value = getattr(self, name)
            if isinstance(value, dict):
                found |= {name if target == PYTORCH else f"{name}.{target}": one for target, one in value.items()}
            elif value is not None:
                found[name] = value
        return found

    def over(self, other: Limits) -> Limits:
        """These, and of ``other`` those about what these say nothing of; a limit of the measure stands for all of those."""
        mine = self.given
        left = {key: value for key, value in other.given.items() if not (key in OF_QUALITY and {*OF_QUALITY} & {*mine})}
        both, times = left | mine, dict[str, Amount]()
        for name in [name for name in both if name.startswith(OF_TIME)]:
            times[name.removeprefix(OF_TIME).removeprefix(".") or PYTORCH] = both.pop(name)
        return Limits.model_validate({**both, OF_TIME: times or None})


MAX_DROP, MIN_ACCURACY, WORST = OF_QUALITY = ("max_drop", "min_accuracy", "worst_value")
"""The limits of what pruning costs."""
OF_TIME = "max_latency"
COLUMNS = {
    MIN_ACCURACY: n.ACCURACY, "max_bytes": n.STORED_BYTES, "max_params": n.PARAMS, "max_macs": n.MACS, OF_TIME: n.LATENCY,
}  # fmt: skip


def column_of(name: str, measure: Quality) -> str:
    """The column of a point that a limit is about; of ``max_latency.onnx`` that of ``latency.onnx``."""
    target = latency_on(name.replace(OF_TIME, LATENCY.name, 1)) if name.startswith(f"{OF_TIME}.") else None
    return COLUMNS.get(name, measure.column) if target is None else target.column


def _own(measure: Quality) -> Units:
    return {"": 1.0, measure.unit: 1.0}


def _value(given: Amount, measure: Quality) -> float:
    """A value of the measure as it was written; ValueError if it can be none."""
    number, unit = _parted(given, None)
    value = number * _factor(unit, SHARE if measure.is_share else _own(measure))
    if not measure.low <= value <= measure.high:
        remedy = "give a share such as 0.9, or 90%" if measure.is_share else "give one that it can have"
        raise ValueError(f"{value:g} is no value of {measure.name}; {remedy}")
    return value


def lost_of(given: Amount, measure: Quality, whole: float = math.nan) -> float:
    """How much worse than the dense network's value, the ``whole``, a drop allows, in the measure's unit; or ValueError."""
    number, unit = _parted(given, None)
    if unit == RELATIVE:
        return abs(whole) * number / 100
    return number * _factor(unit, POINTS) / 100 if measure.is_share else number * _factor(unit, _own(measure))


@dataclass(frozen=True)
class Bound:
    """A limit as a number: the ``column`` of a point must be at most (or ``at_least``) this."""

    name: str
    column: str
    value: float
    at_least: bool
    size: float
    """what being beyond it is a share of: the bound itself, unless that may be 0 or less"""

    def excess(self, point: Mapping[str, Any]) -> float | None:
        """How far a point is beyond it, as a share of its size: 0 or less within; None where it wasn't measured."""
        found = point.get(self.column)
        if found is None or math.isnan(found):
            return None
        beyond = (self.value - found if self.at_least else found - self.value) / self.size
        return 0.0 if abs(beyond) < ROUNDING else float(beyond)


def bounds(limits: Limits, dense: Mapping[str, Any], measure: Quality) -> list[Bound]:
    """The limits as numbers, beside the dense network of a point's seed; ValueError for one that the measure can't have."""
    return [_bound(name, value, dense, measure) for name, value in limits.given.items()]


def _bound(name: str, given: Amount, dense: Mapping[str, Any], measure: Quality) -> Bound:
    column = column_of(name, measure)
    whole = math.nan if dense.get(column) is None else float(dense[column])
    if name in OF_QUALITY:
        up = measure.direction == MAXIMISE
        value = _value(given, measure) if name != MAX_DROP else whole - (1 if up else -1) * lost_of(given, measure, whole)
        value = min(max(value, measure.low), measure.high)
        size = max(abs(value), abs(whole) if measure.low < 0 else 0.0, ROUNDING)
        return Bound(name, column, value, up, size)
    value = float(given) if isinstance(given, float) else whole * float(given.removesuffix(RELATIVE)) / 100
    return Bound(name, column, value, at_least=False, size=value)


def excesses(limits: Limits, point: Mapping[str, Any], dense: Mapping[str, Any], measure: Quality) -> dict[str, float]:
    """How far a point is beyond each limit (0 or less: within); what wasn't measured counts as at the limit."""
    return {bound.name: bound.excess(point) or 0.0 for bound in bounds(limits, dense, measure)}


def within(found: Iterable[float]) -> bool:
    """Whether these excesses are all within their limits."""
    return all(value <= 0 for value in found)


def moved_drop(drop: float, limits: Limits, measure: Quality) -> float:
    """How much worse than dense the hypervolume's reference is: where more may be lost than ``drop``, that much.

    It is fixed before any network is known, so a relative drop counts as so much of the largest value that there can be,
    and of a measure that has none it moves nothing (see ``uncounted``).
    """
    if limits.max_drop is None:
        return drop
    ends = [end for end in (measure.low, measure.high) if math.isfinite(end)]
    lost = lost_of(limits.max_drop, measure, max(map(abs, ends), default=0.0))
    return max(drop, min(lost, measure.high - measure.low))


def uncounted(limits: Limits, dense: Mapping[str, Any], measure: Quality, drop: float) -> str | None:
    """That a network within the limits may be worse than the hypervolume's reference, if it may."""
    for one in bounds(limits, dense, measure):
        lost = abs(one.value - dense[one.column]) if one.name in OF_QUALITY else 0.0
        beyond = one.value < dense[one.column] if one.at_least else one.value > dense[one.column]
        if beyond and lost > drop * (1 + ROUNDING):
            return (
                f"{one.name} allows networks {measure.told_loss(lost)} worse than the dense one, and what is "
                f"more than {measure.told_drop(drop)} worse counts for nothing in the hypervolume (key reference)"
            )
    return None
