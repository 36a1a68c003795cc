"""Numbers and recipes as a reader wants to see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

import trainables.records.names as n

MISSING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
RETRAINING = {
    "fine_tune": "fine-tuning",
    "lr_rewind": "learning-rate rewinding",
    "weight_rewind": "weight rewinding",
}


def percent(value: Any, digits: int = 1) -> str:
    """A share in percent: 0.914 -> "91.4%"."""
    return MISSING if pd.isna(value) else f"{100 * value:.{digits}f}%"


def times(value: Any) -> str:
    """A factor in three digits: 12.3456 -> 12.3 times."""
    return MISSING if pd.isna(value) else f"{value:#.3g}".rstrip(".") + TIMES


def number(value: Any, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, or all digits of its whole part: 123456.7 -> "123,457"."""
    if pd.isna(value):
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def amount(value: Any) -> str:
    """A count in three digits with its unit: 4_200_000 -> "4.20 M"."""
    if pd.isna(value):
        return MISSING
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:#.3g}".rstrip(".") + unit
    return f"{value:g}"


def points_of_accuracy(share: float) -> str:
    """A difference of accuracy in points: 0.005 -> "0.5 points"."""
    return _count(round(100 * share, 6), "point")


def recipe(point: Mapping[Any, Any]) -> str:
    """How one network was pruned, in words; a setting that the point does not have is not mentioned."""
    return "; ".join(part for part in (_method(point), _cuts(point), _training(point)) if part)


def _method(point: Mapping[Any, Any]) -> str:
    pruner = _text(point, n.PRUNER)
    parts = [_text(point, n.IMPORTANCE), f"{pruner} pruner" if pruner else "", _text(point, n.SCOPE)]
    if (multiple := _value(point, n.ROUND_TO)) > 1:
        parts.append(f"widths in multiples of {multiple:g}")
    return ", ".join(part for part in parts if part)


def _cuts(point: Mapping[Any, Any]) -> str:
    cuts = int(point[n.STEP])
    if ratio := _value(point, n.STEP_RATIO):
        return f"one cut of {100 * ratio:g}%" if cuts == 1 else f"{cuts} cuts of {100 * ratio:g}% each"
    kind = _text(point, n.SCHEDULE)
    planned = _value(point, n.STEPS) or cuts
    return f"{kind} schedule, cut {cuts} of {planned:g}" if kind else _count(cuts, "cut")


def _training(point: Mapping[Any, Any]) -> str:
    parts = []
    if (sparse := _value(point, n.SPARSE_EPOCHS)) > 0:
        parts.append(f"{_count(sparse, 'sparse epoch')} before")
    if (epochs := _value(point, n.FINE_TUNE_EPOCHS)) > 0:
        retrain = _text(point, n.RETRAIN)
        how = RETRAINING.get(retrain, retrain.replace("_", " ") or "retraining")
        when = "after each" if point[n.STEP] > 1 else "after it"
        parts.append(f"{_count(epochs, 'epoch')} of {how} {when}")
    return " and ".join(parts)


def _text(point: Mapping[Any, Any], column: str) -> str:
    value = point.get(column)
    return "" if value is None or pd.isna(value) else str(value)


def _value(point: Mapping[Any, Any], column: str) -> float:
    value = point.get(column)
    return 0.0 if value is None or pd.isna(value) else float(value)


def _count(amount: float, noun: str) -> str:
    return f"{amount:g} {noun}" if amount == 1 else f"{amount:g} {noun}s"
