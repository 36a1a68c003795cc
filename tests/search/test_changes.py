"""A study that changes between its runs, through the command line: what is on record stays, and the sampler hears of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.__main__ import main
from search.records.ledger import Ledger
from search.study import load_study
from tests.search_helpers import UNSTRUCTURED_SPACE, Raw, optuna_rows, raw_study, refusal, rows, tree_of, write
from trainables.records import names as n
from trainables.records.objectives import gains
from trainables.storage.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

NARROW = {"unstructured": {**UNSTRUCTURED_SPACE, "importance": ["magnitude"]}}
WIDE = {"unstructured": {**UNSTRUCTURED_SPACE, "step_ratio": [0.5, 0.7, 0.8]}}


def run(file: Path, *overrides: str) -> None:
    arguments = [word for override in overrides for word in ("--set", override)]
    assert main(["run", str(file), *arguments]) == 0


def told(folder: Path) -> dict[str, list[float]]:
    """The values that Optuna's study has, by step; each is there once."""
    done = [row for row in optuna_rows(folder) if row.state == TrialState.COMPLETE]
    assert set(Counter(row.user_attrs[n.STEP_ID] for row in done).values()) == {1}
    return {row.user_attrs[n.STEP_ID]: row.values for row in done}


def gains_of(folder: Path, *objectives: str) -> dict[str, list[float]]:
    dense, *points = rows(folder / n.POINTS_FILE)
    return {row[n.STEP_ID]: gains(row, dense, objectives) for row in points}


@pytest.fixture(scope="module")
def finished(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a search of a narrow space that has ended."""
    tmp = tmp_path_factory.mktemp("study")
    run(write(tmp, raw_study(tmp, space=NARROW, search={"trials": 4, "sampler": "random"})))
    return tmp / "results"


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "results"))


def changed(results: Path, **changes: object) -> Path:
    """The study file, with changes."""
    raw = raw_study(results.parent, **{"space": NARROW, "search": {"trials": 4, "sampler": "random"}, **changes})
    return write(results.parent, raw)


def test_a_wider_space_is_searched_on_with_all_that_is_known(results: Path) -> None:
    folder = results / "tiny"
    before, steps = rows(folder / n.POINTS_FILE), tree_of(folder / n.STEPS_FOLDER)
    run(changed(results, space=WIDE, search={"trials": 7, "sampler": "tree"}))
    points = rows(folder / n.POINTS_FILE)
    assert without_latency(points[: len(before)]) == without_latency(before)
    assert steps.items() <= tree_of(folder / n.STEPS_FOLDER).items()
    assert max(Counter(row[n.STEP_ID] for row in points[1:] if not row[n.REUSED]).values()) == 1
    assert sorted(row[n.TRIAL] for row in rows(folder / n.TRIALS_FILE)) == list(range(7))
    assert told(folder) == gains_of(folder, "accuracy", "compression")
    assert {tuple(row.distributions["unstructured.importance"].choices) for row in optuna_rows(folder) if row.params} == {
        ("magnitude", "random")
    }


def without_latency(points: list[Raw]) -> list[Raw]:
    return [{name: value for name, value in row.items() if "latency" not in name} for row in points]


def test_of_a_narrower_space_the_rest_stays_on_record_and_is_not_told(results: Path) -> None:
    folder = results / "tiny"
    before = rows(folder / n.POINTS_FILE)
    left = {**UNSTRUCTURED_SPACE, "importance": ["magnitude"], "step_ratio": [0.5], "max_steps": 2}
    run(changed(results, space={"unstructured": left}, search={"trials": 4, "sampler": "tpe"}))
    assert rows(folder / n.POINTS_FILE) == before
    inside = {row[n.STEP_ID] for row in before[1:] if row[n.STEP_RATIO] == 0.5 and row[n.STEP] <= 2}
    assert set(told(folder)) == inside != {row[n.STEP_ID] for row in before[1:]}
    assert Ledger(folder, ("accuracy", "compression"), 0.1).trial_numbers == {0, 1, 2, 3}


def test_other_objectives_and_another_reference_are_taken_from_what_was_measured(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = results / "tiny"
    before = rows(folder / n.POINTS_FILE)
    run(changed(results, objectives=["accuracy", "macs"], reference={"accuracy_drop": 0.9}))
    assert rows(folder / n.POINTS_FILE) == before
    assert told(folder) == gains_of(folder, "accuracy", "macs")
    ledger = Ledger(folder, ("accuracy", "macs"), 0.9)
    assert f"hypervolume {ledger.hypervolume:.4f}" in " ".join(capsys.readouterr().out.split())
    run(changed(results, objectives=["accuracy", "compression"], search={"trials": 5, "sampler": "tree"}))
    assert told(folder) == gains_of(folder, "accuracy", "compression")
    assert sorted(row[n.TRIAL] for row in rows(folder / n.TRIALS_FILE)) == list(range(5))


def test_an_objective_that_was_not_measured_is_measured_where_that_costs_little(results: Path) -> None:
    folder = results / "tiny"
    unmeasured = [{**row, n.LATENCY: None, n.LATENCY_LARGE: None} for row in rows(folder / n.POINTS_FILE)]
    (folder / n.POINTS_FILE).write_text("".join(f"{json.dumps(row)}\n" for row in unmeasured))
    shutil.rmtree(folder / n.LATENCY_FOLDER)
    run(changed(results, objectives=["accuracy", "latency"], search={"trials": 5, "sampler": "tree"}))
    after = rows(folder / n.POINTS_FILE)
    assert all(row[n.LATENCY] > 0 for row in after)  # of one shape all
    assert len(after) > len(unmeasured)
    assert told(folder) == gains_of(folder, "accuracy", "latency")


def test_the_study_as_it_was_is_not_told_again(results: Path) -> None:
    names = (n.ASKED_FILE, n.POINTS_FILE, n.TRIALS_FILE)
    before = [(results / "tiny" / name).read_bytes() for name in names]
    told = [(row.state, row.params, row.values, row.user_attrs) for row in optuna_rows(results / "tiny")]
    run(changed(results))
    assert [(results / "tiny" / name).read_bytes() for name in names] == before
    again = [(row.state, row.params, row.values, row.user_attrs) for row in optuna_rows(results / "tiny")]
    assert len(again) == len(told) and all(row in told for row in again)  # in the order of asking, and not of ending


def test_another_dense_network_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree_of(results)
    line = refusal(["run", str(changed(results, space=WIDE)), "--set", "dense.epochs=3"], capsys)
    assert line.startswith("error: dense.epochs: 3, but ")
    assert tree_of(results) == before


def test_every_run_is_on_record_and_each_step_tells_its_own(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = results / "tiny"
    (before,) = provenance(folder)[n.HISTORY]
    assert (before["first"], before["runs"], before["completed"]) == (1, 1, 1)
    old = set(Store(folder / n.STEPS_FOLDER).ids())
    run(changed(results, search={"trials": 5, "sampler": "random"}))
    (entry,) = provenance(folder)[n.HISTORY]
    assert (entry["first"], entry["runs"], entry["completed"]) == (1, 2, 2)
    assert entry["hours"] > before["hours"]
    peaks = provenance(folder)["peak_memory_mb"]
    assert peaks.keys() == {"driver", "worker"} and all(200 < peak < 8000 for peak in peaks.values())
    assert "Not as in the last run" not in capsys.readouterr().out
    # As if the last run had been killed under another torch.
    told = provenance(folder)
    told["versions"]["torch"] = told[n.HISTORY][0]["versions"]["torch"] = "1.0"
    told[n.HISTORY][0]["completed"] -= 1
    (folder / n.PROVENANCE_FILE).write_text(json.dumps(told))
    run(changed(results, space=WIDE, search={"trials": 6, "sampler": "random"}))
    assert "Not as in the last run: torch 1.0, now " in " ".join(capsys.readouterr().out.split())
    history = provenance(folder)[n.HISTORY]
    assert [(one["first"], one["runs"], one["completed"]) for one in history] == [(1, 2, 1), (3, 1, 1)]
    assert [one["versions"]["torch"] == "1.0" for one in history] == [True, False]
    store = Store(folder / n.STEPS_FOLDER)
    runs = {step: (store.record(step) or {})["run"] for step in store.ids()}
    assert {runs[step] for step in old} == {1}
    assert {runs[step] for step in runs.keys() - old} == {2, 3}


def provenance(folder: Path) -> Raw:
    found: Raw = json.loads((folder / n.PROVENANCE_FILE).read_text())
    return found


def test_steps_of_another_study_are_read_and_left_alone(results: Path) -> None:
    other = results / "tiny"
    shutil.rmtree(other / n.LATENCY_FOLDER)
    for step in {row[n.STEP_ID] for row in rows(other / n.POINTS_FILE)[1:]}:  # one that must be extended is trained again
        (other / n.STEPS_FOLDER / step / n.WEIGHTS_FILE).unlink()
        break
    before = tree_of(other)
    study = changed(results, name="next", space=WIDE, reuse=[str(other)], search={"trials": 8, "sampler": "tree"})
    run(study)
    folder = results / "next"
    own, others = (set(Store(place / n.STEPS_FOLDER).ids()) for place in (folder, other))
    dense, *points = rows(folder / n.POINTS_FILE)
    assert dense[n.STEP_ID] in others
    assert {row[n.STEP_ID] for row in points if row[n.STEP_ID] in others} > set()
    assert all(row[n.REUSED] and row[n.EPOCHS] == 0 for row in points if row[n.STEP_ID] in others)
    assert {row[n.STEP_ID] for row in points if not row[n.REUSED]} == own - others
    assert tree_of(other) == before
    step = next(row[n.STEP_ID] for row in points if row[n.STEP_ID] not in own)
    target = results.parent / "point.safetensors"
    assert main(["export", str(folder), "--point", step, "--to", str(target)]) == 0
    assert main(["confirm", str(folder)]) == 0
    assert tree_of(other) == before
    assert load_study(folder / n.STUDY_FILE).reuse == (str(other),)
