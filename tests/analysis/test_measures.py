"""A study whose measure isn't accuracy: the same networks in other words, and the same front."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import trainables.records.names as n
from analysis.__main__ import main
from analysis.comparison.engine import compare
from analysis.comparison.report import MARKDOWN, write_comparison
from analysis.comparison.sweep import load_sweep
from analysis.comparison.tables import levels_table
from analysis.load import Study, load_study
from analysis.page.answers import answers
from analysis.page.networks import page_data
from analysis.pareto import front, hypervolume
from analysis.report import write_report
from analysis.tables import best_table
from tests.made_up import MAE, example_study, of_mae, sweep_study
from trainables.records.methods import MEASURE
from trainables.records.names import InputError
from trainables.records.objectives import COMPRESSION


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study measured by accuracy, and the folder of one whose networks miss ten times what is wrong with those."""
    folder = tmp_path_factory.mktemp("results")
    return load_study(example_study(folder / "accuracy")), of_mae(example_study(folder / "mae"))


def test_the_same_networks_have_the_same_front(both: tuple[Study, Path]) -> None:
    told, other = both[0], load_study(both[1])
    assert other.measure.name == "mae" and other.accuracy_drop == 1.0 and other.points[n.ACCURACY].isna().all()
    fronts = [list(front(one.pruned, one.objectives, one.dense)[n.STEP_ID]) for one in (told, other)]
    assert fronts[0] == fronts[1] and len(fronts[0]) > 3
    volumes = [hypervolume(one.pruned, one.objectives, one.dense, one.accuracy_drop) for one in (told, other)]
    assert volumes[1] == pytest.approx(10 * volumes[0])
    best = best_table(other)
    assert list(best["mae given up"].unique()) == ["none", "0.05 of mae", "0.1 of mae", "0.2 of mae"]
    assert list(best["step id"]) == list(best_table(told)["step id"])


@pytest.mark.usefixtures("undrawn")
def test_the_report_speaks_of_the_measure_by_its_name(both: tuple[Study, Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = write_report(load_study(both[1])).read_text()
    assert "validation mean absolute error" in page and "1 of mae more than the dense mae" in page
    promise = r"within 0.05 of mae:</strong> [0-9.]+× smaller \([0-9.]+ kB\) on validation data: optimistic, by about "
    assert re.search(promise + r"0\.[0-9]+ of mae in expectation. 0\.[0-9]+ validation mae; ", page)
    assert "accura" not in page.partition("<details")[0].lower()
    assert main(["report", str(both[1])]) == 0
    assert "mae" in capsys.readouterr().out


def test_the_page_holds_the_same_networks_and_says_which_way_is_better(both: tuple[Study, Path]) -> None:
    told, other = both[0], load_study(both[1])
    pages = [page_data(one, front(one.pruned, one.objectives, one.dense), {}, COMPRESSION) for one in (told, other)]
    values, errors = (page["networks"]["value"] for page in pages)
    assert errors == pytest.approx([10 * (1 - value) for value in values], abs=1e-4)
    assert pages[0]["networks"]["front"] == pages[1]["networks"]["front"]
    ways = [(page["measure"]["rising"], page["measure"]["kind"], page["measure"]["scale"]) for page in pages]
    assert ways == [(True, "share", 100.0), (False, "number", 1.0)]
    headings = [{column["key"]: column["label"] for column in page["columns"]} for page in pages]
    assert [each["value"] for each in headings] == ["validation accuracy", "validation mean absolute error"]


def test_the_answers_choose_the_same_networks(both: tuple[Study, Path]) -> None:
    told, other = both[0], load_study(both[1])
    ours, theirs = (answers(one, {}) for one in (told, other))
    assert ours.chosen == theirs.chosen and ours.chosen
    assert [text.replace("of mae", "") for text in theirs.avoid if text.startswith("Compression")] == [
        text.replace("10 points", "1 ") for text in ours.avoid if text.startswith("Compression")
    ]


def test_a_comparison_says_the_same_of_another_measure(tmp_path: Path) -> None:
    studies = load_study(sweep_study(tmp_path / "accuracy")), load_study(of_mae(sweep_study(tmp_path / "mae")))
    ours, other = (compare(load_sweep(study)) for study in studies)
    assert len(ours) > 3
    assert list(other["estimate"]) == pytest.approx([-10 * one for one in ours["estimate"]])
    assert list(other["margin"]) == pytest.approx([10 * one for one in ours["margin"]])
    tables = [levels_table(load_sweep(study)) for study in studies]
    assert list(tables[0]["recipe"]) == list(tables[1]["recipe"]) and "less dense" in tables[1].columns
    page, summary = write_comparison(studies[1])
    text = page.with_name(MARKDOWN).read_text()
    assert "The mae is on the validation split" in text and "| mae |" in text and "| accuracy |" not in text
    assert summary and not any("points" in line for line in summary)


def test_a_measure_that_is_described_wrongly_is_one_line(both: tuple[Study, Path], tmp_path: Path) -> None:
    folder = example_study(tmp_path / "study")
    (folder / n.METHODS_FILE).write_text(json.dumps({MEASURE: {"mae": {**MAE.describe(), "direction": "up"}}}))
    with pytest.raises(InputError, match=r"methods.json: measure: direction: "):
        load_study(folder)
    (folder / n.METHODS_FILE).write_text(json.dumps({MEASURE: {"mae": MAE.describe()}}))
    with pytest.raises(InputError, match="mae is missing"):
        load_study(folder)


@pytest.mark.parametrize(
    ("limits", "same"),
    [
        ([], ["--max-drop", "5"]), (["--max-drop", "0.2"], ["--max-drop", "2"]),
        (["--worst-value", "0.8"], ["--min-accuracy", "0.92"]), (["--max-bytes", "30k"], ["--max-bytes", "30k"]),
        (["--max-drop", "200%", "--max-bytes", "25%"], ["--max-drop", "7.6", "--max-bytes", "25%"]),
    ],
)  # fmt: skip
def test_the_same_network_is_the_best_within_the_same_limits(
    limits: list[str], same: list[str], both: tuple[Study, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = of_mae(example_study(tmp_path / "own", limits={"max_drop": 0.5}))  # those of the study file, unless others are
    assert main(["best", str(folder), *limits]) == 0 == main(["best", str(both[0].folder), *same])
    chosen = re.findall(r"--point (\w+)", capsys.readouterr().out)
    assert len(chosen) == 2 and chosen[0] == chosen[1]


def test_what_comes_nearest_is_told_in_the_measure_s_name_and_unit(
    both: tuple[Study, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["best", str(both[1]), "--max-drop", "0.1", "--max-bytes", "2k"]) == 0
    out = capsys.readouterr().out
    assert "Limits: mae at most 0.48, bytes at most 2,000." in out and "No network of" in out
    assert re.search(r"lacks: .*mae [0-9.]+ above the limit", out) and "accura" not in out
    assert main(["best", str(both[1]), "--max-drop", "30"]) == 0
    out = capsys.readouterr().out
    assert "reference moves from 1 of mae worse than dense to 30 of mae" in out and "of mae against dense" in out
    assert main(["best", str(both[1]), "--max-drop", "400%"]) == 0
    assert "Note: max_drop allows networks 1.52 of mae worse than the dense one, and what is more than 1 of mae" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (["--max-drop", "1 point"], "--max-drop: '1 point' cannot be used: there is no unit 'point'; valid: %"),
        (["--min-accuracy", "0.5"], "--min-accuracy: '0.5' cannot be used: what is measured is mae; give worst_value"),
        (["--worst-value", "0.5", "--max-drop", "1"], "limits: max_drop and worst_value both limit the measure; give one"),
    ],
)
def test_a_limit_that_the_measure_can_not_have_is_one_line(
    limits: list[str], told: str, both: tuple[Study, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["best", str(both[1]), *limits]) == 2
    out, err = capsys.readouterr()
    assert told in err and len(err.splitlines()) == 1 and not out
