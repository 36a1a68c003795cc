"""The study file of the comparison, with shorter lists, on the digits: run, confirmed and answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from analysis.__main__ import main as analyse
from search.__main__ import main
from search.study import load_study
from tests import ROOT
from tests.search_helpers import rows, write
from trainables.records import names as n

FILE = ROOT / "search" / "studies" / "comparison_short_budgets.yaml"
QUESTIONS = ("one_shot", "iterative", "structured", "families")


def shorter(folder: Path) -> Path:
    """The file with three importances, one pruner beside the base and two seeds of each kind; all its parts are there."""
    raw = yaml.safe_load(FILE.read_text())
    for entry in raw["sweep"]:
        if isinstance(entry.get(n.IMPORTANCE), list):
            entry[n.IMPORTANCE] = ["magnitude_l2", "taylor", "random"]
        if n.PRUNER in entry:
            entry[n.PRUNER] = ["group_norm"]
        entry[n.SEED] = entry[n.SEED][:2]
    raw["finalists"] |= {"top": 2, "seeds": [10, 11]}
    return write(folder, raw)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_the_comparison_s_own_file_answers_its_four_questions_on_the_digits(tmp_path: Path) -> None:
    small = [
        "data.dataset=digits",
        "data.cutout=2",
        "data.limit=300",
        "model.arguments.width=4",
        f"storage={tmp_path / 'results'}",
    ]
    file = shorter(tmp_path)
    assert main(["run", str(file), *(part for setting in small for part in ("--set", setting))]) == 0
    folder = tmp_path / "results" / "comparison_short_budgets"
    study = load_study(file)
    assert study.finalists is not None
    steps = {row[n.STEP_ID]: row for row in rows(folder / n.POINTS_FILE)}
    seeds = {schedule.seed for schedule in study.schedules()} | set(study.finalists.seeds)
    assert {row[n.SEED] for row in steps.values() if row[n.TRIAL] is None} == seeds
    assert {row[n.STATE] for row in rows(folder / n.TRIALS_FILE)} == {n.COMPLETE}
    assert all(row[n.LATENCY] > 0 for row in steps.values())

    assert main(["confirm", str(folder)]) == 0
    assert analyse(["compare", str(folder)]) == 0
    answers = json.loads((folder / "report" / "answers.json").read_text())
    assert answers["split"] == "test"
    assert set(answers["questions"]) == set(QUESTIONS)
    for question in QUESTIONS:
        assert answers["questions"][question]["answer"]
        assert (folder / "report" / f"comparison_{question}.png").exists()


def test_the_readme_quotes_the_report_as_it_is() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    report = (ROOT / "results" / "comparison_short_budgets" / "report" / "comparison.md").read_text()
    answers = report.partition("## Summary")[2].partition("## 1.")[0].strip().splitlines()
    assert len(answers) > 3
    assert all(answer in readme for answer in answers)
