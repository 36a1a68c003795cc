"""Numbers of a comparison as sentences tell them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis import words
from analysis.comparison.columns import LEVEL
from analysis.comparison.statistics import (
    ADJUSTED,
    CONFIDENCE,
    COUNT,
    HIGH,
    HIGHER,
    LOW,
    LOWER,
    MEAN,
    MIN_SEEDS,
    SIGNIFICANCE,
    TIE,
    UNDECIDED,
    VERDICT,
)
from analysis.words import MISSING
from trainables.records.words import RETRAINING

MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
CORRECTED = "tie after correction"
"""a tie whose own interval leaves 0 out"""


@dataclass(frozen=True)
class Table:
    """One table of the report: headings and cells as a reader sees them."""

    title: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Answer:
    """What one question comes to."""

    headline: str
    """one sentence for the summary; empty where there is nothing to say"""
    paragraph: str
    details: Sequence[str] = ()
    missing: Sequence[str] = ()
    tables: Sequence[Table] = ()
    findings: Mapping[str, Any] = field(default_factory=dict)
    """frames and plain values, for machines"""


def points(share: float) -> str:
    """A signed difference of accuracy: -0.0042 -> "−0.42 points"."""
    return f"{signed(share)} points"


def signed(share: float) -> str:
    """A signed difference in points, two decimals and a true minus sign."""
    if pd.isna(share):
        return MISSING
    text = f"{100 * share:+.2f}".replace("-", MINUS)
    return "0.00" if text in ("+0.00", f"{MINUS}0.00") else text


def size(share: float) -> str:
    """A difference without its sign."""
    return f"{abs(100 * share):.2f} points"


def evidence(row: Mapping[Any, Any]) -> str:
    """A mean difference with all that it rests on: interval, seeds, and the adjusted p where it was tested."""
    return f"{points(row[MEAN])} ({support(row)})"


def support(row: Mapping[Any, Any]) -> str:
    """What a mean rests on: its interval, the number of seeds, the adjusted p where it was tested."""
    parts = [f"n = {row[COUNT]:.0f} {'seed' if row[COUNT] == 1 else 'seeds'}"]
    if pd.notna(row[LOW]):
        parts.insert(0, f"{words.percent(CONFIDENCE, 0)} interval {signed(row[LOW])} to {signed(row[HIGH])}")
    if pd.notna(row.get(ADJUSTED)):
        parts.append(probability(row[ADJUSTED]))
    return ", ".join(parts)


def probability(adjusted: float) -> str:
    """An adjusted p value, with as many digits as tell on which side of the threshold it is."""
    if adjusted < 0.001:
        return "adjusted p < 0.001"
    texts = (f"{adjusted:.{digits}g}" for digits in itertools.count(2))
    told = next(text for text in texts if (float(text) < SIGNIFICANCE) == (adjusted < SIGNIFICANCE))
    return f"adjusted p = {told}"


def interval(row: Mapping[Any, Any]) -> str:
    """The same without the p, which is that of no difference at all and says nothing of another bound."""
    return evidence({key: value for key, value in row.items() if key != ADJUSTED})


def turns(row: Mapping[Any, Any], at: pd.DataFrame) -> bool:
    """Whether one side is ahead at some of its levels and the other one at others, or in the mean, beyond the noise."""
    return {HIGHER, LOWER} <= {row[VERDICT], *at[VERDICT]}


def ahead(rows: pd.DataFrame, higher: str, lower: str) -> str:
    """Who is ahead at which levels beyond the noise: "one-shot at 50 and 80%, iterative at 95%, a tie at 90%"."""
    sides = {HIGHER: higher, LOWER: lower, TIE: "a tie", UNDECIDED: "open"}
    found = {name: rows.loc[rows[VERDICT] == verdict, LEVEL] for verdict, name in sides.items()}
    told = sorted((name in ("a tie", "open"), min(at), f"{name} at {levels(at)}") for name, at in found.items() if len(at))
    return ", ".join(text for *_, text in told)


def cell(row: Mapping[Any, Any], *, verdict: bool = True, seeds: float | None = None) -> str:
    """A mean difference for a table: "−0.42 ± 0.38, lower".

    ``seeds`` is the number that the table gives for the whole row; a cell that rests on another number says so.
    """
    if pd.isna(row[MEAN]):
        return MISSING
    half = f" {PLUS_MINUS} {100 * (row[HIGH] - row[MEAN]):.2f}" if pd.notna(row[LOW]) else ""
    said = row.get(VERDICT) if verdict else None
    if said == TIE and (row[LOW] > 0 or row[HIGH] < 0):
        said = CORRECTED
    own = f" (n = {row[COUNT]:.0f})" if seeds is not None and row[COUNT] != seeds else ""
    return f"{signed(row[MEAN])}{half}{own}" + (f", {said}" if said and said != UNDECIDED else "")


def level(share: float) -> str:
    """A level in percent, without idle decimals."""
    return f"{100 * share:.4g}%"


def levels(shares: Iterable[float]) -> str:
    """Several levels: "50, 80 and 90%"."""
    found = [f"{100 * share:.4g}" for share in sorted(set(shares))]
    return f"{joined(found)}%"


def over(shares: Iterable[float]) -> str:
    """What a mean is of: "averaged over 50 and 80%", or "at 50%"."""
    found = set(shares)
    return f"{'averaged over' if len(found) > 1 else 'at'} {levels(found)}"


def alike(found: Iterable[tuple[str, str]]) -> list[str]:
    """(name, what is said of it) with the names together of which the same is said: "a and b: on 1 of 3 seeds"."""
    names: dict[str, list[str]] = {}
    for name, said in found:
        if said:
            names.setdefault(said, []).append(name)
    return [f"{joined(some)}: {said}" for said, some in names.items()]


def joined(parts: Iterable[str], last: str = "and") -> str:
    """Parts of a sentence: "a, b and c"."""
    *most, end = list(parts) or [""]
    return f"{', '.join(most)} {last} {end}" if most else end


def some(names: Sequence[str], most: int = 6) -> str:
    """Names, of which only the first few where there are many."""
    if len(names) <= most:
        return joined(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def seeds(numbers: Iterable[Any]) -> str:
    """The seeds by number: "0, 1 and 2"."""
    return joined(str(int(number)) for number in sorted(set(numbers)))


def seed_numbers(numbers: Iterable[Any]) -> str:
    """The same with the noun: "seed 0", "seeds 0 and 1"."""
    found = set(numbers)
    return f"{'seed' if len(found) == 1 else 'seeds'} {seeds(found)}"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 recipe", "3 recipes"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def too_few(number: float) -> str:
    """Why nothing is concluded."""
    return f"nothing is concluded from n = {number:.0f} {'seed' if number == 1 else 'seeds'} ({MIN_SEEDS} are needed)"


def retraining(name: Any) -> str:
    """A retraining in words."""
    return RETRAINING.get(name, str(name).replace("_", " "))


def epochs(number: float, fewest: float | None = None) -> str:
    """A number of epochs, or from the fewest to it."""
    span = "" if fewest in (None, number) else f"{fewest:g} to "
    return f"{span}{number:g} {'epoch' if number == 1 else 'epochs'}"


def sentence(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


def clause(text: str) -> str:
    """Without one, to stand after a colon."""
    return text[:1].lower() + text[1:]
