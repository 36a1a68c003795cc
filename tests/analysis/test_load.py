"""Reading a study's folder: what is typed, what is ignored, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import trainables.records.names as n
from analysis.load import load_points, load_study
from tests.made_up import dense, example_study, point, write_study
from trainables.records.methods import labels_of, read_methods


def test_columns_are_typed_and_in_order(tmp_path: Path) -> None:
    points = load_points(write_study(tmp_path, [dense(), point()]))
    assert tuple(points.columns) == n.POINT_COLUMNS
    assert points[n.ACCURACY].dtype == "float64" and points[n.LATENCY].dtype == "float64"
    assert points[n.SEED].dtype == "Int64" and points[n.REUSED].dtype == "bool"


def test_a_step_of_two_trials_is_one_network(tmp_path: Path) -> None:
    rows = [dense(), point(trial=0), point(trial=1, reused=True, epochs=0), point(trial=1, step=2, step_id="b2")]
    study = load_study(write_study(tmp_path, rows))
    assert len(study.points) == 4
    assert list(study.pruned[n.STEP_ID]) == ["a1", "b2"]
    assert list(study.pruned[n.TRIAL]) == [0, 1]


def test_a_latency_measured_later_is_not_lost(tmp_path: Path) -> None:
    rows = [dense(), point(), point(trial=1, reused=True, latency_ms=0.25)]
    assert list(load_study(write_study(tmp_path, rows)).pruned[n.LATENCY]) == [0.25]


def test_what_the_study_says_is_read(tmp_path: Path) -> None:
    settings = {"objectives": ["accuracy", "macs"], "reference": {"accuracy_drop": 0.05}}
    study = load_study(write_study(tmp_path, [dense(), point()], settings=settings))
    assert study.name == "made-up" and str(study.objectives) == "(accuracy, macs)" and study.accuracy_drop == 0.05


def test_no_provenance_and_no_trials_is_fine(tmp_path: Path) -> None:
    folder = write_study(tmp_path, [dense(), point()])
    (folder / n.PROVENANCE_FILE).unlink()
    (folder / n.TRIALS_FILE).unlink()
    study = load_study(folder)
    assert study.provenance == {} and study.trials.empty


@pytest.mark.parametrize("length", [1, 40, 300])
def test_a_cut_last_line_is_ignored(tmp_path: Path, length: int) -> None:
    path = write_study(tmp_path, [dense(), point()]) / n.POINTS_FILE
    path.write_bytes(path.read_bytes() + json.dumps(point(step_id="c3")).encode()[:length])
    assert len(load_points(tmp_path)) == 2


def test_a_last_line_without_newline_counts_when_it_is_whole(tmp_path: Path) -> None:
    path = write_study(tmp_path, [dense(), point()]) / n.POINTS_FILE
    path.write_text(path.read_text().rstrip("\n"))
    assert len(load_points(tmp_path)) == 2


BROKEN_LINES = {
    "cut": ('{"trial": 1, "st', "no valid JSON"),
    "no object": ("[1, 2]", "no JSON object"),
    "deep": ("[" * 100_000, "no valid JSON"),
    "no text": (b"\xff\xfe".decode("latin-1"), "no valid JSON"),
    "NaN": (json.dumps(point(accuracy=float("nan"))), "NaN"),
    "infinity": (json.dumps(point(latency_ms=float("inf"))), "Infinity"),
    "overflow": (json.dumps(point()).replace('"macs": 4200000', '"macs": 1e999'), "1e999"),
    "text": (json.dumps(point(sparsity="half")), n.SPARSITY),
    "truth value": (json.dumps(point(seed=True)), n.SEED),
    "percent": (json.dumps(point(accuracy=97.0)), n.ACCURACY),
    "fraction": (json.dumps(point(step=1.5)), n.STEP),
    "no compression": (json.dumps(point(compression=0)), n.COMPRESSION),
    "missing": (json.dumps(point(step_id=None)), n.STEP_ID),
    "family": (json.dumps(point(family="other")), n.FAMILY),
    "escape": (json.dumps(point(importance="\x1b[2J")), n.IMPORTANCE),
}


@pytest.mark.parametrize("line, told", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_a_broken_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = write_study(tmp_path, [dense(), point()]) / n.POINTS_FILE
    path.write_text(path.read_text().replace("\n", f"\n{line}\n", 1))
    with pytest.raises(n.InputError) as error:
        load_points(tmp_path)
    assert f"{path}, line 2: " in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("file", [n.STUDY_FILE, n.POINTS_FILE])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    (write_study(tmp_path, [dense(), point()]) / file).unlink()
    with pytest.raises(n.InputError, match=file):
        load_study(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(n.InputError, match="no such folder"):
        load_study(tmp_path / "nowhere")


@pytest.mark.parametrize("rows", [[], [dense()]], ids=["nothing", "only dense"])
def test_a_study_without_pruned_networks_is_refused(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    with pytest.raises(n.InputError, match="no pruned network yet"):
        load_points(write_study(tmp_path, rows))


def test_every_seed_needs_its_dense_network(tmp_path: Path) -> None:
    with pytest.raises(n.InputError, match="no dense network of seed 7"):
        load_points(write_study(tmp_path, [dense(), point(seed=7)]))


@pytest.mark.parametrize(
    "text",
    ["[", "- 1", "objectives: [accuracy]", "objectives: [accuracy, beauty]", "objectives: [accuracy, [macs]]",
     "{objectives: [accuracy, macs], reference: {accuracy_drop: -1}}",
     "{objectives: [accuracy, macs], reference: {accuracy_drop: .nan}}", "!!python/object/apply:os.getcwd []"],
)  # fmt: skip
def test_a_broken_study_file_is_one_line(tmp_path: Path, text: str) -> None:
    (write_study(tmp_path, [dense(), point()]) / n.STUDY_FILE).write_text(text)
    with pytest.raises(n.InputError) as error:
        load_study(tmp_path)
    assert n.STUDY_FILE in str(error.value) and "\n" not in str(error.value)


def test_the_example_is_a_study(tmp_path: Path) -> None:
    study = load_study(example_study(tmp_path))
    assert study.points[n.REUSED].any() and study.pruned[n.STEP_ID].is_unique


def test_what_a_retraining_is_called_comes_from_the_study_s_folder(tmp_path: Path) -> None:
    from trainables.records.words import recipe  # noqa: PLC0415

    point = {n.STEP: 1, n.STEP_RATIO: 0.5, n.RETRAIN: "mine:Slow", n.FINE_TUNE_EPOCHS: 2}
    (tmp_path / n.METHODS_FILE).write_text('{"retrain": {"mine:Slow": {"label": "slow\\u001b[31m training"}}}')
    labels = labels_of(n.RETRAIN, read_methods(tmp_path / n.METHODS_FILE))
    assert recipe(point, labels) == "one cut of 50%; 2 epochs of slow\\x1b[31m training after it"
    assert recipe(point) == "one cut of 50%; 2 epochs of mine:Slow after it"
