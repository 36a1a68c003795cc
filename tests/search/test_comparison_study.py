"""The study files of comparisons: every schedule is of an arm, and every contrast finds what it compares."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.__main__ import main as analyse
from analysis.comparison.engine import compare
from analysis.comparison.sweep import load_sweep
from analysis.load import load_study as read_study
from search.__main__ import main
from search.study import check_same, load_study, to_yaml
from tests import ROOT
from tests.made_up import dense, point, write_study
from tests.search_helpers import rows, write
from trainables.node import Node
from trainables.records import names as n
from trainables.records.names import InputError

STUDIES = ROOT / "search" / "studies"
FILE = STUDIES / "comparison.yaml"
COMMITTED = ROOT / "results" / "comparison"


def made_up_points(file: Path, folder: Path) -> Path:
    """A folder of points as this study would leave them, every network with an accuracy of its own."""
    study = load_study(file)
    seeds = sorted({schedule.seed for schedule in study.schedules()})
    found = [dense(**{n.SEED: seed, n.STEP_ID: f"dense{seed}", n.EPOCHS: study.dense.epochs}) for seed in seeds]
    for schedule in study.schedules():
        paid = schedule.fine_tune_epochs + schedule.columns()[n.SPARSE_EPOCHS]
        for step, (target, node) in enumerate(zip(schedule.targets(), nodes(study, schedule), strict=True), start=1):
            size = 1 / (1 - target / 1e6) ** (2 if schedule.family == n.STRUCTURED else 1)
            found.append(
                point(**schedule.columns())
                | {n.STEP: step, n.STEP_ID: node.id, n.TOTAL_EPOCHS: step * paid, n.REQUESTED_SPARSITY: target / 1e6}
                | {n.SPARSITY: target / 1e6, n.COMPRESSION: size, n.ACCURACY: 0.8 + int(node.id, 16) % 997 / 1e4}
            )
    return write_study(folder, found, settings=json.loads(json.dumps(yaml.safe_load(to_yaml(study)))))


def nodes(study: Any, schedule: Any) -> list[Node]:
    from trainables.chain import MethodSettings  # noqa: PLC0415

    root = Node(None, {"kind": "dense", n.SEED: schedule.seed})
    return MethodSettings(study.retraining, study.regularisation).chain(root, schedule)


def test_every_schedule_is_of_an_arm_and_every_contrast_concludes(tmp_path: Path) -> None:
    sweep = load_sweep(read_study(made_up_points(FILE, tmp_path)))
    named = set[int]()
    for name, where in sweep.declared.arms.items():
        named |= set(sweep.where(where, name).index)
    assert not set(sweep.pruned.index) - named
    frame = compare(sweep)
    assert set(frame["contrast"]) == set(sweep.declared.contrasts or ())
    assert frame["concludes"].all() and frame["lost"].eq("").all()
    # What a contrast is of differs, and the rate of retraining, which both families share, doesn't.
    by = frame.groupby("contrast")["differs"].first()
    assert "strength 1 | 0" in by["penalties"]
    assert not any("peak_lr" in by[name] for name in ("equal_total", "channels_less_weights"))
    levels = {cell["level"] for cell in frame[frame["contrast"] == "equal_total"]["of"]}
    assert levels >= {0.8, 0.9, 0.95}


def test_the_tuning_seed_takes_no_part() -> None:
    tuned, study = load_study(STUDIES / "comparison_tuning.yaml"), load_study(FILE)
    seeds = {schedule.seed for schedule in study.schedules()}
    assert len(seeds) == 5 and seeds.isdisjoint(schedule.seed for schedule in tuned.schedules())
    assert [part.role for part in tuned.seeds] == ["tuning"]


def test_the_hours_are_those_that_the_file_tells() -> None:
    """In full epochs: channels cost in proportion to how many are left, and shared steps once."""
    cost = 0.0
    for file in (FILE, STUDIES / "comparison_tuning.yaml"):
        study, paid = load_study(file), dict[str, float]()
        for schedule in study.schedules():
            paid[f"dense {schedule.seed}"] = study.dense.epochs
            for target, node in zip(schedule.targets(), nodes(study, schedule), strict=True):
                left = 1 - target / 1e6 if schedule.family == n.STRUCTURED else 1.0
                paid[node.id] = left * schedule.fine_tune_epochs
                assert node.parent is not None
                paid[node.parent.id] = paid.get(node.parent.id, 0.0) or float(schedule.columns()[n.SPARSE_EPOCHS])
        cost += sum(paid.values())
    told = re.search(r"together ([0-9,]+), .*: ([0-9.]+) core hours at ([0-9.]+) s", FILE.read_text())
    assert told is not None and cost == pytest.approx(float(told[1].replace(",", "")), rel=0.02)
    assert cost * float(told[3]) / 3600 == pytest.approx(float(told[2]), rel=0.02)


def test_what_is_compared_may_change_and_is_checked_at_the_start() -> None:
    study = load_study(FILE)
    changed = load_study(FILE, {"contrasts": {"one": {"left": "chain_1"}}, "arms": {"chain_1": {"cutting": "iterative"}}})
    check_same(study, changed, "here")
    assert study.schedules() == changed.schedules()
    with pytest.raises(InputError, match=r"contrasts.one: 'chain_3' is no arm; did you mean"):
        load_study(FILE, {"contrasts.one": {"left": "chain_3"}})
    with pytest.raises(InputError, match="'levle' is no column of a point; did you mean 'level'"):
        load_study(FILE, {"contrasts.one": {"left": "chain_1", "matched": ["levle"]}})


def shorter(folder: Path) -> Path:
    """The file with fewer levels, epochs and importances, and two seeds; all its parts are there."""
    raw = yaml.safe_load(FILE.read_text())
    raw["sweep"] = [entry | {"fine_tune_epochs": 2, n.SEED: [20, 21]} for entry in raw["sweep"][:8]]
    for entry in raw["sweep"]:
        if isinstance(entry["levels"][0], list):
            entry["levels"] = entry["levels"][:2]
        if isinstance(entry.get(n.IMPORTANCE), list):
            entry[n.IMPORTANCE] = ["random", "taylor"]
        if n.PRUNER in entry:
            entry |= {"sparse_epochs": 1, n.PRUNER: "group_norm"}
    raw |= {"arms": {"penalised": {"strength": 1}, "unpenalised": {"strength": 0}, "nothing_removed": {"level": 0}}}
    raw["contrasts"] = {"penalties": {"left": "penalised", "right": "unpenalised"}, "alone": {"left": "nothing_removed"}}
    return write(folder, raw)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_the_comparison_s_own_file_is_run_confirmed_and_answered_on_the_digits(tmp_path: Path) -> None:
    small = [
        "data.dataset=digits", "data.cutout=2", "data.limit=300", "model.arguments.width=4", "dense.epochs=2",
        f"storage={tmp_path / 'results'}",
    ]  # fmt: skip
    file = shorter(tmp_path)
    assert main(["run", str(file), *(part for setting in small for part in ("--set", setting))]) == 0
    folder = tmp_path / "results" / "comparison"
    assert {row[n.STATE] for row in rows(folder / n.TRIALS_FILE)} == {n.COMPLETE}
    assert main(["confirm", str(folder)]) == 0
    assert analyse(["compare", str(folder)]) == 0
    frame = compare(load_sweep(read_study(folder)))
    assert set(frame["split"]) == {"test"} and set(frame["n"]) == {2}
    assert set(frame["contrast"]) == {"penalties", "alone"} and (folder / "report" / "index.html").is_file()


def test_the_readme_quotes_the_report_as_it_is() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    report = (COMMITTED / "report" / "comparison.md").read_text()
    summary = " ".join(report.partition("## Summary\n")[2].partition("\n## ")[0].split())
    assert len(summary) > 500 and summary in readme


@pytest.mark.parametrize("name", ["comparison", "comparison_tuning", "comparison_short_budgets"])
def test_a_committed_comparison_declares_what_its_study_file_does(name: str) -> None:
    file, ran = load_study(STUDIES / f"{name}.yaml"), load_study(ROOT / "results" / name / n.STUDY_FILE)
    assert (file.arms, file.contrasts, file.seeds) == (ran.arms, ran.contrasts, ran.seeds)
    assert file.schedules() == ran.schedules()
