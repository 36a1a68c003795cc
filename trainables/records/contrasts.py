"""``arms``, ``contrasts`` and ``seeds`` of a study file: what is to be compared, and on which seeds it may conclude.

They say how points are read and are no part of any step, so they may change between two runs, or two reports.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from trainables.records import names as n
from trainables.records.objectives import LOG2, OBJECTIVES
from trainables.records.points import LARGEST

LEVEL, CUTTING, PEAK_LR = "level", "cutting", "peak_lr"
"""Columns made of others: the sparsity asked for; one_shot or iterative; the largest learning rate of the retraining."""
ONE_SHOT, ITERATIVE = "one_shot", "iterative"
COLUMNS = (*n.POINT_COLUMNS, LEVEL, CUTTING, PEAK_LR)
MEASURE: Final = "measure"
BEFORE: Final = "measure_before"
"""What is compared: the study's measure, or its value between a cut and its retraining."""
FACTORS = tuple(name for name, one in OBJECTIVES.items() if one.scale == LOG2)


def unknown(word: str, known: Collection[str]) -> str:
    """A remedy for a name that is not known: the closest one, or all."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(known)}"


def _column(name: str) -> str:
    if name not in COLUMNS:
        raise ValueError(f"{name!r} is no column of a point; {unknown(str(name), COLUMNS)}")
    return name


def _where(where: dict[str, Any]) -> dict[str, Any]:
    for column, value in where.items():
        _column(column)
        values = value if isinstance(value, list | tuple) else [value]
        if not values or not all(_scalar(one) for one in values):
            raise ValueError(f"{column}: {value!r} is neither a value nor a list of values")
    return where


def _factor(at: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    if len(at) > 1 or any(name not in FACTORS for name in at):
        raise ValueError(f"give one of {', '.join(FACTORS)}, with the factors to compare at")
    return at


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int | float) and abs(value) < LARGEST)


def _of_measure(value: Any) -> Any:
    """Accuracy was the only measure once."""
    return {n.ACCURACY: MEASURE, n.ACCURACY_BEFORE: BEFORE}.get(value, value) if isinstance(value, str) else value


def _side(side: Any) -> Any:
    if not isinstance(side, str | dict):
        raise ValueError("is neither an arm nor columns with values")
    return side if isinstance(side, str) else _where(side)


Column = Annotated[str, AfterValidator(_column)]
Where = Annotated[dict[str, Any], AfterValidator(_where)]
"""Column -> the value, or the values, that a network has there."""
Side = Annotated[Any, AfterValidator(_side)]
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Contrast(BaseModel):
    """One difference, left less right, taken within seeds: of networks that agree in what is matched."""

    model_config = _STRICT

    left: Side = Field(description="an arm, or columns with the values that its networks have")
    right: Side = Field("dense", description="the same; dense is the dense network of the seed")
    matched: tuple[Column, ...] = Field((), description="columns in which both agree; a test for each of their values")
    averaged: tuple[Column, ...] = Field((), description="columns in which both agree, averaged within a seed")
    each: tuple[Column, ...] = Field((), description="columns of the left alone: a test for each of their values")
    at: Annotated[dict[str, tuple[float, ...]], AfterValidator(_factor)] = Field(
        {}, description="compare at equal factors, such as {compression: [2, 4]}, each side interpolated within a seed"
    )
    value: Annotated[Literal["measure", "measure_before"], BeforeValidator(_of_measure)] = Field(
        MEASURE, description="what is compared: the study's measure, or its value between cut and retraining"
    )
    tests: str | None = Field(None, description="the family of tests that is corrected together; its own if left out")
    margin: float | None = Field(
        None,
        gt=0,
        description="differences within it are equivalent, in the measure's unit; null: half a point of a share, "
        "and of anything else a twentieth of how far the hypervolume's reference is away",
    )


class Seeds(BaseModel):
    """Seeds that had a part in what they would judge, or were added after looking: they never conclude."""

    model_config = _STRICT

    role: Literal["tuning", "selection", "added"] = Field(description="why they don't conclude")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1, description="which they are")
    where: Where = Field({}, description="columns with values: of which networks that is so; of all if left out")


class Comparison(BaseModel):
    """What a study declares."""

    model_config = _STRICT

    arms: dict[str, Where] = {}
    contrasts: dict[str, Contrast] | None = None
    seeds: tuple[Seeds, ...] = ()

    @model_validator(mode="after")
    def _arms_exist(self) -> Comparison:
        for name, contrast in (self.contrasts or {}).items():
            for side in (contrast.left, contrast.right):
                where_of(side, self.arms, f"contrasts.{name}")
        return self


def where_of(side: str | Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]], told: str) -> Mapping[str, Any]:
    """The columns and values of an arm, or of a side that gives them itself; ValueError if there is no such arm."""
    if not isinstance(side, str):
        return side
    known = {n.DENSE: {n.FAMILY: n.DENSE}, **arms}
    if side not in known:
        raise ValueError(f"{told}: {side!r} is no arm; {unknown(side, known)}")
    return known[side]


def declared(settings: Mapping[str, Any], where: object) -> Comparison:
    """What a study's settings declare; InputError, naming the file, if it can't be used."""
    try:
        given = {key: settings[key] for key in Comparison.model_fields if settings.get(key) is not None}
        return Comparison.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        path = ".".join(str(part) for part in wrong["loc"] if not str(part).startswith(("function-", "dict[", "str")))
        message = str(wrong["msg"]).removeprefix("Value error, ")
        raise n.InputError(f"{where}: {f'{path}: ' if path else ''}{message}") from None
