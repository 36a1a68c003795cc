"""Figures of a comparison: curves with bands over seeds, and the grid of recipes. Frames in, matplotlib figures out."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

import trainables.records.names as n
from analysis.comparison import curves
from analysis.comparison import sentences as say
from analysis.comparison.columns import (
    BASE,
    CHANGE,
    CHANGE_BEFORE,
    CONTROL,
    LABEL,
    LEVEL,
    RECIPE,
    VALIDATION,
    VALIDATION_CHANGE,
    WHO,
    is_control,
)
from analysis.comparison.questions import selection
from analysis.comparison.questions.families import Sides, sides
from analysis.comparison.questions.iterative import matched
from analysis.comparison.questions.one_shot import usual
from analysis.comparison.questions.ranking import balanced
from analysis.comparison.statistics import band
from analysis.comparison.sweep import Sweep
from analysis.figures import PERCENT, VISIBLE_DROP, despine, style

BLUE, RED, GREEN, PURPLE, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, BLACK = "0.5", "0.15"
SOLID, DASHED, DOTTED, MIXED = (1, 0), (5, 2), (1.2, 1.5), (5, 1.5, 1.2, 1.5)
LONGEST_LABEL = 60
CLOSE_UP = 5
"""points of accuracy that the close-up goes below dense"""
CLOSEST = 0.045
"""share of an axis between two labels"""
X, Y = "x", "y"
Place = Callable[[pd.DataFrame], pd.Series]
"""rows -> where each stands on the horizontal axis"""


class Look(NamedTuple):
    """How one line is drawn; colour, marker and dashes each tell it apart alone."""

    colour: str
    marker: str
    dashes: tuple[float, ...] = SOLID


RETRAININGS = (Look(BLUE, "o"), Look(RED, "s"), Look(GREEN, "^"), Look(PURPLE, "D"))
CONTROLS = (Look(GREY, "x", DOTTED), Look(GREY, "+", MIXED))
ITERATIVE = (Look(BLUE, "o"), Look(RED, "s", DASHED), Look(YELLOW, "^", MIXED))
ITERATIVE_LABELS = ("iterative", "one-shot, equal epochs", "one-shot, the epochs of one step")


def one_shot_figure(sweep: Sweep) -> Figure | None:
    """Change of accuracy against the weights removed: everything, and a close-up of what is retrained."""
    rows = usual(sweep.one_shot)
    own = rows[~is_control(rows)]
    if own.empty:
        return None
    with style():
        figure = Figure(figsize=(10.6, 4.9), layout="constrained")
        whole, near = figure.subplots(1, 2)
        for axes in (whole, near):
            for (who, retrain), look in _looks(own, [WHO, n.RETRAIN], RETRAININGS):
                line = own[(own[WHO] == who) & (own[n.RETRAIN] == retrain)]
                _line(axes, line, look, f"{who}, {say.retraining(retrain)}")
            _control_lines(axes, rows, "random", own)
            _level_axis(axes, rows, "weights removed")
        before = own[own[CHANGE_BEFORE].notna()].drop_duplicates([WHO, n.SEED, LEVEL])
        _line(whole, before, Look(BLACK, "v", DASHED), "before retraining (validation)", column=CHANGE_BEFORE)
        _finish(figure, [whole, near], own, sweep.split)
        lowest = min(float(np.min(np.asarray(line.get_ydata(), dtype=float))) for line in whole.lines)
        whole.set_ylim(bottom=min(near.get_ylim()[0], lowest - 3))
        near.set_ylim(bottom=max(near.get_ylim()[0], -CLOSE_UP))
        _titles([whole, near], ["all", "close-up"])
    return figure


def iterative_figure(sweep: Sweep) -> Figure | None:
    """Iterative and one-shot at equal epochs, a panel for each retraining."""
    chains, cuts = sweep.iterative, sweep.one_shot
    own = chains[~is_control(chains)]
    if own.empty:
        return None
    retrainings = sorted(set(own[n.RETRAIN].dropna()))
    equal = cuts[cuts[n.STEP_ID].isin(_partners(chains, cuts))]
    with style():
        figure = Figure(figsize=(5.3 * max(len(retrainings), 1.4), 4.9), layout="constrained")
        panels = list(figure.subplots(1, len(retrainings), sharey=True, squeeze=False)[0])
        for axes, retrain in zip(panels, retrainings, strict=True):
            here = [rows[(rows[n.RETRAIN] == retrain) & ~is_control(rows)] for rows in (own, equal, usual(cuts))]
            for line, look, label in zip(here, ITERATIVE, ITERATIVE_LABELS, strict=True):
                _line(axes, line, look, _with_seeds(label, line, here[0]))
            _control_lines(axes, chains[chains[n.RETRAIN] == retrain], "random, iterative", here[0], 0)
            _control_lines(axes, usual(cuts).query(f"{n.RETRAIN} == @retrain"), "random, one-shot", here[0], 1)
            _level_axis(axes, own, "weights removed")
        _finish(figure, panels, own, sweep.split)
        _titles(panels, [say.retraining(retrain) for retrain in retrainings])
    return figure


def structured_figure(sweep: Sweep) -> Figure | None:
    """The grid of importances and pruners at selection, and the curves of the finalists with their controls."""
    found = selection.select(sweep)
    fresh = balanced(sweep.confirmation(sweep.structured))[0]
    fresh = fresh.iloc[:0] if is_control(fresh).all() else fresh  # a control alone compares nothing
    # Before fresh seeds have run, all is on validation data, which is what selection saw.
    lines, scratch, split = (
        (fresh, sweep.scratch, sweep.split) if len(fresh) else (_leaders(found), _on_validation(sweep.scratch), VALIDATION)
    )
    if lines.empty:
        return None
    with style():
        figure = Figure(figsize=(11.6, 5.0), layout="constrained")
        if found:
            left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
            _grid(left, selection.grid(found))
        else:
            right = figure.subplots()
        _finalist_lines(right, lines)
        where = (
            f"fresh seeds {say.seeds(lines[n.SEED])}" if len(fresh) else f"seeds that choose: {say.seeds(lines[n.SEED])}"
        )
        if len(scratch):
            label = f"from scratch (seeds {say.seeds(scratch[n.SEED])})"
            _line(right, scratch, Look(BLACK, "P", DASHED), label, place=_plain)
        _level_axis(right, lines, "channels removed", _plain)
        _finish(figure, [right], pd.concat([lines[~is_control(lines)], scratch]), split)
        _titles([right], [where])
    return figure


def families_figure(sweep: Sweep) -> Figure | None:
    """Both families on every axis that was measured."""
    both = sides(sweep)
    if both.unstructured.empty and both.structured.empty:
        return None
    measured = [name for name, axis in curves.AXES.items() if _drawable(both, sweep.dense, axis)]
    if not measured:
        return None
    with style():
        # The legend has the last panel, or the foot of the figure where every panel is taken.
        rows = -(-len(measured) // 3)
        free = 3 * rows > len(measured)
        figure = Figure(figsize=(11.6, 4.0 * rows + (0 if free else 0.6)), layout="constrained")
        panels = list(figure.subplots(rows, 3, sharey=True).flat)
        for axes, name in zip(panels, measured, strict=False):
            _family_panel(axes, sweep, both, curves.AXES[name])
        for axes in panels[len(measured) :]:
            axes.axis("off")
        for axes in panels[: len(measured)]:
            axes.tick_params(labelleft=True)
        _finish(
            figure,
            panels[: len(measured)],
            pd.concat([both.unstructured, both.structured]),
            sweep.split,
            legend=panels[-1] if free else None,
        )
    return figure


def _family_panel(axes: Axes, sweep: Sweep, both: Sides, axis: curves.Axis) -> None:
    for rows, look in ((both.unstructured, Look(BLUE, "o")), (both.structured, Look(RED, "s"))):
        if len(rows):
            _against(axes, rows, sweep.dense, axis, look, f"{rows[n.FAMILY].iloc[0]}: {rows[LABEL].iloc[0]}")
    for (label,), look in _looks(both.rivals, [LABEL], RIVALS):
        own = both.rivals[both.rivals[LABEL] == label]
        _against(axes, own, sweep.dense, axis, look, f"unstructured: {label}", thin=True)
    final = sweep.confirmation(sweep.structured)
    final = final[~is_control(final) & ~(both.fresh & final[RECIPE].isin(both.structured[RECIPE]))]
    for (label,), look in _looks(final, [LABEL], FINALISTS):
        _against(axes, final[final[LABEL] == label], sweep.dense, axis, look, f"{label}, fresh seeds", thin=True)
    beside = pd.concat([both.unstructured, both.structured])
    channels = sweep.confirmation(sweep.structured) if both.fresh else sweep.selection(sweep.structured)
    for control, look, label, thin in (
        (sweep.iterative[is_control(sweep.iterative)], CONTROLS[0], "unstructured, random importance", False),
        (channels[is_control(channels) & channels[n.PRUNER].eq(BASE)], CONTROLS[1], "structured, random importance", False),
        (sweep.scratch, Look(BLACK, "P", DASHED), "structured, from scratch", True),
    ):
        _against(axes, control, sweep.dense, axis, look, _with_seeds(label, control, beside), thin=thin)
    _reduction_axis(axes, axis)


RIVALS = (Look(SKY, "o", DASHED), Look(PURPLE, "o", DASHED))
FINALISTS = (Look(YELLOW, "^", DASHED), Look(PURPLE, "D", DASHED), Look(GREEN, "v", DASHED), Look(SKY, "P", DASHED))


def _against(
    axes: Axes, rows: pd.DataFrame, dense: pd.DataFrame, axis: curves.Axis, look: Look, label: str, *, thin: bool = False
) -> None:
    x = curves.gains(rows, dense, axis)
    rows = rows.assign(**{X: x})[x.notna()]
    # The seeds of one level differ a little in what they achieve; a band needs them at one place.
    rows[X] = rows.groupby(LEVEL)[X].transform("mean")
    if (rows.groupby(LEVEL)[X].first().diff() < -curves.LEAST_MOVE).any():
        _path(axes, rows, look, label, thin=thin)
        return
    # On an axis that does not move them, all levels stand at one place and are still points of their own.
    rows[X] += 1e-6 * rows[LEVEL]
    _line(axes, rows, look, label, place=lambda found: found[X], thin=thin)


def _doublings(rows: pd.DataFrame) -> pd.Series:
    """Levels as doublings of the reduction: high levels, where the curve bends, get the room."""
    kept = 1 - rows[LEVEL].astype(float).clip(upper=0.9999)
    return pd.Series(-np.log2(kept.to_numpy()), index=rows.index)


def _plain(rows: pd.DataFrame) -> pd.Series:
    return rows[LEVEL].astype(float)


def _line(
    axes: Axes,
    rows: pd.DataFrame,
    look: Look,
    label: str,
    *,
    place: Place = _doublings,
    column: str = CHANGE,
    thin: bool = False,
) -> None:
    if rows.empty:
        return
    data = pd.DataFrame({X: place(rows).astype(float), Y: PERCENT * rows[column].astype(float)})
    mark = _mark(look, thin=thin)
    # A band over one place would have no width.
    spread: dict[str, Any] = (
        {"err_style": "bars", "err_kws": {"elinewidth": mark["linewidth"], "zorder": mark["zorder"]}}
        if data[X].nunique() == 1
        else {"err_style": "band", "err_kws": {"alpha": 0.07 if thin else 0.16, "linewidth": 0}}
    )
    sns.lineplot(
        data=data, x=X, y=Y, ax=axes, errorbar=band, dashes=False, label=_safe(label), legend=False, **spread, **mark
    )


def _path(axes: Axes, rows: pd.DataFrame, look: Look, label: str, *, thin: bool) -> None:
    """From level to level, with a bar for each, where a deeper cut may lie further left (it may be slower)."""
    levels = (PERCENT * rows[CHANGE].astype(float)).groupby(rows[LEVEL])
    low, high = zip(*levels.apply(band), strict=True)
    x, means = rows.groupby(LEVEL)[X].first(), levels.mean()
    style = _mark(look, thin=thin)
    axes.vlines(x, low, high, color=look.colour, alpha=0.35, linewidth=style["linewidth"], zorder=style["zorder"])
    axes.plot(x, means, label=_safe(label), **style)
    if not thin and look not in CONTROLS:
        for level, at, mean in zip(x.index.tolist(), x.tolist(), means.tolist(), strict=True):
            axes.annotate(
                say.level(level), (at, mean), textcoords="offset points", xytext=(6, 5),
                fontsize="x-small", color=look.colour,
            )  # fmt: skip


def _mark(look: Look, *, thin: bool) -> dict[str, Any]:
    """How matplotlib draws it."""
    bare = look in CONTROLS
    return {
        "color": look.colour, "marker": look.marker, "linestyle": (0, look.dashes) if look.dashes != SOLID else "-",
        "linewidth": 1.1 if thin else 1.8, "markersize": 5 if thin else 6.5,
        "markeredgecolor": look.colour if bare else "white", "markeredgewidth": 1.4 if bare else 0.6,
        "zorder": 2 if bare or thin else 3,
    }  # fmt: skip


def _with_seeds(label: str, rows: pd.DataFrame, beside: pd.DataFrame) -> str:
    """The label of a line, with its seeds where they aren't those of the line that it stands beside."""
    own = set(rows[n.SEED])
    return label if own == set(beside[n.SEED]) else f"{label} ({say.seed_numbers(own)})"


def _control_lines(axes: Axes, rows: pd.DataFrame, label: str, beside: pd.DataFrame, first: int = 0) -> None:
    control = rows[is_control(rows)]
    several = control[n.RETRAIN].nunique() > 1
    for i, retrain in enumerate(sorted(set(control[n.RETRAIN].dropna()))):
        how = f", {say.retraining(retrain)}" if several else ""
        line = control[control[n.RETRAIN] == retrain]
        _line(axes, line, CONTROLS[(first + i) % len(CONTROLS)], _with_seeds(label + how, line, beside))


def _finalist_lines(axes: Axes, rows: pd.DataFrame) -> None:
    own = rows[~is_control(rows)]
    order = own.groupby(LABEL)[CHANGE].mean().sort_values(ascending=False).index
    looks = (*RETRAININGS, Look(YELLOW, "v"), Look(SKY, "X"))
    for i, label in enumerate(order):
        _line(axes, own[own[LABEL] == label], looks[i % len(looks)], str(label), place=_plain)
    for i, (label, line) in enumerate(rows[is_control(rows)].groupby(LABEL)):
        _line(axes, line, CONTROLS[i % len(CONTROLS)], str(label), place=_plain)


def _leaders(found: selection.Selection | None) -> pd.DataFrame:
    if found is None:
        return pd.DataFrame()
    rows = found.rows[found.rows[RECIPE].isin(found.order[:3]) | (is_control(found.rows) & found.rows[n.PRUNER].eq(BASE))]
    return _on_validation(rows)


def _on_validation(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{CHANGE: rows[VALIDATION_CHANGE]})


def _grid(axes: Axes, table: pd.DataFrame) -> None:
    values = (PERCENT * table).rename(index=_safe, columns=_safe)
    own = values.drop(index=CONTROL, errors="ignore")
    shown = own if own.notna().any(axis=None) else values
    sns.heatmap(
        values, ax=axes, cmap="cividis", vmin=float(np.nanmin(shown.to_numpy())), vmax=float(np.nanmax(shown.to_numpy())),
        annot=values.map(lambda value: say.signed(value / PERCENT)), fmt="", annot_kws={"fontsize": "small"},
        linewidths=1, linecolor="white", cbar=False,
    )  # fmt: skip
    axes.set(xlabel="pruner", ylabel="importance")
    axes.tick_params(axis="both", rotation=0)
    axes.set_title("selection: mean change of validation accuracy (points)", loc="left", fontsize="medium")


def _looks(rows: pd.DataFrame, by: Sequence[str], looks: Sequence[Look]) -> Iterable[tuple[tuple[Any, ...], Look]]:
    keys = list(rows.drop_duplicates(list(by))[list(by)].sort_values(list(by)).itertuples(index=False, name=None))
    return [(key, looks[i % len(looks)]) for i, key in enumerate(keys)]


def _partners(chains: pd.DataFrame, cuts: pd.DataFrame) -> set[str]:
    return {*matched(chains, cuts)[0][f"{n.STEP_ID}_one_shot"]}


def _drawable(both: Sides, dense: pd.DataFrame, axis: curves.Axis) -> bool:
    return any(len(curves.curves(rows, dense, axis)) for rows in (both.unstructured, both.structured))


def _level_axis(axes: Axes, rows: pd.DataFrame, label: str, place: Place = _doublings) -> None:
    levels = sorted(set(rows[LEVEL].dropna()))
    places = list(place(pd.DataFrame({LEVEL: levels})))
    texts, last = [], -np.inf
    for level, at in zip(levels, places, strict=True):
        # Levels that lie too close together for their labels keep their grid lines.
        fits = at - last >= CLOSEST * (places[-1] - places[0])
        texts.append(f"{PERCENT * level:.4g}" if fits else "")
        last = at if fits else last
    axes.set_xticks(places, texts, fontsize="small")
    axes.set_xlabel(f"{label} (%)")


def _reduction_axis(axes: Axes, axis: curves.Axis) -> None:
    low, high = axes.get_xlim()
    # At least a third of a doubling to each side, or an axis on which nothing moves would have no scale.
    axes.set_xlim(min(low, -0.15), max(high, 0.75))
    low, high = axes.get_xlim()
    sparsity = axis is curves.AXES[n.SPARSITY]
    marks = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99) if sparsity else _factors(high)
    factors = [1 / (1 - mark) if sparsity else mark for mark in marks]
    inside = [factor for factor in factors if low <= np.log2(factor) <= high]
    axes.xaxis.set_major_locator(FixedLocator([float(np.log2(factor)) for factor in inside]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{100 * (1 - 2**-x):.0f}%" if sparsity else f"{2**x:.3g}\N{MULTIPLICATION SIGN}")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize="small")
    axes.set_xlabel(axis.label, fontsize="medium")


def _factors(high: float) -> Sequence[float]:
    if high > 2.2:
        return (0.5, 1, 2, 4, 8, 16, 32, 64)
    return (0.5, 1, 1.5, 2, 3, 4) if high > 1 else (0.5, 0.8, 1, 1.25, 1.5, 2)


def _finish(figure: Figure, panels: Sequence[Axes], own: pd.DataFrame, split: str, legend: Axes | None = None) -> None:
    means = PERCENT * own.groupby([RECIPE, LEVEL])[CHANGE].mean()
    floor = max(float(means.min()), -VISIBLE_DROP)
    top = max(float(means.max()), 0.0)
    for axes in panels:
        axes.axhline(0, color="0.35", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        axes.set_ylim(floor - 0.12 * (top - floor) - 0.3, top + 0.12 * (top - floor) + 0.2)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:+g}".replace("-", say.MINUS) if value else "0")
        )
        axes.set_ylabel(f"change of {split} accuracy\nagainst dense (points)")
        axes.tick_params(axis="y", labelsize="small")
        despine(axes)
    entries = _legend(panels)
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": min(3, len(entries))}
    target: Any = figure
    if legend is not None:
        target, place = legend, {"loc": "center left"}
    # Beside panels a long name would take their room.
    names = [
        textwrap.fill(name, 36, subsequent_indent="  ", break_on_hyphens=False) if legend is not None else name
        for name in entries
    ]
    target.legend(entries.values(), names, frameon=False, fontsize="small", handlelength=3.2, **place)


def _legend(panels: Sequence[Axes]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return entries | {"dense network": Line2D([], [], color="0.35", linestyle=(0, (4, 3)), linewidth=1)}


def _titles(panels: Sequence[Axes], titles: Sequence[str]) -> None:
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(_safe(title), loc="left", fontsize="medium")


def _safe(label: str) -> str:
    """A name as text: matplotlib would take what stands between dollar signs for mathematics."""
    short = label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
    return short.replace("$", r"\$")
