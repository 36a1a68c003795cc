"""The report, its figures, the command line and the notebook, on a made-up study."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest

import trainables.records.names as n
from analysis import words
from analysis.__main__ import main
from analysis.columns import frame
from analysis.figures import SPARSITY, Axis, accuracy_figure, render
from analysis.load import load_study
from analysis.pareto import front
from analysis.report import write_report
from analysis.summary import summarise
from analysis.tables import provenance_table
from tests import ROOT
from tests.made_up import dense, end, example_study, point, write_study
from trainables.records.objectives import OBJECTIVES
from trainables.records.words import recipe

ANALYSIS = ROOT / "analysis"
HOSTILE = "<script>alert(1)</script>"
SCRIPTS = 3
"""Elements of a page that are ours: the data, plotly.js and what uses both."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = example_study(tmp_path_factory.mktemp("results") / "example")
    write_report(load_study(study))
    return study


def test_the_page_tells_the_front(folder: Path) -> None:
    page = (folder / n.REPORT_FOLDER / "index.html").read_text()
    study = load_study(folder)
    best = front(study.pruned, study.objectives, study.dense)
    assert len(best) > 3 and all(step_id in page for step_id in best[n.STEP_ID])
    assert "removed nothing: round_to is too coarse" in page
    assert "hardware.cpu" in page and "sampler: tree" in page


def test_tables_hold_the_numbers(folder: Path) -> None:
    study = load_study(folder)
    best = pd.read_csv(folder / n.REPORT_FOLDER / "front.csv")
    points = pd.read_csv(folder / n.REPORT_FOLDER / "points.csv")
    members = front(study.pruned, study.objectives, study.dense, accuracy_drop=study.accuracy_drop)
    assert list(best[n.STEP_ID]) == list(members[n.STEP_ID])
    assert tuple(points.columns) == n.POINT_COLUMNS and len(points) == 1 + len(study.pruned)


@pytest.mark.parametrize("name", ["front", "hypervolume", "other_axes"])
def test_figures_are_pictures(folder: Path, name: str) -> None:
    picture = matplotlib.image.imread(folder / n.REPORT_FOLDER / f"{name}.png")
    assert picture.shape[1] > 600 and picture.std() > 0.01
    assert (folder / n.REPORT_FOLDER / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_a_report_made_again_is_the_same(folder: Path) -> None:
    files = sorted((folder / n.REPORT_FOLDER).iterdir())
    assert any(file.name == "importances.svg" for file in files), "what mattered is among them"
    before = [file.read_bytes() for file in files]
    write_report(load_study(folder))
    assert sorted((folder / n.REPORT_FOLDER).iterdir()) == files, "no temporary file stays behind"
    assert [file.read_bytes() for file in files] == before


@pytest.mark.usefixtures("undrawn")
def test_the_page_follows_the_numbers(tmp_path: Path) -> None:
    pages = []
    for accuracy in (0.912, 0.923):
        study = write_study(tmp_path, [dense(), point(accuracy=accuracy)])
        pages.append(write_report(load_study(study)).read_text())
    assert "91.2%" in pages[0] and "91.2%" not in pages[1] and "92.3%" in pages[1]


def test_nothing_of_a_study_becomes_markup(tmp_path: Path) -> None:
    rows = [dense(), point(importance=HOSTILE, retrain=HOSTILE, scope="$\\frac{$")]
    settings = {"name": f"{HOSTILE} $x_{{", "data": {"dataset": HOSTILE}, "model": HOSTILE}
    study = write_study(tmp_path, rows, settings=settings, trials=[end(0, "failed", HOSTILE), end(1, HOSTILE)])
    (study / n.PROVENANCE_FILE).write_text(json.dumps({HOSTILE: [HOSTILE]}))
    page = write_report(load_study(study)).read_text()
    assert HOSTILE not in page and page.count("<script") == SCRIPTS and "&lt;script&gt;" in page


def test_provenance_tells_what_was_otherwise_in_earlier_runs() -> None:
    now = {"versions": {"torch": "2", "ray": "1"}, "hours": 3}
    earlier = {"first": 1, "runs": 2, "hours": 1, "versions": {"torch": "1", "ray": "1"}, "code": {"sha256": "a"}}
    table = provenance_table({**now, n.HISTORY: [earlier, {"first": 3, "runs": 1, **now}, "damaged"]})
    assert dict(table.to_numpy().tolist()) == {
        "versions.torch": "2", "versions.ray": "1", "hours": "3", "from run 1: versions.torch": "1",
    }  # fmt: skip
    assert provenance_table(now).equals(table.iloc[:3])
    assert provenance_table({**now, n.HISTORY: "damaged"}).equals(table.iloc[:3])


@pytest.mark.usefixtures("undrawn")
def test_what_stays_whole_is_told_where_something_does(tmp_path: Path) -> None:
    study = write_study(tmp_path, [dense(), point()])
    assert "What stays whole" not in write_report(load_study(study)).read_text()
    told = {"told": ["stem, head: <attention> keeps its heads", "model.least_channels: 4"], "floors": {"stem": 4}}
    found = {n.STRUCTURED: told, n.UNSTRUCTURED: HOSTILE, "other": {"told": HOSTILE}}
    (study / n.PROVENANCE_FILE).write_text(json.dumps({n.PROTECTED: found, "hours": 1}))
    page = write_report(load_study(study)).read_text()
    assert "What stays whole" in page
    assert "stem, head: &lt;attention&gt; keeps its heads" in page
    assert "model.least_channels: 4" in page
    assert "floors" not in page and HOSTILE not in page and page.count("<script") == SCRIPTS
    (study / n.PROVENANCE_FILE).write_text(json.dumps({n.PROTECTED: HOSTILE}))
    assert "What stays whole" not in write_report(load_study(study)).read_text()


STUDIES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "one point": ([dense(), point()], ["accuracy", "compression"]),
    "worse than dense in everything": ([dense(), point(accuracy=0.3, compression=0.9)], ["accuracy", "compression"]),
    "three objectives": ([dense(), point(latency_ms=0.2)], ["accuracy", "latency", "macs"]),
    "never timed": ([dense(latency_ms=None), point()], ["accuracy", "latency"]),
    "no MACs": ([dense(macs=None), point(macs=None)], ["compression", "accuracy"]),
    "found before": ([dense(), point(reused=True, epochs=0)], ["accuracy", "compression"]),
    "accuracy is no objective": ([dense(), point()], ["compression", "macs"]),
}


@pytest.mark.parametrize("rows, objectives", STUDIES.values(), ids=STUDIES)
def test_unusual_studies_have_a_report(tmp_path: Path, rows: list[dict[str, Any]], objectives: list[str]) -> None:
    study = write_study(tmp_path, rows, settings={"objectives": objectives})
    assert "a1" in (tmp_path / n.POINTS_FILE).read_text() and write_report(load_study(study)).is_file()


@pytest.mark.parametrize("axis", [*OBJECTIVES.values(), SPARSITY], ids=str)
def test_every_axis_can_be_drawn(axis: Axis) -> None:
    picture = render(accuracy_figure(frame([point(latency_ms=0.2)]), frame([dense()]), [axis]), "png")
    assert matplotlib.image.imread(BytesIO(picture)).std() > 0.01


def test_collapsed_networks_are_counted_not_drawn() -> None:
    points = frame([point(), point(step_id="b", accuracy=0.1), point(step_id="c", accuracy=0.2)])
    axes = accuracy_figure(points, frame([dense()])).axes[0]
    assert axes.get_ylim()[0] > 70
    assert axes.get_title(loc="left").startswith("2 of 3 networks lie below")


def test_summary_counts_what_reuse_saved(tmp_path: Path) -> None:
    rows = [
        dense(),
        point(step_id="a", epochs=3) | {n.TOTAL_EPOCHS: 3},
        point(step_id="a", trial=1, epochs=0, reused=True) | {n.TOTAL_EPOCHS: 3},
        point(step_id="b", trial=1, step=2, epochs=2) | {n.TOTAL_EPOCHS: 5},
    ]
    summary = summarise(load_study(write_study(tmp_path, rows)))
    assert (summary.trials, summary.computed, summary.found) == (2, 2, 1)
    assert (summary.epochs, summary.saved) == (5, 3)


RECIPES = {
    "magnitude, global; one cut of 50%; 1 epoch of fine-tuning after it": point(),
    "lamp, group_norm pruner; 3 cuts of 30% each; 2 sparse epochs before and 4 epochs of fine-tuning after each": point(
        family=n.STRUCTURED, importance="lamp", pruner="group_norm", scope=None, step=3, step_ratio=0.3,
        sparse_epochs=2, fine_tune_epochs=4,
    ),
    "taylor, global; cubic schedule, cut 2 of 5; 1 epoch of learning-rate rewinding after each": point(
        importance="taylor", schedule="cubic", step=2, steps=5, step_ratio=None, retrain="lr_rewind"
    ),
    "magnitude, global, widths in multiples of 8; one cut of 50%": point(round_to=8, fine_tune_epochs=None),
}  # fmt: skip


@pytest.mark.parametrize("text, row", RECIPES.items(), ids=range(len(RECIPES)))
def test_recipes_in_words(text: str, row: dict[str, Any]) -> None:
    assert recipe(row) == text


def test_numbers_in_words() -> None:
    assert words.percent(0.9144) == "91.4%" and words.percent(None) == words.MISSING
    assert (
        words.times(12.345).startswith("12.3") and words.times(100.4).startswith("100") and words.times(2.0)[:4] == "2.00"
    )
    assert words.amount(4_200_000) == "4.20 M" and words.amount(950) == "950"
    assert words.number(123456.7) == "123,457" and words.number(0.12345) == "0.123"


@pytest.mark.usefixtures("undrawn")
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(write_study(tmp_path, [dense(), point()]))]) == 0
    shown = capsys.readouterr().out
    assert "compression" in shown and str(tmp_path / n.REPORT_FOLDER / "index.html") in shown


def test_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "no such folder" in shown.err


def test_of_the_project_only_the_vocabulary_is_imported() -> None:
    imported = "import sys, analysis.__main__; print(*sys.modules)"
    command = [sys.executable, "-c", imported]
    loaded = set(subprocess.check_output(command, cwd=ANALYSIS.parent, text=True).split())  # noqa: S603
    ours = {name for name in loaded if name.startswith("trainables")} - {"trainables"}
    assert ours and all(name.startswith("trainables.records") for name in ours)
    assert not loaded & {"search", "ray", "torch", "optuna"}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["..", "."], ids=["root", "analysis"])
def test_the_notebook_runs(folder: Path, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient  # noqa: PLC0415
    import nbformat  # noqa: PLC0415

    notebook = nbformat.read(ANALYSIS / "pareto.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is committed without outputs"
    monkeypatch.setenv("PRUNING_STUDY", str(folder))
    place = {"metadata": {"path": str(ANALYSIS / start)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=place).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 4
