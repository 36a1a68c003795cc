"""Numbers as a reader wants to see them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from trainables.records.objectives import Quality

MISSING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


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


def quality(measure: Quality, value: Any, digits: int = 1) -> str:
    """A value of a measure: a share in percent, anything else in four digits with its unit."""
    return MISSING if pd.isna(value) else measure.told(float(value), digits)


def size(value: Any) -> str:
    """Bytes in three digits: 63_404 -> "63.4 kB"."""
    return amount(value) + (" bytes" if not value >= 1000 else "B")
