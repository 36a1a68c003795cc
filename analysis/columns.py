"""Records of points.jsonl turned into a frame whose columns have the types and ranges that the rest relies on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

import trainables.records.names as n
from trainables.records.points import NUMBERS, WHOLE, fault_of


def checked(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record's known columns, null where it has none; an InputError names the first that cannot be used."""
    row = {column: record.get(column) for column in n.POINT_COLUMNS}
    if fault := fault_of(row):
        raise n.InputError(f"{where}: {fault}; repair or remove the line")
    for column, value in row.items():
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
