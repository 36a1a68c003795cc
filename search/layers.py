"""What a sensitivity says of a network's layers, for a terminal: what each loses, and limits of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from pydantic import ValidationError
from rich import box
from rich.markup import escape
from rich.table import Table

from search.study import yaml_inline
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.records.limits import Limits, lost_of
from trainables.records.names import InputError
from trainables.records.objectives import Quality

WHAT = {n.UNSTRUCTURED: "weights of one layer", n.STRUCTURED: "channels of one group of layers"}


def losses(rows: Sequence[Row], measure: Quality) -> dict[str, list[tuple[float, float]]]:
    """Layer -> (share, loss of the measure in its unit) of each cut, shares rising; a gain is a loss below 0."""
    found = dict[str, list[tuple[float, float]]]()
    for row in rows:
        dense = row[n.DENSE_VALUE]
        lost = measure.gain(dense, dense) - measure.gain(row[measure.column], dense)
        found.setdefault(row[n.LAYER], []).append((row[n.SHARE], lost))
    return {name: sorted(points) for name, points in found.items()}


def largest_share(points: Sequence[tuple[float, float]], allowed: float) -> float:
    """The share up to which no more than ``allowed`` is lost, linear between what was measured, and at most all of that.

    From nothing, which loses nothing; of a loss that comes and goes again, up to where it comes.
    """
    for (share, lost), (more, then) in pairwise([(0.0, 0.0), *points]):
        if then > allowed:
            return share if lost >= allowed else share + (more - share) * (allowed - lost) / (then - lost)
    return points[-1][0]


def allowed_drop(given: str, measure: Quality) -> float:
    """A drop as people write it, in the measure's unit: points of a share; InputError if it is none."""
    try:
        drop = lost_of(Limits(max_drop=given).max_drop or 0.0, measure)
    except ValidationError as error:
        raise InputError(f"--max-drop: {given!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    except ValueError as error:
        raise InputError(f"--max-drop: {given!r}: {error}") from None
    if math.isnan(drop):
        raise InputError(
            f"--max-drop: {given!r} is relative; give {'points' if measure.is_share else 'an amount'} of {measure.name}"
        )
    return drop


def tables(rows: Sequence[Row], measure: Quality) -> Iterator[Table]:
    """For each family what every layer loses at each share."""
    for family, own in _by_family(rows):
        shares = sorted({row[n.REQUESTED_SPARSITY] for row in own})
        of = {(row[n.LAYER], row[n.REQUESTED_SPARSITY]): _change(row, measure) for row in own}
        unit = "points" if measure.is_share else measure.unit or measure.name
        table = Table(
            title=f"{measure.label} without a share of the {WHAT[family]} ({unit})", title_justify="left", box=box.SIMPLE
        )
        table.add_column("layer", no_wrap=True)
        for share in shares:
            table.add_column(f"-{share:.0%}", justify="right")
        for name in losses(own, measure):
            table.add_row(escape(name), *(of.get((name, share), "") for share in shares))
        yield table


def _change(row: Row, measure: Quality) -> str:
    change = row[measure.column] - row[n.DENSE_VALUE]
    return f"{100 * change:+.1f}" if measure.is_share else f"{change:+.3g}"


def snippet(rows: Sequence[Row], measure: Quality, allowed: float) -> Iterator[str]:
    """``model.max_sparsity`` of each family, as YAML: what each layer alone may lose for no more than ``allowed``."""
    for family, own in _by_family(rows):
        limits = {name: largest_share(points, allowed) for name, points in losses(own, measure).items()}
        yield f"# {family}: each layer alone loses at most {measure.told_drop(allowed)}; all of them together lose more"
        if allowed < 2 * own[0][n.NOISE]:
            yield f"# less than can be told on the validation set, {measure.told_loss(2 * own[0][n.NOISE])}"
        listed = ", ".join(f"{yaml_inline(name)}: {math.floor(100 * share) / 100:g}" for name, share in limits.items())
        yield f"model: {{max_sparsity: {{{listed}}}}}"


def _by_family(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    return ((family, list(own)) for family, own in groupby(rows, itemgetter(n.FAMILY)))
