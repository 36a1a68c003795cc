"""Records of points.jsonl turned into a frame whose columns have the types and ranges that the rest relies on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

import trainables.records.names as n
from trainables.records.objectives import Objective, columns_of
from trainables.records.points import NUMBERS, WHOLE


def known(record: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The record's known columns, null where it has none, and what is neither number nor text as JSON."""
    row = {column: record.get(column) for column in columns}
    for column, value in row.items():
        if isinstance(value, list | dict):
            row[column] = json.dumps(value)
    return row


def point_ids(points: pd.DataFrame) -> pd.Series:
    """What names each point: ``step_id``, and of a form other than fp32 ``step_id:form``."""
    return points[n.STEP_ID].where(points[n.FORM].eq(n.FP32), points[n.STEP_ID] + ":" + points[n.FORM])


def frame(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective] = ()) -> pd.DataFrame:
    """One row a point, columns as in ``columns_of``: whole numbers, floats, text and ``reused`` as a truth value."""
    points = pd.DataFrame(list(rows), columns=list(columns_of(objectives)))
    for column, usual in ((n.FORM, n.FP32), (n.STORED_FORMAT, n.SAFETENSORS)):  # what older studies don't tell
        points[column] = points[column].where(points[column].notna(), usual)
    points[n.REUSED] = points[n.REUSED].eq(True)
    text = set(n.POINT_COLUMNS) - NUMBERS - {n.REUSED}
    kinds = {column: "Int64" if column in WHOLE else "str" if column in text else "float64" for column in points}
    return points.astype({column: kind for column, kind in kinds.items() if column != n.REUSED})
