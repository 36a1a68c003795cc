"""The report of a study: one page, its figures and its tables, in results/<study>/report/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

import trainables.records.names as n
from analysis import tables, words
from analysis.confirmed import load_again, load_confirmed, optimism_of
from analysis.effects.section import Mattered, what_mattered
from analysis.figures import SPARSITY, Axis, Look, accuracy_figure, forms_figure, hypervolume_figure, on_axis, render
from analysis.load import Study
from analysis.page import inline
from analysis.page.answers import answers
from analysis.page.layers import layers
from analysis.page.networks import page_data
from analysis.pareto import front, hypervolume_history
from analysis.sensitivity import TITLES, Sensitivity, read_sensitivity, unit_of
from analysis.summary import summarise
from trainables.records.files import write_atomically
from trainables.records.objectives import COMPRESSION, LOG2, OBJECTIVES, Objective

INDEX = "index.html"
FRONT, HYPERVOLUME, OTHER_AXES, STORED_FORMS = "front", "hypervolume", "other_axes", "stored_forms"
FRONT_TABLE, POINTS_TABLE = "front.csv", "points.csv"
TEMPLATES = Path(__file__).parent / "templates"


def write_report(study: Study) -> Path:
    """Write the whole report, the page last, and return the page's path."""
    folder = study.folder / n.REPORT_FOLDER
    folder.mkdir(exist_ok=True)
    best = front(study.pruned, study.objectives, study.dense, study.dense_forms, study.accuracy_drop)
    mattered = what_mattered(study, main_axis(study))
    alone = read_sensitivity(study.folder, study.measure) if (study.folder / n.SENSITIVITY_FILE).exists() else None
    pictures = {}
    for name, figure in {**figures(study), **mattered.figures, **(alone.figures if alone else {})}.items():
        pictures[name] = render(figure, "png")
        write_atomically(folder / f"{name}.png", pictures[name])
        write_atomically(folder / f"{name}.svg", render(figure, "svg"))
    write_atomically(folder / FRONT_TABLE, _csv(best))
    write_atomically(folder / POINTS_TABLE, _csv(pd.concat([_unpruned(study), study.pruned])))
    for name, table in mattered.tables.items():
        write_atomically(folder / name, _csv(table))
    write_atomically(folder / INDEX, page(study, best, mattered, alone, pictures))
    return folder / INDEX


def figures(study: Study) -> dict[str, Figure]:
    """The report's figures by the name of their file."""
    main, look = main_axis(study), Look(study.measure, study.accuracy_drop)
    history = hypervolume_history(study.points, study.objectives, study.dense, study.accuracy_drop)
    found = {
        FRONT: accuracy_figure(study.pruned, study.dense, [main], study.dense_forms, look),
        HYPERVOLUME: hypervolume_figure(history),
        OTHER_AXES: accuracy_figure(study.pruned, study.dense, _other_axes(study, main), study.dense_forms, look),
    }
    if len(study.forms) == 1:
        return found
    return found | {STORED_FORMS: forms_figure(study.pruned, study.dense, study.dense_forms, study.forms, main, look)}


def _unpruned(study: Study) -> pd.DataFrame:
    """The dense networks in files of their own, and where they are others, as they compete."""
    return pd.concat([study.dense, study.dense_forms]).drop_duplicates([n.SEED, n.FORM, n.STORED_FORMAT])


def main_axis(study: Study) -> Objective:
    """What accuracy is shown against first: the study's first objective that is a factor against the dense network."""
    return next((one for one in study.objectives if one.scale == LOG2), COMPRESSION)


def page(
    study: Study, best: pd.DataFrame, mattered: Mattered, alone: Sensitivity | None, pictures: Mapping[str, bytes]
) -> str:
    """The report's page, whole in itself; everything that comes from the study is escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    content = {**_content(study, best, mattered), **_looked_into(study, best)}
    content |= {"alone": alone, "alone_what": TITLES, "alone_unit": unit_of(study.measure)}
    content["pictures"] = {name: inline.picture(png) for name, png in pictures.items()}
    return environment.get_template("report.html.j2").render(content)


def _looked_into(study: Study, best: pd.DataFrame) -> Mapping[str, Any]:
    """What answers first, and what a reader can look into, with the scripts that show it."""
    confirmed = load_confirmed(study.folder, study.measure)
    told, main = answers(study, confirmed, load_again(study)), main_axis(study)
    shown = page_data(study, best, confirmed, main)
    scripts = [inline.plotly(), (TEMPLATES / "report.js").read_text(encoding="utf-8")]
    return {
        "answers": told,
        "shown": shown,
        "families": [one for one in n.FAMILIES if one in shown["networks"]["family"]],
        "layers": layers(study, best, told.chosen),
        "data": inline.data(shown, "data"),
        "scripts": [inline.script(source) for source in scripts],
        "policy": inline.policy(*scripts),
    }


def _content(study: Study, best: pd.DataFrame, mattered: Mattered) -> Mapping[str, Any]:
    summary = summarise(study)
    return {
        "study": study,
        "subject": _subject(study),
        "objectives": [one.label if one.quality else one.axis for one in study.objectives],
        "drop": study.measure.told_drop(study.accuracy_drop),
        "measure": study.measure,
        "dense_value": words.quality(study.measure, study.dense[study.measure.column].mean(), 2),
        "seeds": len(study.dense),
        "headline": tables.headline(summary),
        "states": summary.states,
        "axis": main_axis(study).axis,
        "front": tables.front_table(best, study.objectives, study.retrainings, study.measure),
        "best": tables.best_table(study),
        "forms": {"dense": tables.dense_forms_table(study), "best": tables.forms_table(study)}
        if len(study.forms) > 1
        else None,
        "mattered": mattered,
        "range": main_axis(study).noun,
        "importances": tables.importance_table(study),
        "failures": tables.failure_table(study),
        "protected": tables.protected_table(study.provenance),
        "provenance": tables.provenance_table(study.provenance),
        "limits": ", ".join(f"{name} {_plain(value)}" for name, value in study.limits.given.items()),
        **_confirmed(study, best),
        "timed": bool(study.pruned[n.LATENCY].notna().any()),
        "files": {"front": FRONT, "hypervolume": HYPERVOLUME, "forms": STORED_FORMS},
        "csv": {"front": FRONT_TABLE, "points": POINTS_TABLE},
    }


def _plain(limit: float | str) -> str:
    return f"{limit:g}" if isinstance(limit, float) else limit


def _confirmed(study: Study, best: pd.DataFrame) -> Mapping[str, Any]:
    """What the test data said of the front, and of its recipes on fresh seeds."""
    confirmed, again, place = load_confirmed(study.folder, study.measure), load_again(study), study.folder.resolve()
    found = optimism_of(study, best, confirmed)
    return {
        "confirmed": bool(confirmed),
        "optimism": found.told(study.measure) if found else "",
        "again": tables.again_table(list(again.values()), confirmed, study) if again else None,
        "place": n.printable(f"{place.parent.name}/{place.name}"),
    }


def _subject(study: Study) -> str:
    sections = ((study.settings.get(section), key) for section, key in (("data", "dataset"), ("model", "name")))
    values = [str(section[key]) for section, key in sections if isinstance(section, dict) and section.get(key)]
    return ", ".join(values)


def _other_axes(study: Study, main: Objective) -> list[Axis]:
    """What every report shows, and what else the study searched by, as far as it was measured."""
    shown = dict.fromkeys([*(one for one in OBJECTIVES.values() if one.drawn), *study.objectives])
    wanted: list[Axis] = [one for one in shown if one is not main and not one.quality]
    return [axis for axis in [*wanted, SPARSITY] if len(on_axis(study.pruned, study.dense, axis))]


def _csv(points: pd.DataFrame) -> str:
    return points.to_csv(index=False, float_format="%.10g", lineterminator="\n")
