"""Tables for a terminal: a front, and what fresh seeds said of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from trainables.records import names as n
from trainables.records.confirmation import Member
from trainables.records.jsonl import Row
from trainables.records.objectives import ACCURACY, Objective, Quality
from trainables.records.points import point_id
from trainables.records.words import recipe
from trainables.training.retraining import RETRAININGS


def front_table(rows: list[Row], objectives: Iterable[Objective] = (), measure: Quality = ACCURACY) -> Table:
    """The front, one row a point, as it is shown at the end of a run; objectives of the user's own have a column each."""
    own = [one for one in objectives if one.column not in n.POINT_COLUMNS and not one.quality]
    labels = {name: RETRAININGS[name].described()["label"] for row in rows if (name := row[n.RETRAIN]) in RETRAININGS}
    table = Table(title="Pareto front (validation)", title_justify="left")
    for column in (escape(measure.name), "compression", "sparsity", *(escape(one.label) for one in own), "recipe", "point"):
        table.add_column(column, no_wrap=column == "point", justify="left" if column in ("recipe", "point") else "right")
    for row in rows:
        table.add_row(
            measure.told(row[measure.column]),
            f"{row[n.COMPRESSION]:.2f}×",
            f"{row[n.SPARSITY]:.1%}",
            *(f"{row[one.column]:.4g}" for one in own),
            escape(f"{row[n.FAMILY]}: {recipe(row, labels)}"),
            point_id(row),
        )
    return table


def again_table(members: Sequence[Member], tested: Mapping[str, float | None], measure: Quality) -> Table:
    """The front's members again on fresh seeds: mean ± standard deviation over them, all of the test images."""
    title = f"The front on fresh seeds (test): {measure.name}, mean ± standard deviation"
    table = Table(title=title, title_justify="left")
    for heading in ("validation", "test", "fresh seeds", "n", "lost to dense", "lost to control", "on the front", "point"):
        last = heading == "point"
        table.add_column(heading, no_wrap=last, justify="left" if last else "right")
    for one in members:
        value, lost, control = (one.over_seeds(name) for name in ("value", "lost", "to_control"))
        own = tested.get(one.point)
        table.add_row(
            measure.told(one.row[measure.column]), "-" if own is None else measure.told(own), measure.told_spread(*value),
            str(len(one.seen)), measure.told_spread(*lost, change=True), measure.told_spread(*control, change=True),
            one.chance, one.point,
        )  # fmt: skip
    return table
