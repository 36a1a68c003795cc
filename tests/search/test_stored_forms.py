"""A study in several stored forms: each step is trained once, and has a point, an export and a test accuracy in each."""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState

from analysis.__main__ import main as analyse
from analysis.load import load_study as read_study
from analysis.pareto import front
from analysis.tables import dense_forms_table, forms_table
from search.__main__ import main
from search.records.ledger import Ledger
from search.sampling.constraints import constrained
from search.study import load_study
from tests.search_helpers import UNSTRUCTURED_SPACE, Raw, optuna_rows, raw_study, refusal, rows, write
from trainables.exporting.network_file import load
from trainables.forms.forms import FORMS
from trainables.records import names as n
from trainables.records.points import point_id, stored_format
from trainables.training.loop import evaluate

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

NAMES = list(FORMS)
SPACE: Raw = {"unstructured": {**UNSTRUCTURED_SPACE, "importance": ["magnitude"]}}


@pytest.fixture(scope="module")
def folder(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has been run, not to be changed."""
    tmp = tmp_path_factory.mktemp("forms")
    file = write(tmp, raw_study(tmp, space=SPACE, search={"trials": 4, "sampler": "tree"}, storage_forms=NAMES))
    assert main(["run", str(file)]) == 0
    return load_study(file).folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """It, in a folder of its own."""
    return Path(shutil.copytree(folder, tmp_path / "results" / "tiny"))


def pruned(folder: Path) -> list[Raw]:
    return [row for row in rows(folder / n.POINTS_FILE) if row[n.TRIAL] is not None]


def ledger_of(folder: Path) -> Ledger:
    return Ledger(folder, (n.ACCURACY, n.COMPRESSION), 0.1, NAMES)


def test_every_step_has_a_point_in_each_form_and_is_paid_once(folder: Path) -> None:
    steps = {key: list(rows) for key, rows in groupby(pruned(folder), key=itemgetter(n.TRIAL, n.STEP_ID))}
    record = {name: json.loads((folder / n.STEPS_FOLDER / name / n.STEP_FILE).read_text()) for _, name in steps}
    for (_, name), points in steps.items():
        assert [point[n.FORM] for point in points] == NAMES
        assert {point[n.STORED_FORMAT] for point in points} == {n.COMPACT}
        sizes = [point[n.STORED_BYTES] for point in points]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] < record[name][n.STORED_BYTES]
        assert [point[n.EPOCHS] for point in points[1:]] == [0, 0]
        assert points[0][n.ACCURACY] == record[name][n.ACCURACY]  # to the last bit, but for what normalises
        dense = ledger_of(folder).dense[0]
        assert all(p[n.COMPRESSION] == dense[n.STORED_BYTES] / p[n.STORED_BYTES] for p in points)
    ledger = ledger_of(folder)
    assert ledger.steps_computed + ledger.steps_found == len(steps)
    assert ledger.epochs_computed == sum(record[name][n.EPOCHS] for name in {name for _, name in steps})


def test_the_dense_network_is_there_in_its_own_file_and_in_each_form(folder: Path) -> None:
    dense = [row for row in rows(folder / n.POINTS_FILE) if row[n.TRIAL] is None]
    assert [(row[n.FORM], row[n.STORED_FORMAT]) for row in dense] == [
        (n.FP32, n.SAFETENSORS), *((form, n.COMPACT) for form in NAMES),
    ]  # fmt: skip
    assert dense[0][n.COMPRESSION] == 1.0 < dense[1][n.COMPRESSION] < dense[2][n.COMPRESSION] < dense[3][n.COMPRESSION]


def test_the_sampler_is_told_each_step_once_with_all_its_forms(folder: Path) -> None:
    ledger = ledger_of(folder)
    told = [row for row in optuna_rows(folder) if row.state == TrialState.COMPLETE]
    assert len({row.user_attrs[n.STEP_ID] for row in told}) == len(told) == len({row[n.STEP_ID] for row in pruned(folder)})
    for row in told:
        own = [point for point in ledger.points if point[n.STEP_ID] == row.user_attrs[n.STEP_ID]][: len(NAMES)]
        assert row.user_attrs[n.FORMS] == [ledger.gains(point) for point in own]
        gains = [ledger.gains(point) for point in own]
        assert row.values == constrained(gains, [{}] * len(own), ledger.reference_of(0))[0]


def test_points_are_named_by_step_and_form_on_the_front_and_in_the_report(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, study = ledger_of(copy), read_study(copy)
    best = front(study.pruned, study.objectives, study.dense, study.dense_forms)
    assert {*ledger.front} == {point_id(row) for row in best.to_dict("records")}
    assert [point_id(row) for row in ledger.front_rows()] and all(":" in point for point in ledger.front)  # int8 serves all
    assert analyse(["report", str(copy)]) == 0
    page = (copy / n.REPORT_FOLDER / "index.html").read_text()
    assert all(point in page for point in ledger.front)
    assert (copy / n.REPORT_FOLDER / "stored_forms.svg").is_file()
    assert "what pruning gave, and what the form" in page
    capsys.readouterr()


def test_what_pruning_gave_and_what_the_form_gave_multiply_to_the_compression(folder: Path) -> None:
    study = read_study(folder)
    dense = {row[n.FORM]: row[n.COMPRESSION] for row in study.dense_forms.to_dict("records")}
    assert list(dense) == NAMES == list(dense_forms_table(study)["stored as"])
    parted = forms_table(study).to_dict("records")
    reached = [row for row in parted if row["accuracy"] != "–"]
    assert reached
    for row in reached:
        total, form, pruning = (float(row[key].rstrip("×")) for key in ("compression", "by the form", "by pruning"))
        assert form == pytest.approx(dense[row["stored as"]], rel=0.01)
        assert total == pytest.approx(form * pruning, rel=0.02)


def test_bytes_of_another_format_are_left_out_of_what_is_compared(copy: Path) -> None:
    """As rows are that an older program, or a study of fp32 alone, left: as good as they look."""
    other = {**pruned(copy)[0], n.TRIAL: 77, n.STORED_FORMAT: None, n.FORM: None, n.COMPRESSION: 900.0, n.ACCURACY: 1.0}
    before = ledger_of(copy).front
    with (copy / n.POINTS_FILE).open("a") as file:
        file.write(json.dumps(other) + "\n")
    assert ledger_of(copy).front == before
    study = read_study(copy)
    assert not study.pruned[n.COMPRESSION].eq(900).any()
    assert {*study.points[n.STORED_FORMAT]} == {n.SAFETENSORS, n.COMPACT} and study.dense[n.COMPRESSION].tolist() == [1.0]


def test_every_form_of_a_point_is_exported_and_measures_the_same(copy: Path, tmp_path: Path) -> None:
    data = load_study(copy / n.STUDY_FILE)
    from search.session import problem_of  # noqa: PLC0415

    problem, step = problem_of(data, trusted=False), pruned(copy)[0][n.STEP_ID]
    for row in pruned(copy)[: len(NAMES)]:
        file = tmp_path / "exported"
        assert main(["export", str(copy), "--point", point_id(row), "--to", str(file), "--force"]) == 0
        assert evaluate(load(file).model, problem.data, "cpu") == row[n.ACCURACY]
        plain = tmp_path / "plain"
        point = ["--point", f"{step}:{row[n.FORM]}", "--format", "safetensors"]
        assert main(["export", str(copy), *point, "--to", str(plain), "--force"]) == 0
        images = torch.zeros(2, *problem.data.shape)
        torch.testing.assert_close(load(plain).model(images), load(file).model(images), rtol=0, atol=1e-4)


def test_the_front_is_confirmed_in_its_forms_beside_the_dense_network_in_each(copy: Path) -> None:
    assert main(["confirm", str(copy)]) == 0
    found = [point_id(row) for row in rows(copy / n.CONFIRMED_FILE)]
    root = ledger_of(copy).dense[0][n.STEP_ID]
    assert {*found} == {root, f"{root}:fp16", f"{root}:int8", *ledger_of(copy).front} and len(found) == len({*found})
    assert all(n.RETRAINED_ACCURACY not in row for row in rows(copy / n.CONFIRMED_FILE))
    assert main(["confirm", str(copy)]) == 0
    assert [point_id(row) for row in rows(copy / n.CONFIRMED_FILE)] == found


def test_lost_points_and_a_lost_sampler_are_made_again(copy: Path) -> None:
    before, lines = pruned(copy), (copy / n.POINTS_FILE).read_text().splitlines(keepends=True)
    (copy / n.POINTS_FILE).write_text("".join(lines[:-2]))  # cut off between two forms of one step
    command = ["run", str(copy / n.STUDY_FILE), "--set", f"storage={copy.parent}"]
    assert main(command) == 0
    assert pruned(copy) == before
    told = {row.user_attrs[n.STEP_ID]: row.values for row in optuna_rows(copy) if row.state == TrialState.COMPLETE}
    for name in (n.ASKED_FILE, n.OPTUNA_FILE):
        (copy / name).unlink()
    assert main(command) == 0
    again = [row for row in optuna_rows(copy) if row.state == TrialState.COMPLETE]
    assert {row.user_attrs[n.STEP_ID]: row.values for row in again} == told
    assert all(len(row.user_attrs[n.FORMS]) == len(NAMES) for row in again)


def test_a_study_without_the_key_is_of_its_steps_own_files(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (copy / n.STUDY_FILE).read_text()
    written = load_study(copy / n.STUDY_FILE).model_dump(mode="json")
    assert written["storage_forms"] == NAMES and "storage_forms" in text
    for forms, words in (("[fp31]", "did you mean"), ("[int8, int8]", "twice"), ("[]", "at least 1")):
        said = refusal(["run", str(copy / n.STUDY_FILE), "--set", f"storage_forms={forms}"], capsys)
        assert "storage_forms" in said and words in said, said
    said = refusal(
        ["run", str(copy / n.STUDY_FILE), "--set", f"storage={copy.parent}", "--set", "storage_forms=[fp32]"], capsys
    )
    assert said.startswith("error: storage_forms: ")


def test_a_form_that_is_none_is_not_exported(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = pruned(copy)[0][n.STEP_ID]
    said = refusal(["export", str(copy), "--point", f"{point}:int7", "--to", str(tmp_path / "file")], capsys)
    assert said.startswith("error: --point: ") and "int8" in said
    assert not (tmp_path / "file").exists()
    assert stored_format({}) == n.SAFETENSORS
