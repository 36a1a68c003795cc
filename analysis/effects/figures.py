"""Figures of what mattered."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import trainables.records.names as n
from analysis.effects.family import Family, shortfall
from analysis.effects.importances import CHANCE, FRONT, SETTING, SHARE, TARGET
from analysis.effects.marginals import VALUE
from analysis.effects.sentences import value_text
from analysis.figures import FRONT_COLOUR, PERCENT, PERCENT_FORMAT, Look, despine, log2_ticks, style
from analysis.pareto import sign
from trainables.records.fronts import Floats

# Okabe and Ito's for names; for numbers, which have an order, shades of viridis, which
# colour-blind readers see as an order too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), "-", (0, (6, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
MATTERS, CHANCE_COLOUR = "#0072B2", "#C9CED6"
MOST_LINES = len(COLOURS)
PANELS_WIDE = 4
LEGEND_WIDE = 3


def importance_figure(table: pd.DataFrame) -> Figure:
    """Shares of importance: a row a family, a column a target; grey where shuffles reach as much."""
    families, targets = list(table[n.FAMILY].unique()), list(table[TARGET].unique())
    with style():
        height = sum(0.9 + 0.3 * table[table[n.FAMILY] == family][SETTING].nunique() for family in families)
        figure = Figure(figsize=(1.6 + 3.2 * len(targets), height), layout="constrained")
        grid = figure.subplots(len(families), len(targets), squeeze=False, sharex=True)
        for row, family in enumerate(families):
            for column, target in enumerate(targets):
                rows = table[table[n.FAMILY].eq(family) & table[TARGET].eq(target)].iloc[::-1]
                _draw_importances(grid[row, column], rows)
                said = "hypervolume of the front" if target == FRONT else target
                grid[row, column].set_title(f"{family}: {said}", fontsize="small", loc="left")
                if column:
                    grid[row, column].tick_params(labelleft=False)
        # The panels share their axis: set by one alone, its end would cut the bars of others.
        grid[0, 0].set_xlim(0, 1.03 * PERCENT * float(table[[SHARE, CHANCE]].max().max()))
        figure.supxlabel("share of the importance of all settings", fontsize="small")
    return figure


def marginal_figure(family: Family, table: pd.DataFrame, dense: pd.DataFrame, look: Look) -> Figure:
    """A panel a setting: the best measure at or beyond each reduction, of each value's networks alone."""
    settings = list(dict.fromkeys(table[SETTING]))
    floor = sign(look.measure) * float(dense[look.measure.column].mean()) - look.drop
    wide = min(PANELS_WIDE, len(settings))
    tall = math.ceil(len(settings) / wide)
    with style():
        figure = Figure(figsize=(0.6 + 3.6 * wide, 0.5 + 3.6 * tall), layout="constrained")
        grid = figure.subplots(tall, wide, sharey=True, sharex=True, squeeze=False).ravel()
        for axes, setting in zip(grid, settings, strict=False):
            _draw_setting(axes, family, table[table[SETTING] == setting], floor, look)
        for axes in grid[len(settings) :]:
            axes.remove()
        for axes in grid[max(0, len(settings) - wide) : len(settings)]:
            axes.tick_params(labelbottom=True)
        # The axes are shared, so one panel sets the limits of all.
        _limit(grid[0], family, floor, look)
        figure.supxlabel(family.axes[1].axis, fontsize="small")
        figure.supylabel(look.label, fontsize="small")
    return figure


def _draw_importances(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    clear = rows[SHARE] > rows[CHANCE]
    axes.barh(places, PERCENT * rows[SHARE], color=[MATTERS if c else CHANCE_COLOUR for c in clear], height=0.65, zorder=2)
    axes.plot(PERCENT * rows[CHANCE], places, "|", color=FRONT_COLOUR, markersize=11, markeredgewidth=1.6, zorder=3)
    axes.set_yticks(places, rows[SETTING].tolist())
    axes.tick_params(labelsize="small")
    axes.xaxis.set_major_formatter(PERCENT_FORMAT)
    axes.grid(visible=False, axis="y")
    despine(axes)


def _draw_setting(axes: Axes, family: Family, rows: pd.DataFrame, floor: float, shown_as: Look) -> None:
    setting = str(rows[SETTING].iloc[0])
    column = family.values(setting)
    shown = rows[VALUE].tolist()[:MOST_LINES]
    looks = _looks(shown)
    _draw_front(axes, family.plane, floor, shown_as, color="0.86", linewidth=5, zorder=1)
    for value in shown:
        members = column.eq(value).to_numpy(dtype=bool, na_value=False)
        look = looks[value]
        _draw_front(
            axes,
            family.plane[members],
            floor,
            shown_as,
            label=value_text(setting, value),
            linewidth=1.6,
            markersize=4,
            zorder=2,
            **look,
        )
    hidden = len(rows) - len(shown)
    # Above the panel, where no line can run behind it.
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=LEGEND_WIDE, fontsize="x-small", frameon=False, borderaxespad=0.2,
        alignment="left", title=f"{setting}{f' ({hidden} more in the table)' if hidden else ''}", title_fontsize="small",
        columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    for text in legend.get_texts():
        # Names come from the study; a dollar sign in one is no mathematics.
        text.set_parse_math(False)
    axes.tick_params(labelsize="small")
    despine(axes)


def _looks(values: list[Any]) -> dict[Any, dict[str, Any]]:
    """Line looks; of numbers, the order of the shades is theirs."""
    if all(isinstance(value, str) for value in values):
        colours: list[str] = list(COLOURS)
    else:
        values = sorted(values)
        shades = np.linspace(0.0, 0.8, max(len(values), 2))
        colours = [to_hex(matplotlib.colormaps["viridis"](shade)) for shade in shades]
    return {value: {"color": colours[i], "linestyle": DASHES[i], "marker": MARKERS[i]} for i, value in enumerate(values)}


def _draw_front(axes: Axes, plane: Floats, floor: float, shown_as: Look, **look: Any) -> None:
    corners = plane[(shortfall(plane) <= 0) & (plane[:, 0] > 0)]
    corners = corners[np.lexsort((corners[:, 0], corners[:, 1]))]
    if not len(corners):
        axes.plot([], [], **look)
        return
    # To the left of its first network a front is as high as there; it ends with the last.
    x = np.exp2([min(0.0, corners[0, 1]), *corners[:, 1]])
    y = sign(shown_as.measure) * shown_as.scale * (floor + np.array([corners[0, 0], *corners[:, 0]]))
    axes.plot(x, y, drawstyle="steps-pre", markevery=slice(1, None), **look)


def _limit(axes: Axes, family: Family, floor: float, look: Look) -> None:
    top = look.scale * (floor + max(look.drop, float(family.plane[:, 0].max())))
    low, up = look.scale * floor, sign(look.measure)
    look.limit(axes, up * low, up * (top + 0.06 * (top - low)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    log2_ticks(axes)
