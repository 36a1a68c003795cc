"""Exporting from the command line: settings of the format, the model card, and files that are there."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from search.__main__ import main
from search.records.ledger import Ledger
from search.session import prepare
from search.stages.ready import begin
from search.study import load_study
from tests.search_helpers import raw_study, refusal, rows, write
from trainables.records import names as n
from trainables.tree import walk

SWEEP = [{"step_ratio": 0.5, "fine_tune_epochs": 0}, {"step_ratio": 0.5, "fine_tune_epochs": 0, "seed": 1}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of one schedule on two seeds, made without Ray."""
    tmp = tmp_path_factory.mktemp("made")
    study = load_study(write(tmp, raw_study(tmp, sweep=SWEEP)))
    session = prepare(study)
    begin(session)
    ledger = Ledger(study.folder, study.goals, study.reference.accuracy_drop)
    for trial, schedule in enumerate(study.schedules()):
        ledger.add_dense(session.tree.dense_point(schedule.seed))
        for row in walk(schedule, session.tree):
            ledger.add({**row, n.TRIAL: trial})
        ledger.add_trial(trial, n.COMPLETE, schedule.model_dump(mode="json"))
    return study.folder


def export(folder: Path, target: Path, *more: str) -> list[str]:
    return ["export", str(folder), "--point", rows(folder / n.POINTS_FILE)[1][n.STEP_ID], "--to", str(target), *more]


def test_a_file_has_its_card_beside_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["--format", "torch_export", "--option", "preprocessing=uint8", "--option", "fold=true"]
    assert main(export(folder, Path("net.pt2"), *settings)) == 0
    said, point = capsys.readouterr().out, rows(folder / n.POINTS_FILE)[1]
    assert "Largest difference from PyTorch: " in said and "folded" in said
    card = Path("net.pt2.md").read_text()
    for told in (
        f"| accuracy, validation | {point[n.ACCURACY]:.2%} |", f"| parameters | {point[n.PARAMS]:,} |",
        f"| bytes of this file (torch_export) | {Path('net.pt2').stat().st_size:,} |", "Largest difference from PyTorch: ",
        "The same recipe with 2 seeds: ", "one cut of 50%", "Seed 0;", "Classes, in order: 0, 1, 2",
        "test split is unopened",
    ):  # fmt: skip
        assert told in card, told
    first = Path("net.pt2").read_bytes()
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    Path("use.py").write_text(lines)
    runpy.run_path("use.py")
    (command,) = re.findall(r"^    python -m search (.*)$", card, re.MULTILINE)
    again = [*shlex.split(command)[:-1], "again.pt2"]
    assert main(again) == 0 and len(Path("again.pt2").read_bytes()) == len(first)
    other = Path("again.pt2.md").read_text().replace("again.pt2", "net.pt2")
    assert other == card


def test_what_is_there_is_kept_unless_it_may_be_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, card = tmp_path / "net.safetensors", tmp_path / "net.safetensors.md"
    for there in (target, card):
        there.write_text("mine")
        assert f"{there} exists; name another file, or replace it with --force" in refusal(export(folder, target), capsys)
        assert there.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
        there.unlink()
    target.write_text("mine")
    assert main(export(folder, target, "--force")) == 0
    assert target.stat().st_size > 4 and "# net.safetensors" in card.read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--format", "onnx", "--option", "folded=true"],
            "--option folded: no setting of format onnx; did you mean 'fold'",
        ),
        (["--option", "fold=true"], "--option fold: no setting of format safetensors; it has none"),
        (["--format", "onnx", "--option", "fold"], "--option 'fold': is not key=value"),
        (["--format", "onnx", "--option", "fold=maybe"], "format onnx: fold: 'maybe' cannot be used"),
        (["--format", "onxx"], "did you mean 'onnx'?"),
    ],
)
def test_settings_that_cannot_be(
    more: list[str], told: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refusal(export(folder, tmp_path / "net", *more), capsys)
    assert not list(tmp_path.iterdir())
