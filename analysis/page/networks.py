"""The networks of a study as the page's script shows them: columns of plain values, and the axes to show them on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import trainables.records.names as n
from analysis.columns import point_ids
from analysis.confirmed import Confirmed, records
from analysis.figures import KINDS, PERCENT, Look, X, on_axis
from analysis.load import Study
from analysis.pareto import hypervolume_history, timed_by
from trainables.records.limits import bounds
from trainables.records.objectives import COMPRESSION, LOG2, MAXIMISE, OBJECTIVES, Objective, Quality
from trainables.records.points import form_of, format_of, point_id
from trainables.records.words import recipe

SYMBOLS = {"o": "circle", "s": "square", "D": "diamond"}
"""matplotlib's markers, as Plotly calls them."""
BRIGHTER = {"#0072B2": "#56B4E9", "#9CD0F0": "#3A759C", "#D55E00": "#F58231", "#F7BE94": "#A8683B", "#009E73": "#2FC79B"}
"""The figures' colours as they can be told on a dark page: there a tint is darker than its colour."""
ENDINGS = {n.SAFETENSORS: ".safetensors", n.COMPACT: ".compact"}
TEXT, FACTOR, SHARE, PER_CENT, AMOUNT, NUMBER = "text", "factor", "share", "percent", "amount", "number"
"""How the script shows a column's values."""
DIGITS = 6
"""Significant digits that the page gets of a measured number."""


@dataclass(frozen=True)
class Axis:
    """What the page's chart can put on x."""

    key: str
    label: str
    short: str
    """what heads a column"""
    kind: str
    """how its numbers are shown: factor, amount, percent or number"""
    log: bool
    rising: bool
    """whether larger is better"""


def page_data(study: Study, best: pd.DataFrame, confirmed: Mapping[str, Confirmed], main: Objective) -> dict[str, Any]:
    """All that the script needs, as JSON has it: networks and dense networks as columns, null where nothing is known."""
    shown = dict(_axes(study, main))
    history = hypervolume_history(study.points, study.objectives, study.dense, study.accuracy_drop)
    networks = _columns(study.pruned, study, confirmed, shown)
    ids = point_ids(study.pruned)
    kind = study.pruned[n.FAMILY] + study.pruned[n.STEP].eq(1).map({True: ", one cut", False: ", several cuts"})
    measure, look = study.measure, Look(study.measure, study.accuracy_drop)
    return {
        "measure": {
            "label": measure.axis, "test": measure.test_label + (f" ({measure.unit})" if measure.unit else ""),
            "kind": kind_of(measure), "rising": measure.direction == MAXIMISE, "scale": look.scale, "visible": look.visible,
        },
        "axes": [asdict(axis) for axis in shown],
        "kinds": [
            {"name": one, "colour": c, "dark": BRIGHTER.get(c, c), "symbol": SYMBOLS[mark]}
            for one, (c, mark) in KINDS.items()
            if kind.eq(one).any()
        ],
        "columns": list(_table(study, list(shown), tested=any(one is not None for one in networks["test"]))),
        "forms": list(study.forms),
        "networks": networks | {
            "kind": kind.tolist(),
            "recipe": [recipe(row, study.retrainings) for row in study.pruned.to_dict("records")],
            "before": _plain(study.pruned[study.measure.before]),
            "epochs": _plain(study.pruned[n.TOTAL_EPOCHS]),
            "front": ids.isin(point_ids(best)).tolist(),
            "within": _within(study),
            "command": [export_command(study.folder, row) for row in study.pruned.to_dict("records")],
        },
        "dense": _columns(study.dense_forms, study, confirmed, shown),
        "hypervolume": {name: _plain(history[name]) for name in history},
    }  # fmt: skip


def kind_of(measure: Quality) -> str:
    """How the script shows values of the measure."""
    return SHARE if measure.is_share else NUMBER


def _within(study: Study) -> list[bool]:
    """Which networks keep to the study's limits; all where it has none."""
    roots = {row[n.SEED]: row for row in records(study.dense)}
    rows = ((row, bounds(study.limits, _root(row, roots), study.measure)) for row in records(study.pruned))
    return [all((found := one.excess(row)) is not None and found <= 0 for one in limits) for row, limits in rows]


def _root(row: Mapping[Any, Any], roots: Mapping[Any, Any]) -> dict[str, Any]:
    """The dense network of a row's seed; its latency as it was timed beside the row."""
    beside = row[n.LATENCY_DENSE]
    return {**roots[row[n.SEED]], **({} if pd.isna(beside) else {n.LATENCY: beside})}


def export_command(folder: Path, row: Mapping[Any, Any]) -> str:
    """What exports a network, to be run where the folder of results lies; safe to paste, whatever the folder tells."""
    place, point = folder.resolve(), point_id(row)
    file = re.sub(r"[^A-Za-z0-9_-]", "-", point) + ENDINGS[format_of([form_of(row)])]
    words = ("python", "-m", "search", "export", f"{place.parent.name}/{place.name}", "--point", point, "--to", file)
    return shlex.join(n.printable(word) for word in words)


def _axes(study: Study, main: Objective) -> Iterator[tuple[Axis, str]]:
    """The axes on which something was measured, each with the column of its values; the study's main one comes first."""
    wanted = dict.fromkeys([main, *OBJECTIVES.values(), *study.objectives])
    for one in wanted:
        if one.quality or not len(on_axis(study.pruned, study.dense, one)):
            continue
        if one.of_host:  # milliseconds of several hosts can't be compared, factors can
            yield Axis(one.name, one.axis, one.noun, FACTOR, one.scale == LOG2, True), X
        else:
            factor, log = one is COMPRESSION, one.scale == LOG2
            kind = FACTOR if factor else AMOUNT if one.column in n.POINT_COLUMNS else NUMBER
            label = one.axis if factor else one.label + (f" ({one.unit})" if one.unit else "")
            yield Axis(one.name, label, one.label, kind, log, one.direction == MAXIMISE), one.column
    if study.pruned[n.STORED_BYTES].notna().any():
        yield Axis("bytes", "bytes of the file", "bytes", AMOUNT, True, False), n.STORED_BYTES
    yield Axis("sparsity", "achieved sparsity", "sparsity", PER_CENT, False, True), n.SPARSITY


def _table(study: Study, axes: Sequence[Axis], *, tested: bool) -> Iterator[dict[str, str]]:
    """The columns of the table of networks; one that would say the same in every row is left out."""
    yield _heading(axes[0].key, axes[0].short, axes[0].kind)
    measure, kind = study.measure, kind_of(study.measure)
    yield _heading("value", measure.label, kind)
    if tested:
        yield _heading("test", measure.test_label, kind)
    yield _heading("before", "before retraining", kind)
    yield _heading("family", "family", TEXT)
    yield _heading("recipe", "recipe", TEXT)
    if len(study.forms) > 1:
        yield _heading("form", "stored as", TEXT)
    yield from (_heading(axis.key, axis.short, axis.kind) for axis in axes[1:])
    yield _heading("epochs", "epochs", NUMBER)
    if study.pruned[n.SEED].nunique() > 1:
        yield _heading("seed", "seed", NUMBER)
    yield _heading("id", "step id", TEXT)


def _heading(key: str, label: str, kind: str) -> dict[str, str]:
    return {"key": key, "label": label, "kind": kind}


def _columns(
    rows: pd.DataFrame, study: Study, confirmed: Mapping[str, Confirmed], shown: Mapping[Axis, str]
) -> dict[str, list[Any]]:
    ids = point_ids(rows)
    tested = [confirmed[one].value if one in confirmed else None for one in ids]
    return {
        "id": ids.tolist(), "family": rows[n.FAMILY].tolist(), "form": rows[n.FORM].tolist(), "seed": _plain(rows[n.SEED]),
        "value": _plain(rows[study.measure.column]), "test": tested,
        **{axis.key: _plain(_values(rows, study, axis, column)) for axis, column in shown.items()},
    }  # fmt: skip


def _values(rows: pd.DataFrame, study: Study, axis: Axis, column: str) -> pd.Series:
    if column == X:
        timed = next(one for one in timed_by(study.objectives) if one.name == axis.key)
        return on_axis(rows, study.dense, timed)[X].reindex(rows.index)
    return PERCENT * rows[column] if column == n.SPARSITY else rows[column]


def _plain(values: pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else float(f"{value:.{DIGITS}g}") for value in values]
