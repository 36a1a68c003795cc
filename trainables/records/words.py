"""How a network was pruned, in words."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from trainables.records import names as n

RETRAINING = {
    "fine_tune": "fine-tuning",
    "lr_rewind": "learning-rate rewinding",
    "weight_rewind": "weight rewinding",
}
"""Labels of retrainings, for folders that were written before methods were described beside their study."""

WITHOUT_EPOCHS = {"recalibrate": "recalibrated BatchNorm"}
"""Retrainings that train nothing and have an effect."""


def recipe(point: Mapping[Any, Any], labels: Mapping[str, str] | None = None) -> str:
    """How one network was pruned, in words; a setting that the point does not have is not mentioned.

    ``labels`` are those of retrainings, by name.
    """
    return "; ".join(part for part in _parts(point, labels or RETRAINING) if part)


def _parts(point: Mapping[Any, Any], labels: Mapping[str, str]) -> tuple[str, ...]:
    cuts, training = int(point[n.STEP]), _training(point, labels)
    if not (before := int(_value(point, n.CHANNEL_STEPS))):
        return _method(point), _cuts(point, cuts), training
    of_channels = {
        n.IMPORTANCE: point[n.CHANNEL_IMPORTANCE],
        n.SCOPE: point[n.CHANNEL_SCOPE],
        n.ROUND_TO: point[n.ROUND_TO],
    }
    first = f"{_method(of_channels)}, {_cuts({n.STEP_RATIO: point[n.CHANNEL_RATIO]}, before)} of the channels"
    weights = {**point, n.ROUND_TO: None, n.STEPS: _value(point, n.STEPS) - before}
    return first, f"then {_method(weights)}", f"{_cuts(weights, cuts - before)} of the weights", training


def _method(point: Mapping[Any, Any]) -> str:
    pruner = _text(point, n.PRUNER)
    parts = [_text(point, n.IMPORTANCE), f"{pruner} pruner" if pruner else "", _text(point, n.SCOPE)]
    if (multiple := _value(point, n.ROUND_TO)) > 1:
        parts.append(f"widths in multiples of {multiple:g}")
    return ", ".join(part for part in parts if part)


def _cuts(point: Mapping[Any, Any], cuts: int) -> str:
    if ratio := _value(point, n.STEP_RATIO):
        return f"one cut of {100 * ratio:g}%" if cuts == 1 else f"{cuts} cuts of {100 * ratio:g}% each"
    kind = _text(point, n.SCHEDULE)
    planned = _value(point, n.STEPS) or cuts
    return f"{kind} schedule, cut {cuts} of {planned:g}" if kind else counted(cuts, "cut")


def _training(point: Mapping[Any, Any], labels: Mapping[str, str]) -> str:
    parts = []
    if (sparse := _value(point, n.SPARSE_EPOCHS)) > 0:
        parts.append(f"{counted(sparse, 'sparse epoch')} before")
    retrain, when = _text(point, n.RETRAIN), "after each" if point[n.STEP] > 1 else "after it"
    if retrain in WITHOUT_EPOCHS:
        parts.append(f"{WITHOUT_EPOCHS[retrain]} {when}")
    elif (epochs := _value(point, n.FINE_TUNE_EPOCHS)) > 0:
        how = labels.get(retrain, retrain.replace("_", " ") or "retraining")
        parts.append(f"{counted(epochs, 'epoch')} of {how} {when}")
    return " and ".join(parts)


def _text(point: Mapping[Any, Any], column: str) -> str:
    value = point.get(column)
    return str(value) if _is_there(value) else ""


def _value(point: Mapping[Any, Any], column: str) -> float:
    value = point.get(column)
    return float(value) if value is not None and _is_there(value) else 0.0


def _is_there(value: Any) -> bool:
    """Neither None nor any library's sign of a missing value; NaN alone differs from itself."""
    return isinstance(value, str | Real) and value == value  # noqa: PLR0124


def counted(amount: float, noun: str) -> str:
    """So many of something: 2, "epoch" -> "2 epochs"."""
    return f"{amount:g} {noun}" if amount == 1 else f"{amount:g} {noun}s"
