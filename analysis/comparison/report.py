"""The comparison of a sweep in results/<study>/report/: a page in Markdown and HTML, figures, and the frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

import trainables.records.names as n
from analysis import words
from analysis.comparison.engine import OPEN, compare
from analysis.comparison.figures import bytes_figure, epochs_figure, look_of, pairs_figure, speed_figure
from analysis.comparison.page import ANSWERS, html, markdown, section_of
from analysis.comparison.statistics import MIN_SEEDS, SIGNIFICANCE
from analysis.comparison.sweep import FRESH, ROLE, Sweep, load_sweep, section
from analysis.comparison.tables import BUDGET, frame_table, levels_table, trained_on
from analysis.comparison.told import Told, at, effect, unit
from analysis.figures import render
from analysis.load import Study
from analysis.tables import provenance_table
from trainables.records.contrasts import PEAK_LR
from trainables.records.files import write_atomically

PAGE, MARKDOWN, FRAME = "index.html", "comparison.md", "comparison_contrasts.csv"
# What begins like this in the report's folder is made here, and removed when it is made no longer.
PREFIX = "comparison"
FIGURES = ("bytes", "pairs", "epochs", "speed")


def write_comparison(study: Study) -> tuple[Path, list[str]]:
    """Write everything, the pages last; returns the HTML page's path and the lines of the summary."""
    sweep = load_sweep(study)
    frame = compare(sweep)
    drawn = {name: figure for name, figure in _figures(sweep, frame) if figure is not None}
    page = markdown(study.folder, _content(sweep, frame, drawn))  # before anything is written: it may be refused
    folder = study.folder / n.REPORT_FOLDER
    folder.mkdir(exist_ok=True)
    csv = frame.assign(**{column: frame[column].map(json.dumps) for column in ("of", "seeds", "roles")})
    written: dict[str, bytes | str] = {FRAME: csv.to_csv(index=False, float_format="%.10g", lineterminator="\n")}
    written |= {f"{PREFIX}_{name}.{kind}": render(one, kind) for name, one in drawn.items() for kind in ("png", "svg")}
    written |= {MARKDOWN: page, PAGE: html(f"{study.name}: pruning compared", page)}
    for name, data in written.items():
        write_atomically(folder / name, data)
    for stale in {*folder.glob(f"{PREFIX}*"), *folder.glob("answers.json")} - {folder / name for name in written}:
        stale.unlink()
    return folder / PAGE, section_of(page, "Summary")


def _figures(sweep: Sweep, frame: pd.DataFrame) -> Iterator[tuple[str, Figure | None]]:
    drawn = bytes_figure(sweep), pairs_figure(frame, look_of(sweep)), epochs_figure(sweep), speed_figure(sweep)
    yield from zip(FIGURES, drawn, strict=True)


def _content(sweep: Sweep, frame: pd.DataFrame, drawn: Mapping[str, Figure]) -> dict[str, Any]:
    told = Told(sweep, frame, str(sweep.study.folder / ANSWERS))
    rows, measure = frame.to_dict("records"), sweep.measure
    return {
        "name": sweep.study.name, "setting": list(_setting(sweep)), "split": sweep.split, "measure": measure.name,
        "visible": f"{look_of(sweep).visible:.4g} {unit(measure)}".rstrip(),
        "contrast_lines": [f"{line(row)}: {row['verdict']}, {effect(row, measure)}" for row in rows if row["concludes"]],
        "open": [f"{line(row)}: {effect(row, measure)}" for row in rows if row["concludes"] and row["verdict"] == OPEN],
        "levels": levels_table(sweep), "contrasts": frame_table(frame, measure), "seeds": _seeds(sweep),
        "rates": _rates(sweep),
        "provenance": provenance_table(_short(sweep.study.provenance)), "significance": SIGNIFICANCE,
        "min_seeds": MIN_SEEDS,
        "figures": {name: f"{PREFIX}_{name}.png" if name in drawn else None for name in FIGURES},
        **{name: getattr(told, name) for name in ("effect", "verdict", "hint", "mean", "value")},
    }  # fmt: skip


def _short(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader asks for; each dense network's hash stays in its file."""
    return {key: value for key, value in provenance.items() if key != n.DENSE}


def line(row: Mapping[Any, Any]) -> str:
    """What a test is of, in words."""
    return f"{row['left']} less {row['right']}" + (f" ({at(row['of'])})" if row["of"] else "")


def _setting(sweep: Sweep) -> Iterator[str]:
    """The setting in two lines: network, data and the dense networks' measure; seeds and budgets."""
    settings, dense, told = sweep.study.settings, sweep.dense[sweep.split].dropna(), sweep.measure.told
    data, model = section(settings, "data"), section(settings, "model").get("name") or "network"
    on = data.get("dataset")
    if on == "folder":  # its last part names the copy; where it lay says nothing
        on = f"{PurePath(str(data.get('root'))).name} (a folder of images)"
    params = sweep.dense[n.PARAMS].max()
    size = f" of {params:,.0f} parameters" if pd.notna(params) else ""
    spread = f" ({told(dense.min())} to {told(dense.max())})" if len(dense) > 1 else ""
    yield (
        f"A {model}{size} on {on or 'data that its settings do not name'}; the dense networks reach "
        f"{told(dense.mean())} {sweep.split} {sweep.measure.name} on average{spread}, on {len(dense)} seeds."
    )
    epochs, budgets = sweep.dense[n.EPOCHS].max(), sorted(set(trained_on(sweep)[BUDGET].dropna()) - {0})
    if budgets and epochs and pd.notna(epochs):
        share = [f"{100 * one / epochs:.3g}%" for one in (budgets[0], budgets[-1])]
        yield (
            f"Dense training takes {words.number(epochs)} epochs; retraining takes {words.number(budgets[0])} to "
            f"{words.number(budgets[-1])} in all, {share[0]} to {share[1]} of that. Seeds: {_seed_line(sweep)}."
        )


def _seed_line(sweep: Sweep) -> str:
    rows = sweep.pruned.assign(**{ROLE: sweep.pruned[ROLE].fillna(FRESH)})
    told = {}
    for family, own in rows.groupby(n.FAMILY, sort=False):
        roles = own.groupby(ROLE)[n.SEED].unique()
        told[family] = ", ".join(f"{role} {' '.join(str(s) for s in sorted(seeds))}" for role, seeds in roles.items())
    alike = len(set(told.values())) == 1
    return next(iter(told.values())) if alike else "; ".join(f"of {family}, {text}" for family, text in told.items())


def _seeds(sweep: Sweep) -> pd.DataFrame:
    parts = sweep.declared.seeds
    rows = [(part.role, ", ".join(map(str, part.seeds)), at(part.where) or "all networks") for part in parts]
    return pd.DataFrame(rows, columns=["role", "seeds", "of"])


def _rates(sweep: Sweep) -> pd.DataFrame:
    """The learning rate at which each retraining begins, by its epochs."""
    rows = sweep.pruned[[n.FAMILY, n.RETRAIN, n.FINE_TUNE_EPOCHS, PEAK_LR]].drop_duplicates().dropna(subset=[PEAK_LR])
    rows = rows.sort_values([n.FAMILY, n.RETRAIN, n.FINE_TUNE_EPOCHS])
    numbers = (n.FINE_TUNE_EPOCHS, PEAK_LR)
    return rows.assign(**{column: [f"{value:.4g}" for value in rows[column]] for column in numbers})
