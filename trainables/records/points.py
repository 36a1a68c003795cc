"""What the columns of a point may hold: types and ranges, checked wherever a point is read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trainables.records import names as n
from trainables.records.untrusted import is_address

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
# Nothing that is measured is smaller and not 0; a quotient of two numbers in range stays finite.
SMALLEST = 1e-9

KINDS: Mapping[str, tuple[str, ...]] = {
    "dense": (n.SEED,), "sparse": (n.PRUNER, n.EPOCHS, "learning_rate"),
    "prune": (n.FAMILY, n.IMPORTANCE, n.SCOPE, "removed_ppm"),
}  # fmt: skip
"""What kinds of nodes the tree has, and the settings that each must have."""


def fault_of(row: Mapping[str, Any], required: Iterable[str] = REQUIRED) -> str | None:
    """The first column that cannot be used and why, or None if all can."""
    for column in n.POINT_COLUMNS:
        value = row.get(column)
        if problem := _problem(column, value, value is None and column in required):
            return f"{column} {problem}"
    return None


def share_problem(value: Any) -> str | None:
    """Why this value is no share from 0 to 1, or None if it is one."""
    return "is missing" if value is None else _number_problem(n.ACCURACY, value)


def is_record(record: Mapping[str, Any], measured: Iterable[str]) -> bool:
    """Whether a step's record has all that one must have, each of its type and in its range."""
    parent, settings, layers = record.get("parent"), record.get("settings"), record.get("layers")
    counts = list(layers.values()) if isinstance(layers, dict) else [None]
    return (
        (parent is None or is_address(parent))
        and isinstance(settings, dict)
        and set(settings) >= {"kind", *KINDS.get(str(settings.get("kind")), ("no such kind",))}
        and all(isinstance(pair, list) and len(pair) == 2 and all(type(count) is int for count in pair) for pair in counts)
        and is_address(record.get(n.SHAPE_ID))
        and all(column in record for column in measured)
        and fault_of(record, (n.SPARSITY, n.ACCURACY, n.PARAMS, n.STORED_BYTES, n.COMPRESSION, n.EPOCHS, n.SECONDS)) is None
    )


def _problem(column: str, value: Any, missing: bool) -> str | None:
    if value is None:
        return "is missing" if missing else None
    if column in NUMBERS:
        return _number_problem(column, value)
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
