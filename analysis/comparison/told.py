"""What a page may say: numbers and verdict words out of the frame. A sentence that the frame contradicts is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison.sweep import Sweep
from trainables.records.contrasts import CUTTING, LEVEL, PEAK_LR, unknown, where_of
from trainables.records.objectives import Quality
from trainables.records.words import RETRAINING, counted

MINUS = "\N{MINUS SIGN}"
SPEED_UP, SPEED_UP_LARGE = "speed_up", "speed_up_large_batch"
OF_TIME = {SPEED_UP: (n.LATENCY, n.LATENCY_DENSE), SPEED_UP_LARGE: (n.LATENCY_LARGE, n.LATENCY_LARGE_DENSE)}


@dataclass(frozen=True, eq=False)
class Told:
    """Says what the frame of a sweep says, to a template named ``where``."""

    sweep: Sweep
    frame: pd.DataFrame
    where: str

    def effect(self, contrast: str, **of: Any) -> str:
        """A difference with its interval: "+0.31 points (95% interval −0.04 to +0.67, n = 8)"."""
        rows = self._rows(contrast, of)
        if len(rows) != 1:
            told = "; ".join(at(row) for row in rows["of"])
            raise n.InputError(f"{self.where}: {contrast} has {len(rows)} tests there, not one: {told}; say which")
        return effect(rows.iloc[0], self.sweep.measure)

    def verdict(self, contrast: str, expected: str, say: str = "", **of: Any) -> str:
        """``say``, or the verdict's word, if that is the verdict of all these tests, and they conclude."""
        self._check(contrast, expected, of, concludes=True)
        return say or expected

    def hint(self, contrast: str, expected: str, say: str = "", **of: Any) -> str:
        """The same of tests that conclude nothing, because their seeds chose, tuned, were added, or are too few."""
        self._check(contrast, expected, of, concludes=False)
        return f"{say or expected} (not concluded)"

    def mean(self, arm: str, column: str, **of: Any) -> str:
        """An arm's mean over seeds, formatted: its measure, bytes, milliseconds or another column."""
        return formatted(self.value(arm, column, **of), column, self.sweep.measure)

    def value(self, arm: str, column: str, **of: Any) -> float:
        """The same as a number."""
        try:
            where = where_of(arm, self.sweep.declared.arms, self.where)
        except ValueError as error:
            raise n.InputError(str(error)) from None
        rows = self.sweep.where({**where, **of}, f"{self.where}: {arm}")
        return float(values(rows, column, self.sweep).groupby(rows[n.SEED]).mean().mean())

    def _check(self, contrast: str, expected: str, of: Mapping[str, Any], *, concludes: bool) -> None:
        rows = self._rows(contrast, of)
        for row in rows.to_dict("records"):
            what = f"{contrast} at {at(row['of'])}" if row["of"] else contrast
            if row["verdict"] != expected:
                found = f"the frame says {row['verdict']!r}: {effect(row, self.sweep.measure)}"
                raise n.InputError(f"{self.where}: says that {what} is {expected!r}, and {found}; correct the sentence")
            if bool(row["concludes"]) != concludes:
                found = "does not conclude; say it with hint()" if concludes else "concludes; say it with verdict()"
                raise n.InputError(f"{self.where}: {what} {found}")

    def _rows(self, contrast: str, of: Mapping[str, Any]) -> pd.DataFrame:
        names = list(dict.fromkeys(self.frame["contrast"]))
        if contrast not in names:
            raise n.InputError(f"{self.where}: {contrast!r} is no contrast; {unknown(contrast, names)}")
        rows = self.frame[self.frame["contrast"] == contrast]
        found = rows[[all(_is(cell.get(key), value) for key, value in of.items()) for cell in rows["of"]]]
        if found.empty:
            raise n.InputError(f"{self.where}: {contrast} has no test at {at(of)}; it has {'; '.join(map(at, rows['of']))}")
        return found


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple):
        return any(_is(value, one) for one in wanted)
    if isinstance(value, str) or isinstance(wanted, str) or value is None:
        return bool(value == wanted)
    return bool(np.isclose(value, wanted))


def values(rows: pd.DataFrame, column: str, sweep: Sweep) -> pd.Series:
    """A column of the networks; the measure's is that of the split, and speed-ups are of times under equal conditions."""
    if column in OF_TIME:
        own, dense = OF_TIME[column]
        return rows[dense] / rows[own]
    return rows[sweep.split if column == sweep.measure.column else column]


def formatted(value: float, column: str, measure: Quality) -> str:
    """A mean as a reader wants to see it."""
    if column in (measure.column, measure.before):
        return measure.told(value)
    if column in (LEVEL, n.SPARSITY, n.REQUESTED_SPARSITY):
        return words.percent(value, 0)
    if column in (n.COMPRESSION, *OF_TIME):
        return words.times(value)
    return words.amount(value) if column in (n.MACS, n.PARAMS, n.STORED_BYTES) else words.number(value)


def effect(row: Mapping[Any, Any] | pd.Series, measure: Quality) -> str:
    """The difference of a row of the frame, in the unit of differences, with its interval."""
    count, difference = f"n = {row['n']}", f"{signed(row['estimate'], measure)} {unit(measure)}".rstrip()
    if pd.isna(row["low"]):
        return f"{difference} ({count}, no interval)"
    return f"{difference} (95% interval {signed(row['low'], measure)} to {signed(row['high'], measure)}, {count})"


def unit(measure: Quality) -> str:
    """What differences of a measure are told in; empty where it has no unit."""
    return "points" if measure.is_share else measure.unit


def signed(difference: float, measure: Quality) -> str:
    """A difference, of a share in points: -0.0083 -> "−0.83"."""
    text = f"{100 * difference:+.2f}" if measure.is_share else f"{difference:+.3g}"
    return text.replace("-", MINUS) if float(text) else "0.00" if measure.is_share else "0"


def at(cell: Mapping[str, Any]) -> str:
    """What a test is of, in words: "90% removed, 8 epochs in all, learning-rate rewinding"."""
    return ", ".join(_said(key, value) for key, value in cell.items())


def _said(key: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return " or ".join(_said(key, one) for one in value)
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return f"no {key}"
    told = {
        LEVEL: lambda: f"{words.percent(value, 0)} removed", n.TOTAL_EPOCHS: lambda: f"{counted(value, 'epoch')} in all",
        n.RETRAIN: lambda: RETRAINING.get(value, value), CUTTING: lambda: value.replace("_", "-"),
        n.COMPRESSION: lambda: words.times(value), n.IMPORTANCE: lambda: value, n.PRUNER: lambda: value,
        PEAK_LR: lambda: f"learning rate {value:.4g}",
    }  # fmt: skip
    return str(told[key]()) if key in told else f"{key} {value if isinstance(value, str) else f'{value:g}'}"
