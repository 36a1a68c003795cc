"""How much each layer can lose, as a table and a figure for each family: what ``search sensitivity`` measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import trainables.records.names as n
from analysis import words
from analysis.figures import PERCENT, render, style
from analysis.load import measure_in
from trainables.records.files import write_atomically
from trainables.records.jsonl import read_rows
from trainables.records.objectives import Quality
from trainables.records.points import LARGEST, fault_of, value_problem

TABLE = "sensitivity.csv"
TITLES = {n.UNSTRUCTURED: "weights of one layer", n.STRUCTURED: "channels of one group of layers"}
COLUMNS = (n.FAMILY, n.LAYER, n.LAYERS, n.REQUESTED_SPARSITY, n.SHARE, n.DENSE_VALUE, n.NOISE)
OTHERS = (n.SPARSITY, n.MACS, n.COMPRESSION, n.IMPORTANCE, n.SCOPE, n.RETRAIN, n.STEP_ID)
MOST = 3
"""Layers that are named as those that carry the loss."""
LOSS = "loss"
"""The column of how much worse than the dense network's the measure is: below 0 where it is better."""
LEGIBLE = 40
"""Layers up to which each cell has its number."""


@dataclass(frozen=True)
class Sensitivity:
    """What a study's cuts of single layers came to."""

    rows: pd.DataFrame
    """a cut each"""
    sentences: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    """for readers, by family"""
    figures: Mapping[str, Figure]
    """by the name of their file"""


def read_sensitivity(folder: Path, measure: Quality | None = None) -> Sensitivity:
    """What lies in a study's folder; InputError if nothing was measured, or it can't be read."""
    measure = measure or measure_in(folder)
    rows = load(folder, measure)
    families = {str(family): own for family, own in rows.groupby(n.FAMILY, sort=False)}
    return Sensitivity(
        rows,
        tuple(text for family, own in families.items() for text in _sentences(family, own, measure)),
        {family: _table(own, measure) for family, own in families.items()},
        {f"sensitivity_{family}": sensitivity_figure(own, measure, TITLES[family]) for family, own in families.items()},
    )


def write_sensitivity(folder: Path) -> list[Path]:
    """Write the table, and a figure for each family, to the folder's report; InputError if nothing was measured."""
    found, report = read_sensitivity(folder), folder / n.REPORT_FOLDER
    report.mkdir(exist_ok=True)
    written = [report / TABLE]
    write_atomically(written[0], found.rows.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    for name, figure in found.figures.items():
        for kind in ("png", "svg"):
            written.append(report / f"{name}.{kind}")
            write_atomically(written[-1], render(figure, kind))
    return written


def _sentences(family: str, rows: pd.DataFrame, measure: Quality) -> Iterator[str]:
    """Which layers carry the loss, and which could go."""
    noise, layers = 2 * rows[n.NOISE].max(), rows.groupby(n.LAYER, sort=False)
    most = layers[LOSS].max()
    carry = [name for name in layers[LOSS].mean().sort_values(ascending=False, kind="stable").index if most[name] > noise]
    worst = rows.loc[layers[LOSS].idxmax()].set_index(n.LAYER)
    if carry:
        told = (
            f"{name}, which loses {measure.told_loss(worst[LOSS][name])} without {worst[n.SHARE][name]:.0%} of it"
            for name in carry[:MOST]
        )
        yield f"{family.capitalize()}: the loss is carried by {'; '.join(told)}."
    free = [str(name) for name in most.index if most[name] <= noise]
    if free:
        least = layers[n.SHARE].max()[free].min()
        yield f"{family.capitalize()}: {least:.0%} of any of these could go within the noise: {', '.join(free)}."


def _table(rows: pd.DataFrame, measure: Quality) -> pd.DataFrame:
    """What is lost, a row a layer and a column a share; nothing where it wasn't cut so far."""
    lost = _by_share(rows, measure).map(lambda value: words.MISSING if pd.isna(value) else f"{value + 0.0:.3g}")
    return lost.set_axis([f"-{share:.0%}" for share in lost.columns], axis=1).reset_index()


def _by_share(rows: pd.DataFrame, measure: Quality) -> pd.DataFrame:
    """The scaled loss, a row a layer in the network's order."""
    table = rows.pivot_table(index=n.LAYER, columns=n.REQUESTED_SPARSITY, values=LOSS, sort=False)
    return (PERCENT if measure.is_share else 1.0) * table[sorted(table.columns)]


def unit_of(measure: Quality) -> str:
    """What losses are told in."""
    return "points" if measure.is_share else measure.unit or measure.name


def load(folder: Path, measure: Quality) -> pd.DataFrame:
    """The rows of a study's ``sensitivity.jsonl``, a cut each, with its loss."""
    path = folder / n.SENSITIVITY_FILE
    rows = [row for _, row in read_rows(path, lambda row: _fault(row, measure))]
    if not rows:
        raise n.InputError(f"{path}: nothing was measured yet; python -m search sensitivity {folder}")
    found = pd.DataFrame([_told(row, measure) for row in rows])
    sign = 1.0 if measure.gain(1.0, 1.0) > 0 else -1.0
    return found.assign(**{LOSS: sign * (found[n.DENSE_VALUE] - found[measure.column])})


def _fault(row: Mapping[str, Any], measure: Quality) -> str | None:
    if row.get(n.FAMILY) not in TITLES:
        return f"{n.FAMILY} is none of {', '.join(TITLES)}"
    names = row.get(n.LAYERS)
    listed = [row.get(n.LAYER), *names] if isinstance(names, list) else [None]
    if not all(isinstance(one, str) and one.isprintable() and "$" not in one for one in listed):
        return f"{n.LAYER} is no layer's name"
    if not isinstance(row.get(n.SHARE), float | int) or not 0 <= row[n.SHARE] <= 1:
        return f"{n.SHARE} is no share from 0 to 1"
    if problem := value_problem(measure, row.get(n.DENSE_VALUE)):
        return f"{n.DENSE_VALUE} {problem}"
    if not isinstance(row.get(n.NOISE), float | int) or not 0 <= row[n.NOISE] < LARGEST:
        return f"{n.NOISE} is no standard error"
    return fault_of(row, (n.REQUESTED_SPARSITY, n.SPARSITY), measure=measure)


def _told(row: Mapping[str, Any], measure: Quality) -> dict[str, Any]:
    told = {column: row.get(column) for column in (*COLUMNS, measure.column, measure.before, *OTHERS)}
    return told | {n.LAYERS: " ".join(row[n.LAYERS])}


def sensitivity_figure(rows: pd.DataFrame, measure: Quality, what: str) -> Figure:
    """The loss of each layer at each share, a row a layer in the network's order; the darker the more it costs."""
    table = _by_share(rows, measure)
    with style():
        size = 1.8 + 0.95 * table.shape[1] + 0.075 * max(map(len, table.index)), 1.6 + 0.3 * len(table)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        _draw(axes, table, f"{measure.name} lost ({unit_of(measure)})")
        axes.set(xlabel=f"share of the {what} that is cut, alone", ylabel="")
        axes.set_xticklabels([words.percent(share, 0) for share in table.columns])
        axes.set_yticks(np.arange(len(table)) + 0.5, table.index, rotation=0)
    return figure


def _draw(axes: Axes, table: pd.DataFrame, label: str) -> None:
    worst = max(float(np.nanmax(table.to_numpy())), 1e-9)  # what gains is white, as what loses nothing
    sns.heatmap(
        table, ax=axes, vmin=0.0, vmax=worst, cmap="Oranges", linewidths=0.6, linecolor="0.9", annot=len(table) <= LEGIBLE,
        fmt=".1f" if worst >= 1 else ".2g", annot_kws={"fontsize": "small"}, cbar_kws={"label": label},
    )  # fmt: skip
