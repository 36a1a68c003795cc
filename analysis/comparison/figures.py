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
from analysis.comparison.told import SPEED_UP, SPEED_UP_LARGE, at, signed, unit, values
from analysis.figures import VISIBLE_DROP, Look, despine, log2_ticks, style
from analysis.pareto import sign
from trainables.records.contrasts import CUTTING, LEVEL, ONE_SHOT, PEAK_LR
from trainables.records.words import RETRAINING

COLOURS = {n.UNSTRUCTURED: "#0072B2", n.STRUCTURED: "#D55E00", n.MIXED: "#009E73"}
OF_RETRAINING = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
DENSE_COLOUR, HOLLOW = "0.45", "white"
SIDEWAYS = 1.05
"""A panel whose values differ by less than this factor would be a vertical line, and is not drawn."""
MOST_ROWS, PANELS_WIDE = 30, 4


def look_of(sweep: Sweep) -> Look:
    """How the sweep's measure is shown."""
    return Look(sweep.measure, sweep.study.accuracy_drop)


def bytes_figure(sweep: Sweep) -> Figure | None:
    """Measure against bytes: the best recipe of each family at each level, with random importance and scratch."""
    lines = {
        "": (best(trained_on(sweep), [n.FAMILY, LEVEL], sweep), "o", "-"),
        ", random importance": (_of(sweep, n.IMPORTANCE, n.RANDOM), "x", ":"),
        ", trained from scratch": (_of(sweep, n.RETRAIN, SCRATCH), "D", ""),
    }
    return _figure(sweep, lines, [(n.COMPRESSION, "reduction of stored bytes (dense / pruned)")])


def speed_figure(sweep: Sweep) -> Figure | None:
    """Measure against measured speed-up, of whatever runs at another speed than its dense network."""
    lines = {"": (best(trained_on(sweep), [n.FAMILY, LEVEL], sweep), "o", "-")}
    panels = [(SPEED_UP, "measured speed-up, one image"), (SPEED_UP_LARGE, "measured speed-up, large batches")]
    return _figure(sweep, lines, panels)


def epochs_figure(sweep: Sweep) -> Figure | None:
    """Change of the measure against retraining epochs: of cuts to one level that were retrained at several budgets."""
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
        grid[0].set_ylabel(", ".join(filter(None, ["less dense", unit(sweep.measure)])))
        _legend(figure, grid)
    return figure


def pairs_figure(frame: pd.DataFrame, look: Look) -> Figure | None:
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
            _draw_pairs(axes, shown[shown["contrast"] == name].iloc[::-1], look)
    return figure


def _draw_pairs(axes: Axes, rows: pd.DataFrame, look: Look) -> None:
    places = np.arange(len(rows))
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        low, mean, high = (look.scale * row[key] for key in ("low", "estimate", "high"))
        axes.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color="#0072B2",
            markerfacecolor="#0072B2" if row["concludes"] else HOLLOW,
        )  # fmt: skip
    margin = look.scale * float(rows["margin"].iloc[0])
    axes.axvspan(-margin, margin, color="0.92", zorder=0)
    axes.axvline(0, color=DENSE_COLOUR, linewidth=1)
    axes.set_yticks(places, [_label(row, look) for row in rows.to_dict("records")], fontsize="x-small")
    left, right = min(look.scale * rows["low"].min(), -margin), max(look.scale * rows["high"].max(), margin)
    axes.set_xscale("symlog", linthresh=2 * margin)
    ends = 1.3 * left - 0.2 * margin, 1.3 * right + 0.2 * margin
    axes.set_xlim(*ends)
    ticks = [side * margin * times for times in (1, 2, 6, 20, 60, 200) for side in (-1, 1)]
    axes.set_xticks([0.0, *(tick for tick in ticks if ends[0] < tick < ends[1])])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}")))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize="small")
    axes.set_xlabel(
        _literal(
            f"{rows['left'].iloc[0]} less {rows['right'].iloc[0]}{', ' if unit(look.measure) else ''}{unit(look.measure)}"
        ),
        fontsize="small",
    )
    axes.set_title(_literal(str(rows["contrast"].iloc[0])), loc="left", fontsize="small")
    axes.grid(visible=False, axis="y")
    despine(axes)


def _literal(text: str) -> str:
    """Text of a study, in which a dollar sign is no mathematics."""
    return text.replace("$", r"\$")


def _label(row: dict[Any, Any], look: Look) -> str:
    rates = [part.removeprefix(f"{PEAK_LR} ") for part in str(row["differs"]).split("; ") if part.startswith(PEAK_LR)]
    return _literal(at(row["of"])) + (f" (lr {rates[0]})" if rates else "") + f"  {signed(row['estimate'], look.measure)}"


def _of(sweep: Sweep, column: str, value: str) -> pd.DataFrame:
    rows = sweep.pruned
    return best(rows[rows[column].eq(value)], [n.FAMILY, LEVEL], sweep)


def _changed(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[rows[sweep.split].notna()]
    dense = sweep.dense.set_index(n.SEED)[sweep.split]
    return rows.assign(change=look_of(sweep).scale * (rows[sweep.split] - rows[n.SEED].map(dense)))


def _figure(
    sweep: Sweep, lines: dict[str, tuple[pd.DataFrame, str, str]], panels: Sequence[tuple[str, str]]
) -> Figure | None:
    moving = [(column, label) for column, label in panels if _moves(sweep, [rows for rows, *_ in lines.values()], column)]
    if not moving:
        return None
    look, up = look_of(sweep), sign(sweep.measure)
    dense = look.scale * float(sweep.dense[sweep.split].mean())
    with style():
        figure, grid = _grid(len(moving), wide=2, size=5.0)
        for axes, (column, label) in zip(grid, moving, strict=True):
            for name, (rows, marker, line) in lines.items():
                for family in n.FAMILIES:
                    own = rows[rows[n.FAMILY] == family]
                    if not _moves(sweep, [own, sweep.dense], column):
                        continue  # it would be a vertical line at 1
                    means = own.assign(x=values(own, column, sweep)).groupby(LEVEL)[["x", sweep.split]].mean()
                    axes.plot(
                        means["x"], look.scale * means[sweep.split], marker=marker, linestyle=line, color=COLOURS[family],
                        label=f"{family}{name}", markersize=6, alpha=0.9,
                    )  # fmt: skip
            axes.plot(1, dense, "*", markersize=15, color="#F0C419", markeredgecolor="#222222", label="dense")
            axes.axhline(dense, color=DENSE_COLOUR, linestyle=(0, (4, 3)), linewidth=1)
            shown = pd.concat([rows for rows, *_ in lines.values()]).groupby([n.FAMILY, LEVEL])[sweep.split].mean()
            worst, air = up * look.scale * float((up * shown).min()), up * look.visible / VISIBLE_DROP
            look.limit(axes, up * max(up * dense - look.visible, up * (worst - air)), dense + air)
            log2_ticks(axes)
            axes.set_xlabel(label)
            despine(axes)
        grid[0].set_ylabel(f"{sweep.split} {sweep.measure.name}")
        _legend(figure, grid)
    return figure


def _moves(sweep: Sweep, groups: Sequence[pd.DataFrame], column: str) -> bool:
    """Whether the means of the levels differ there by more than a measurement's error."""
    means = pd.concat([values(rows, column, sweep).groupby(rows[LEVEL]).mean() for rows in groups]).dropna()
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
