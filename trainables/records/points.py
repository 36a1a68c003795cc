"""What the columns of a point may hold: types and ranges, checked wherever a point is read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from trainables.records import names as n
from trainables.records.methods import MEASURE, measure_of
from trainables.records.objectives import ACCURACY, LOG2, OBJECTIVES, Objective, Quality
from trainables.records.untrusted import is_address

WHOLE = (n.TRIAL, n.STEP, n.STEPS, n.CHANNEL_STEPS, n.SEED)
SHARES = (
    n.STEP_RATIO,
    n.CHANNEL_RATIO,
    n.REQUESTED_SPARSITY,
    n.SPARSITY,
    n.CHANNEL_SPARSITY,
    n.ACCURACY_BEFORE,
    n.ACCURACY_RECALIBRATED,
    n.ACCURACY,
)
AMOUNTS = (
    n.FINE_TUNE_EPOCHS, n.FINE_TUNE_LR, n.SPARSE_EPOCHS, n.STRENGTH, n.ROUND_TO, n.EPOCHS, n.TOTAL_EPOCHS, n.SECONDS,
    n.PARAMS, n.MACS, n.EFFECTIVE_MACS, n.STORED_BYTES, n.COMPRESSION, n.LATENCY, n.LATENCY_LARGE, n.LATENCY_DENSE,
    n.LATENCY_LARGE_DENSE,
)  # fmt: skip
NUMBERS = frozenset((*WHOLE, *SHARES, *AMOUNTS))
ADDRESSES = (n.STEP_ID, n.PARENT_ID, n.SHAPE_ID)
REQUIRED = (n.STEP_ID, n.FAMILY, n.STEP, n.SEED, n.SPARSITY, n.COMPRESSION)
"""What every point has, beside the value of what its study measures quality by."""

# Beyond it a float no longer holds every whole number; no count of a network comes near.
LARGEST = 2**53
# Nothing that is measured is smaller and not 0; a quotient of two numbers in range stays finite.
SMALLEST = 1e-9


def format_of(forms: Sequence[str]) -> str:
    """The format of the files that a study's points are of: of fp32 alone each step's own, otherwise compact for all."""
    return n.SAFETENSORS if tuple(forms) == (n.FP32,) else n.COMPACT


def form_of(row: Mapping[str, Any]) -> str:
    """The stored form that a point is of."""
    return str(row.get(n.FORM) or n.FP32)


def stored_format(row: Mapping[str, Any]) -> str:
    """The format of the file that a point's bytes are of."""
    return str(row.get(n.STORED_FORMAT) or n.SAFETENSORS)


def point_id(row: Mapping[str, Any]) -> str:
    """What names a point: ``step_id``, and of a form other than fp32 ``step_id:form``."""
    form = form_of(row)
    return str(row[n.STEP_ID]) + ("" if form == n.FP32 else f":{form}")


def fault_of(
    row: Mapping[str, Any],
    required: Iterable[str] = REQUIRED,
    objectives: Iterable[Objective] = (),
    measure: Quality | None = ACCURACY,
) -> str | None:
    """The first column that cannot be used and why, or None if all can; ``objectives`` may have columns of their own.

    Beside what is ``required``, a row has a value of the ``measure``, if it is of a network.
    """
    needed = {*required, *([measure.column] if measure else [])}
    for column in n.POINT_COLUMNS:
        value = row.get(column)
        if problem := _problem(column, value, value is None and column in needed):
            return f"{column} {problem}"
    for column in (measure.column, measure.before, measure.recalibrated) if measure else ():
        value = row.get(column)
        if (value is not None or column in needed) and (problem := quality_problem(measure or ACCURACY, value)):
            return f"{column} {problem}"
    for one in (*OBJECTIVES.values(), *objectives):
        for column in (one.column, *one.dense_columns.values()):
            value = row.get(column)
            if column not in n.POINT_COLUMNS and value is not None and (problem := value_problem(one, value)):
                return f"{column} {problem}"
    return None


def value_problem(objective: Objective, value: Any) -> str | None:
    """Why this can be no value of an objective, or None if it can."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        return f"is {str(value)[:40]}, which is no finite number"
    if objective.scale == LOG2 and value < SMALLEST:
        return f"is {value}, and a log2 scale needs more than 0"
    if isinstance(objective, Quality) and not objective.low <= value <= objective.high:
        return f"is {value}, and {objective.name} goes from {objective.low:g} to {objective.high:g}"
    return None


def quality_problem(measure: Quality, value: Any) -> str | None:
    """Why this can be no value of a measure, or None if it can."""
    if value is None:
        return "is missing"
    return _number_problem(n.ACCURACY, value) if measure.is_share else value_problem(measure, value)


SCHEMA = 2
"""The version of the records that are written; those of the first don't say it. It rises when a column changes its meaning:
a column that is new needs no other version, for a record that lacks it is known all the same."""

OF_EVERY_RECORD = (
    n.REQUESTED_SPARSITY, n.SPARSITY, n.CHANNEL_SPARSITY, n.ACCURACY_BEFORE, n.ACCURACY, n.PARAMS, n.MACS, n.EFFECTIVE_MACS,
    n.STORED_BYTES, n.COMPRESSION, n.SHAPE_ID, n.EMPTY_LAYERS, n.TOTAL_EPOCHS,
)  # fmt: skip
"""What records of every version have. The list is closed: a column put here would make every stored step unknown."""


NEEDED = (n.SPARSITY, n.PARAMS, n.STORED_BYTES, n.COMPRESSION, n.EPOCHS, n.SECONDS)
"""What a record must have a value of, beside its measure."""


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a step's record has all that one of its version must have, each of its type and in its range.

    InputError if a newer program wrote it: what its columns mean isn't known here.
    """
    parent, settings, layers = record.get("parent"), record.get("settings"), record.get("layers")
    counts = list(layers.values()) if isinstance(layers, dict) else [None]
    schema = record.get("schema", 1)
    if type(schema) is int and schema > SCHEMA:
        raise n.InputError(
            f"step {record.get('id')}: its record has version {schema}, and this program knows {SCHEMA}; update the program"
        )
    try:
        measure = measure_of(record.get(MEASURE, {}))
    except (ValidationError, AttributeError):
        return False
    return (
        type(schema) is int
        and (parent is None or is_address(parent))
        and isinstance(settings, dict)
        and all(isinstance(pair, list) and len(pair) == 2 and all(type(count) is int for count in pair) for pair in counts)
        and is_address(record.get(n.SHAPE_ID))
        and all(column in record for column in OF_EVERY_RECORD)
        and fault_of(record, NEEDED, measure=measure) is None
    )


def _problem(column: str, value: Any, missing: bool) -> str | None:
    if value is None:
        return "is missing" if missing else None
    if column in NUMBERS:
        return _number_problem(column, value)
    if column in ADDRESSES:
        return None if is_address(value) else f"is {str(value)[:40]!r}, which is no address"
    if column == n.FAMILY and value not in (n.DENSE, *n.FAMILIES):
        return f"is {str(value)[:40]!r}, valid: {', '.join((n.DENSE, *n.FAMILIES))}"
    return None if column in (n.REUSED, n.EMPTY_LAYERS) else _text_problem(value)


def _text_problem(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"is {str(value)[:40]!r}, which is no text"
    # Control characters could steer the terminal that shows them.
    if not value.isprintable():
        return "holds characters that cannot be printed"
    # Tables are written as CSV, which programs open as sheets; no name of ours begins so.
    if value.startswith(("=", "+", "-", "@")):
        return "begins like a formula of a sheet"
    return None


def _number_problem(column: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"is {str(value)[:40]!r}, which is no number"
    # NaN compares false with everything, so it fails here as the infinities do.
    if not 0 <= value < LARGEST or (column in AMOUNTS and 0 < value < SMALLEST):
        return f"is {str(value)[:40]}, which is no finite number from 0"
    if column in SHARES and value > 1:
        return f"is {value}, which is no share from 0 to 1"
    if column in WHOLE and value != int(value):
        return f"is {value}, which is no whole number"
    if column == n.COMPRESSION and value == 0:
        return "is 0, which no stored file can have"
    return None
