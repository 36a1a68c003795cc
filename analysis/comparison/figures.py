"""Figures of a comparison: pure functions from a sweep or its frame to a figure, or None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

import trainables.records.names as n
from analysis import words
from analysis.comparison.sweep import Sweep
from analysis.comparison.tables import BUDGET, MEAN, SCRATCH, best, trained_on
from analysis.comparison.told import SPEED_UP, SPEED_UP_LARGE, at, signed, values
from analysis.figures import PERCENT, PERCENT_FORMAT, VISIBLE_DROP, despine, log2_ticks, style
from trainables.records.contrasts import CUTTING, LEVEL, ONE_SHOT, PEAK_LR
from trainables.records.words import RETRAINING

COLOURS = {n.UNSTRUCTURED: "#0072B2", n.STRUCTURED: "#D55E00", n.MIXED: "#009E73"}
OF_RETRAINING = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
DENSE_COLOUR, HOLLOW = "0.45", "white"
SIDEWAYS = 1.05
"""A panel whose values differ by less than this factor would be a vertical line, and is not drawn."""
MOST_ROWS, PANELS_WIDE = 30, 4


def bytes_figure(sweep: Sweep) -> Figure | None:
    """Accuracy against bytes: the best recipe of each family at each level, with random importance and scratch."""
    lines = {
        "": (best(trained_on(sweep), [n.FAMILY, LEVEL], sweep.split), "o", "-"),
        ", random importance": (_of(sweep, n.IMPORTANCE, n.RANDOM), "x", ":"),
        ", trained from scratch": (_of(sweep, n.RETRAIN, SCRATCH), "D", ""),
    }
    return _figure(sweep, lines, [(n.COMPRESSION, "reduction of stored bytes (dense / pruned)")])


def speed_figure(sweep: Sweep) -> Figure | None:
    """Accuracy against measured speed-up, of whatever runs at another speed than its dense network."""
    lines = {"": (best(trained_on(sweep), [n.FAMILY, LEVEL], sweep.split), "o", "-")}
    panels = [(SPEED_UP, "measured speed-up, one image"), (SPEED_UP_LARGE, "measured speed-up, large batches")]
    return _figure(sweep, lines, panels)


def epochs_figure(sweep: Sweep) -> Figure | None:
    """Change of accuracy against retraining epochs: of cuts to one level that were retrained at several budgets."""
    rows = _changed(sweep, trained_on(sweep))
    rows = rows[rows[CUTTING].eq(ONE_SHOT) & rows[BUDGET].gt(0)]
    lines = [n.FAMILY, LEVEL, n.IMPORTANCE, n.SCOPE, n.PRUNER, n.RETRAIN]
    rows = rows[rows.groupby(lines, dropna=False)[BUDGET].transform("nunique") > 1]
    panels = rows[[n.FAMILY, LEVEL]].drop_duplicates().sort_values([n.FAMILY, LEVEL], ascending=[False, True])
    if panels.empty:
        return None
    names = dict(zip(sorted(set(rows[n.RETRAIN])), OF_RETRAINING * 9, strict=False))
    with style():
        figure, grid = _grid(len(panels), wide=PANELS_WIDE, size=3.3)
        for axes, (family, level) in zip(grid, panels.itertuples(index=False, name=None), strict=True):
            of_panel = rows[rows[n.FAMILY].eq(family) & rows[LEVEL].eq(level)]
            for key, line in of_panel.groupby(lines, dropna=False):
                means = line.groupby(BUDGET)["change"].agg([MEAN, "std", "count"])
                bars = 2 * means["std"] / np.sqrt(means["count"])
                retrain = str(key[-1])
                axes.errorbar(
                    means.index, means[MEAN], bars, marker="o", capsize=3, color=names[retrain],
                    label=_literal(RETRAINING.get(retrain, retrain)),
                )  # fmt: skip
            axes.axhline(0, color=DENSE_COLOUR, linestyle=(0, (4, 3)), linewidth=1)
            axes.set_title(f"{family}, {words.percent(level, 0)} removed", loc="left", fontsize="small")
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted(set(of_panel[BUDGET])), [f"{value:g}" for value in sorted(set(of_panel[BUDGET]))])
            axes.xaxis.set_minor_locator(NullLocator())
            despine(axes)
            axes.set_xlabel("epochs of retraining", fontsize="small")
        grid[0].set_ylabel("less dense, points")
        _legend(figure, grid)
    return figure


def pairs_figure(frame: pd.DataFrame) -> Figure | None:
    """Paired differences with intervals; of cutting in steps where the study has such, otherwise of all contrasts.

    Each is named by what it is of, and by the learning rates of both sides where they differ.
    """
    of_cutting = frame["differs"].str.contains(f"{CUTTING} iterative | one_shot", regex=False)
    shown = frame[of_cutting] if of_cutting.any() else frame
    shown = shown[shown["low"].notna()]
    shown = shown[shown["contrast"].isin(list(dict.fromkeys(shown["contrast"]))[:2])].groupby("contrast").head(MOST_ROWS)
    if shown.empty:
        return None
    names = list(dict.fromkeys(shown["contrast"]))
    with style():
        height = 1.4 + 0.27 * max(shown["contrast"].value_counts())
        figure = Figure(figsize=(7.2 * len(names), height), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _draw_pairs(axes, shown[shown["contrast"] == name].iloc[::-1])
    return figure


def _draw_pairs(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        low, mean, high = (PERCENT * row[key] for key in ("low", "estimate", "high"))
        axes.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color="#0072B2",
            markerfacecolor="#0072B2" if row["concludes"] else HOLLOW,
        )  # fmt: skip
    margin = PERCENT * float(rows["margin"].iloc[0])
    axes.axvspan(-margin, margin, color="0.92", zorder=0)
    axes.axvline(0, color=DENSE_COLOUR, linewidth=1)
    axes.set_yticks(places, [_label(row) for row in rows.to_dict("records")], fontsize="x-small")
    left, right = min(PERCENT * rows["low"].min(), -margin), max(PERCENT * rows["high"].max(), margin)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlim(1.3 * left - 0.1, 1.3 * right + 0.1)
    ticks = [sign * tick for tick in (0.5, 1.0, 3.0, 10.0, 30.0, 100.0) for sign in (-1, 1)]
    axes.set_xticks([0.0, *(tick for tick in ticks if 1.3 * left - 0.1 < tick < 1.3 * right + 0.1)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}")))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize="small")
    axes.set_xlabel(_literal(f"{rows['left'].iloc[0]} less {rows['right'].iloc[0]}, points"), fontsize="small")
    axes.set_title(_literal(str(rows["contrast"].iloc[0])), loc="left", fontsize="small")
    axes.grid(visible=False, axis="y")
    despine(axes)


def _literal(text: str) -> str:
    """Text of a study, in which a dollar sign is no mathematics."""
    return text.replace("$", r"\$")


def _label(row: dict[Any, Any]) -> str:
    rates = [part.removeprefix(f"{PEAK_LR} ") for part in str(row["differs"]).split("; ") if part.startswith(PEAK_LR)]
    return _literal(at(row["of"])) + (f" (lr {rates[0]})" if rates else "") + f"  {signed(row['estimate'])}"


def _of(sweep: Sweep, column: str, value: str) -> pd.DataFrame:
    rows = sweep.pruned
    return best(rows[rows[column].eq(value)], [n.FAMILY, LEVEL], sweep.split)


def _changed(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[rows[sweep.split].notna()]
    dense = sweep.dense.set_index(n.SEED)[sweep.split]
    return rows.assign(change=PERCENT * (rows[sweep.split] - rows[n.SEED].map(dense)))


def _figure(
    sweep: Sweep, lines: dict[str, tuple[pd.DataFrame, str, str]], panels: Sequence[tuple[str, str]]
) -> Figure | None:
    moving = [(column, label) for column, label in panels if _moves(sweep, [rows for rows, *_ in lines.values()], column)]
    if not moving:
        return None
    accuracy = PERCENT * float(sweep.dense[sweep.split].mean())
    with style():
        figure, grid = _grid(len(moving), wide=2, size=5.0)
        for axes, (column, label) in zip(grid, moving, strict=True):
            for name, (rows, marker, line) in lines.items():
                for family in n.FAMILIES:
                    own = rows[rows[n.FAMILY] == family]
                    if not _moves(sweep, [own, sweep.dense], column):
                        continue  # it would be a vertical line at 1
                    means = own.assign(x=values(own, column, sweep.split)).groupby(LEVEL)[["x", sweep.split]].mean()
                    axes.plot(
                        means["x"], PERCENT * means[sweep.split], marker=marker, linestyle=line, color=COLOURS[family],
                        label=f"{family}{name}", markersize=6, alpha=0.9,
                    )  # fmt: skip
            axes.plot(1, accuracy, "*", markersize=15, color="#F0C419", markeredgecolor="#222222", label="dense")
            axes.axhline(accuracy, color=DENSE_COLOUR, linestyle=(0, (4, 3)), linewidth=1)
            shown = pd.concat([rows for rows, *_ in lines.values()]).groupby([n.FAMILY, LEVEL])[sweep.split].mean()
            axes.set_ylim(max(accuracy - VISIBLE_DROP, PERCENT * float(shown.min()) - 1), accuracy + 1)
            axes.yaxis.set_major_formatter(PERCENT_FORMAT)
            log2_ticks(axes)
            axes.set_xlabel(label)
            despine(axes)
        grid[0].set_ylabel(f"{sweep.split} accuracy")
        _legend(figure, grid)
    return figure


def _moves(sweep: Sweep, groups: Sequence[pd.DataFrame], column: str) -> bool:
    """Whether the means of the levels differ there by more than a measurement's error."""
    means = pd.concat([values(rows, column, sweep.split).groupby(rows[LEVEL]).mean() for rows in groups]).dropna()
    return len(means) > 0 and bool(max(means.max(), 1.0) / min(means.min(), 1.0) > SIDEWAYS)


def _grid(count: int, *, wide: int, size: float) -> tuple[Figure, list[Axes]]:
    wide = min(wide, count)
    tall = -(-count // wide)
    figure = Figure(figsize=((1.6 if count == 1 else 1.0) * size * wide + 0.4, size * tall + 0.6), layout="constrained")
    grid = list(figure.subplots(tall, wide, squeeze=False).ravel())
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _legend(figure: Figure, grid: Sequence[Axes]) -> None:
    found: dict[str, Any] = {}
    for axes in grid:
        found |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
