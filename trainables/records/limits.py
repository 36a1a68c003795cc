"""What a network may cost at most: limits in units as people write them, and how far a network is beyond them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from trainables.records import names as n
from trainables.records.objectives import LATENCY, latency_on

NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)(e[+-]?\d+)?\s*(\S*)\s*", re.IGNORECASE)
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
"""In the base unit, or a share of the dense network's value, such as "50%"."""


def amount(units: Units) -> BeforeValidator:
    """A validator that reads a number with one of these units; ValueError, naming the nearest, for another one."""

    def read(value: Any) -> Amount | None:
        if value is None:
            return None
        found = None if isinstance(value, bool) else NUMBER.fullmatch(str(value))
        if found is None:
            raise ValueError(f"give a number above 0 and a unit: {_listed(units)}")
        number, unit = float(found[1] + (found[2] or "")), found[3]
        if number <= 0 or not math.isfinite(number):
            raise ValueError("a limit must be above 0")
        known = {name.casefold(): factor for name, factor in units.items()}
        if unit.casefold() in known:
            return number * known[unit.casefold()]
        if unit == RELATIVE:
            return f"{number:g}%"
        near = difflib.get_close_matches(unit, [name for name in units if name], n=1, cutoff=0.0)
        raise ValueError(f"there is no unit {unit!r}; did you mean {near[0]!r}? valid: {_listed(units)}")

    return BeforeValidator(read)


def _listed(units: Units) -> str:
    return ", ".join(dict.fromkeys([*(name for name in units if name), RELATIVE]))


OF_DENSE = "; % is of the dense network's"
Points = Annotated[Amount, amount(POINTS)]
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

    max_drop: Points | None = Field(
        None, description="points of accuracy that may be lost against the dense network, such as 0.5; 1% is relative"
    )
    min_accuracy: Annotated[Amount, amount(SHARE)] | None = Field(
        None, description="validation accuracy that is kept at least, such as 0.9 or 90%"
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
        if self.max_drop is not None and self.min_accuracy is not None:
            raise ValueError("max_drop and min_accuracy both limit the accuracy; give one of them")
        if isinstance(self.min_accuracy, float) and self.min_accuracy > 1:
            raise ValueError(f"min_accuracy: {self.min_accuracy:g} is more than all; give a share such as 0.9, or 90%")
        return self

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
        """These, and of ``other`` those about what these say nothing of; either limit of accuracy stands for both."""
        mine = self.given
        left = {key: value for key, value in other.given.items() if not (key in OF_ACCURACY and {*OF_ACCURACY} & {*mine})}
        both, times = left | mine, dict[str, Amount]()
        for name in [name for name in both if name.startswith(OF_TIME)]:
            times[name.removeprefix(OF_TIME).removeprefix(".") or PYTORCH] = both.pop(name)
        return Limits.model_validate({**both, OF_TIME: times or None})


OF_ACCURACY, OF_TIME = ("max_drop", "min_accuracy"), "max_latency"
COLUMNS = {
    "max_drop": n.ACCURACY, "min_accuracy": n.ACCURACY, "max_bytes": n.STORED_BYTES, "max_params": n.PARAMS,
    "max_macs": n.MACS, OF_TIME: n.LATENCY,
}  # fmt: skip


def column_of(name: str) -> str:
    """The column of a point that a limit is about; of ``max_latency.onnx`` that of ``latency.onnx``."""
    target = latency_on(name.replace(OF_TIME, LATENCY.name, 1)) if name.startswith(f"{OF_TIME}.") else None
    return COLUMNS[name] if target is None else target.column


@dataclass(frozen=True)
class Bound:
    """A limit as a number: the ``column`` of a point must be at most (or ``at_least``) this."""

    name: str
    column: str
    value: float
    at_least: bool

    def excess(self, point: Mapping[str, Any]) -> float | None:
        """How far a point is beyond it, as a share of the bound: 0 or less within; None where it wasn't measured."""
        found = point.get(self.column)
        if found is None or math.isnan(found):
            return None
        beyond = (self.value - found if self.at_least else found - self.value) / self.value
        return 0.0 if abs(beyond) < ROUNDING else float(beyond)


def bounds(limits: Limits, dense: Mapping[str, Any]) -> list[Bound]:
    """The limits as numbers, beside the dense network of a point's seed."""
    return [_bound(name, value, dense) for name, value in limits.given.items()]


def _bound(name: str, value: Amount, dense: Mapping[str, Any]) -> Bound:
    column = column_of(name)
    whole = dense.get(column) or math.nan
    share = float(value.removesuffix(RELATIVE)) / 100 if isinstance(value, str) else None
    if name == "max_drop":
        lost = value / 100 if isinstance(value, float) else whole * (share or 0.0)
        return Bound(name, column, max(whole - lost, ROUNDING), at_least=True)
    return Bound(name, column, float(value) if share is None else whole * share, name in OF_ACCURACY)


def excesses(limits: Limits, point: Mapping[str, Any], dense: Mapping[str, Any]) -> dict[str, float]:
    """How far a point is beyond each limit (0 or less: within); what wasn't measured counts as at the limit."""
    return {bound.name: bound.excess(point) or 0.0 for bound in bounds(limits, dense)}


def within(found: Iterable[float]) -> bool:
    """Whether these excesses are all within their limits."""
    return all(value <= 0 for value in found)


def moved_drop(drop: float, limits: Limits) -> float:
    """How far below dense the hypervolume's reference lies: where more may be lost than ``drop``, that far.

    A share of the dense accuracy, which is at most 1, counts as so much of 1.
    """
    most = limits.max_drop
    lost = 0.0 if most is None else (most if isinstance(most, float) else float(most.removesuffix(RELATIVE))) / 100
    return max(drop, min(lost, 1.0))
