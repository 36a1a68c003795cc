"""Figures of a study: pure functions from frames to matplotlib figures.

Colours are Okabe and Ito's, which colour-blind readers tell apart; markers say the same once more for print.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

import trainables.records.names as n
from analysis.pareto import HYPERVOLUME, excess, front, measured, sign
from analysis.words import TIMES
from trainables.records.fronts import nondominated
from trainables.records.objectives import ACCURACY, COMPRESSION, LOG2, MAXIMISE, Objective, Quality

KINDS = {
    # what the legend says -> colour, marker; a tint of its family's colour for what one cut reaches
    f"{n.UNSTRUCTURED}, several cuts": ("#0072B2", "o"),
    f"{n.UNSTRUCTURED}, one cut": ("#9CD0F0", "o"),
    f"{n.STRUCTURED}, several cuts": ("#D55E00", "s"),
    f"{n.STRUCTURED}, one cut": ("#F7BE94", "s"),
    f"{n.MIXED}, several cuts": ("#009E73", "D"),
}
FRONT_COLOUR = "#222222"
FORM_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
# Percent points below the dense accuracy that a figure shows; collapsed networks would squash what matters.
VISIBLE_DROP = 15.0
PERCENT = 100.0
DPI = 150
PERCENT_FORMAT = FuncFormatter(lambda value, _: f"{value:g}%")


@dataclass(frozen=True)
class Look:
    """How figures show a measure: better is higher. ``drop`` is how far away the hypervolume's reference is."""

    measure: Quality = ACCURACY
    drop: float = n.REFERENCE_ACCURACY_DROP

    @property
    def scale(self) -> float:
        """What a value is multiplied by."""
        return PERCENT if self.measure.is_share else 1.0

    @property
    def visible(self) -> float:
        """How much worse than the dense network what is shown may be, scaled."""
        return VISIBLE_DROP if self.measure.is_share else VISIBLE_DROP / PERCENT * self.drop / n.REFERENCE_ACCURACY_DROP

    def heights(self, rows: pd.DataFrame) -> pd.Series:
        """The scaled values."""
        return self.scale * rows[self.measure.column]

    def limit(self, axes: Axes, low: float, high: float) -> None:
        """Set the ends of the axis, the worse one first, and how its ticks read."""
        axes.set_ylim(low, high)
        if self.measure.is_share:
            axes.yaxis.set_major_formatter(PERCENT_FORMAT)

    @property
    def label(self) -> str:
        """Of the axis."""
        return self.measure.axis


ACCURATE = Look()
X, Y, KIND = "x", "y", "kind"
SPARSITY = "achieved sparsity"
"""What a figure can put on x beside an objective."""
Axis = Objective | str


def on_axis(points: pd.DataFrame, dense: pd.DataFrame, axis: Axis) -> pd.DataFrame:
    """The points that have a value there, with it in column X: of a log2 scale the factor against the dense network."""
    if isinstance(axis, str):
        return points.assign(**{X: PERCENT * points[n.SPARSITY]})
    known = measured(points, [axis], dense)
    values = np.exp2(excess(known, [axis], dense)[:, 0]) if axis.scale == LOG2 else known[axis.column]
    return known.assign(**{X: values})


def accuracy_figure(
    points: pd.DataFrame, dense: pd.DataFrame, against: Sequence[Axis] = (COMPRESSION,),
    competing: pd.DataFrame | None = None, look: Look = ACCURATE,
) -> Figure:  # fmt: skip
    """The measure against each of ``against``, every pruned network a marker, with the front as a line.

    The dense networks are shown as they are ``competing``, in their stored forms; without them, as they are in ``dense``.
    """
    with style():
        width, wide = (8.0, 5.2) if len(against) == 1 else (4.6 * len(against), 4.6)
        figure = Figure(figsize=(width, wide), layout="constrained")
        panels = figure.subplots(1, len(against), sharey=True, squeeze=False)[0]
        for panel, axis in zip(panels, against, strict=True):
            _draw_panel(panel, points, dense, axis, dense if competing is None else competing, look)
        _limit(panels[0], points, dense, look)
        panels[0].set_ylabel(look.label)
        handles, labels = panels[0].get_legend_handles_labels()
        columns = 3 if len(handles) > 4 else len(handles)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def forms_figure(
    points: pd.DataFrame, dense: pd.DataFrame, dense_forms: pd.DataFrame, forms: Sequence[str], axis: Objective,
    look: Look = ACCURATE,
) -> Figure:  # fmt: skip
    """The front of each stored form, with the dense networks in that form as its control."""
    with style():
        figure = Figure(figsize=(8.0, 5.2), layout="constrained")
        axes = figure.subplots()
        for form, colour in zip(forms, itertools.cycle(FORM_COLOURS)):
            own, roots = points[points[n.FORM] == form], dense_forms[dense_forms[n.FORM] == form]
            best = front(own, (look.measure, axis), dense, roots)
            _step(
                axes, pd.concat([roots, best], ignore_index=True), dense, axis, look, color=colour, label=f"{form}, pruned"
            )
            at = on_axis(roots, dense, axis)
            axes.plot(
                at[X], look.heights(at), "*", markersize=15, color=colour, markeredgecolor=FRONT_COLOUR,
                markeredgewidth=0.9, zorder=5, label=f"{form}, dense", clip_on=False,
            )  # fmt: skip
        axes.axhline(look.heights(dense).mean(), color="0.45", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        _limit(axes, points, dense, look)
        axes.set_title("")  # no network is drawn that could be missed
        if axis.scale == LOG2:
            log2_ticks(axes)
        axes.set(xlabel=axis.axis, ylabel=look.label)
        axes.legend(frameon=False)
        despine(axes)
    return figure


def hypervolume_figure(history: pd.DataFrame) -> Figure:
    """Hypervolume against the epochs computed, from ``pareto.hypervolume_history``."""
    with style():
        figure = Figure(figsize=(8.0, 3.8), layout="constrained")
        axes = figure.subplots()
        sns.lineplot(
            data=history, x=n.EPOCHS, y=HYPERVOLUME, ax=axes, estimator=None, sort=False,
            drawstyle="steps-post", color=FRONT_COLOUR, linewidth=1.8,
        )  # fmt: skip
        axes.set(xlabel="epochs computed, all pruned networks together", ylabel="hypervolume")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        despine(axes)
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file of this kind ("png" or "svg"), the same bytes for the same figure."""
    buffer = BytesIO()
    # Neither the date nor random ids: a report made again from the same points must not differ.
    with matplotlib.rc_context({"svg.hashsalt": "pruning"}):
        undated = {"Date": None} if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.08, metadata=undated)
    return buffer.getvalue()


def _draw_panel(
    axes: Axes, points: pd.DataFrame, dense: pd.DataFrame, axis: Axis, unpruned: pd.DataFrame, look: Look
) -> None:
    shown = on_axis(points, dense, axis)
    _draw_points(axes, shown, look)
    if isinstance(axis, str):
        axes.xaxis.set_major_formatter(PERCENT_FORMAT)
    else:
        _draw_front(axes, front(points, (look.measure, axis), dense, unpruned), dense, axis, unpruned, look)
        if axis.scale == LOG2:
            log2_ticks(axes)
    _draw_dense(axes, on_axis(unpruned, dense, axis), look.heights(dense).mean(), look)
    axes.set_xlabel(axis if isinstance(axis, str) else axis.axis)
    despine(axes)


def _draw_points(axes: Axes, shown: pd.DataFrame, look: Look) -> None:
    kind = shown[n.FAMILY] + shown[n.STEP].eq(1).map({True: ", one cut", False: ", several cuts"})
    if shown.empty:
        return
    present = [name for name in KINDS if kind.eq(name).any()]
    sns.scatterplot(
        data=shown.assign(**{KIND: kind, Y: look.heights(shown)}), x=X, y=Y, ax=axes, zorder=3,
        hue=KIND, hue_order=present, palette={name: colour for name, (colour, _) in KINDS.items()},
        style=KIND, style_order=present, markers={name: marker for name, (_, marker) in KINDS.items()},
        s=34, alpha=0.85, edgecolor="0.25", linewidth=0.5, legend="full",
    )  # fmt: skip
    if legend := axes.get_legend():
        legend.remove()


def _draw_front(
    axes: Axes, best: pd.DataFrame, dense: pd.DataFrame, axis: Objective, unpruned: pd.DataFrame, look: Look
) -> None:
    unpruned = measured(unpruned, (look.measure, axis), dense)
    if len(unpruned):  # of its stored forms those that none beats
        unpruned = unpruned[nondominated(excess(unpruned, (look.measure, axis), dense), equals=True)]
    _step(axes, pd.concat([unpruned, best], ignore_index=True), dense, axis, look, color=FRONT_COLOUR, label="front")


def _step(
    axes: Axes, rows: pd.DataFrame, dense: pd.DataFrame, axis: Objective, look: Look, *, color: str, label: str
) -> None:
    up = look.measure.direction == MAXIMISE
    corners = on_axis(rows, dense, axis).sort_values([X, look.measure.column], ascending=[True, up])
    # Each network is the best choice for every compression up to its own, so the line falls behind it.
    heights = look.heights(corners)
    falls: Literal["pre", "post"] = "pre" if axis.scale == LOG2 or axis.direction == MAXIMISE else "post"
    axes.step(corners[X], heights, where=falls, color=color, linewidth=1.4, zorder=2, label=label)


def _draw_dense(axes: Axes, roots: pd.DataFrame, height: float, look: Look) -> None:
    axes.axhline(height, color="0.45", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    axes.plot(
        roots[X], look.heights(roots), "*", markersize=15, color="#F0C419", markeredgecolor=FRONT_COLOUR,
        markeredgewidth=0.9, zorder=5, label="dense", clip_on=False,
    )  # fmt: skip


def _limit(axes: Axes, points: pd.DataFrame, dense: pd.DataFrame, look: Look) -> None:
    up, unpruned = sign(look.measure), look.heights(dense)
    values = up * pd.concat([look.heights(points), unpruned])
    floor = max(values.min(), up * (unpruned.min() if up > 0 else unpruned.max()) - look.visible)
    margin = 0.04 * (values.max() - floor) + 0.1 * look.visible / VISIBLE_DROP
    look.limit(axes, up * (floor - margin), up * (values.max() + margin))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10]))
    hidden = int((values < floor - margin).sum())
    if hidden:
        end = f"{floor - margin:.0f}%" if look.measure.is_share else f"{up * (floor - margin):.4g}"
        where = "below" if up > 0 else "above"
        note = f"{hidden} of {len(points)} networks lie {where} {end}, not shown"
        axes.set_title(note, loc="left", fontsize="small", color="0.35")


def log2_ticks(axes: Axes) -> None:
    """A log2 scale whose ticks read as factors."""
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    # At least one doubling, or an axis on which nothing differs would have no scale.
    axes.set_xlim(min(low, 0.93), max(high, 2.1))
    few = high / low < 6
    axes.xaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5) if few else (1.0,), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{TIMES}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def despine(axes: Axes) -> None:
    """Two spines only, and the grid behind everything."""
    sns.despine(ax=axes)
    axes.set_axisbelow(True)


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure."""
    # Set for the figure at hand only: a notebook's own style stays as it is.
    look = {"grid.color": "0.9", "axes.edgecolor": "0.4"}
    with sns.axes_style("whitegrid", look), sns.plotting_context("notebook"):
        yield
