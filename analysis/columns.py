"""Records of points.jsonl turned into a frame whose columns have the types and ranges that the rest relies on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

import trainables.names as n

WHOLE = (n.TRIAL, n.STEP, n.STEPS, n.SEED)
SHARES = (n.STEP_RATIO, n.REQUESTED_SPARSITY, n.SPARSITY, n.CHANNEL_SPARSITY, n.ACCURACY_BEFORE, n.ACCURACY)
AMOUNTS = (
    n.FINE_TUNE_EPOCHS, n.SPARSE_EPOCHS, n.ROUND_TO, n.EPOCHS, n.TOTAL_EPOCHS, n.SECONDS, n.PARAMS, n.MACS,
    n.EFFECTIVE_MACS, n.STORED_BYTES, n.COMPRESSION, n.LATENCY, n.LATENCY_LARGE,
)  # fmt: skip
NUMBERS = frozenset((*WHOLE, *SHARES, *AMOUNTS))
REQUIRED = (n.STEP_ID, n.FAMILY, n.STEP, n.SEED, n.SPARSITY, n.ACCURACY, n.COMPRESSION)

# Beyond it a float no longer holds every whole number; no count of a network comes near.
LARGEST = 2**53


def checked(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record's known columns, null where it has none; an InputError names the first that cannot be used."""
    row = {column: record.get(column) for column in n.POINT_COLUMNS}
    for column, value in row.items():
        if problem := _problem(column, value):
            raise n.InputError(f"{where}: {column} {problem}; repair or remove the line")
        if column not in NUMBERS and column != n.REUSED and value is not None and not isinstance(value, str):
            row[column] = json.dumps(value)
    return row


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a point, columns as in POINT_COLUMNS: whole numbers, floats, text and ``reused`` as a truth value."""
    points = pd.DataFrame(list(rows), columns=list(n.POINT_COLUMNS))
    points[n.REUSED] = points[n.REUSED].eq(True)
    kinds = {column: "Int64" if column in WHOLE else "float64" for column in NUMBERS}
    kinds |= {column: "str" for column in n.POINT_COLUMNS if column not in NUMBERS and column != n.REUSED}
    return points.astype(kinds)


def share_problem(value: Any) -> str | None:
    """Why this value is no share from 0 to 1, or None if it is one."""
    return "is missing" if value is None else _number_problem(n.ACCURACY, value)


def _problem(column: str, value: Any) -> str | None:
    if value is None:
        return "is missing" if column in REQUIRED else None
    if column in NUMBERS:
        return _number_problem(column, value)
    if column == n.FAMILY and value not in (n.DENSE, *n.FAMILIES):
        return f"is {str(value)[:40]!r}, valid: {', '.join((n.DENSE, *n.FAMILIES))}"
    # Control characters could steer the terminal that shows them.
    if isinstance(value, str) and not value.isprintable():
        return "holds characters that cannot be printed"
    return None


def _number_problem(column: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"is {str(value)[:40]!r}, which is no number"
    # NaN compares false with everything, so it fails here as the infinities do.
    if not 0 <= value < LARGEST:
        return f"is {str(value)[:40]}, which is no finite number from 0"
    if column in SHARES and value > 1:
        return f"is {value}, which is no share from 0 to 1"
    if column in WHOLE and value != int(value):
        return f"is {value}, which is no whole number"
    if column == n.COMPRESSION and value == 0:
        return "is 0, which no stored file can have"
    return None
