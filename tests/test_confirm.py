"""``search confirm``: the test split is opened once, for what was named in advance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.__main__ import main
from search.session import problem_of
from search.study import load_study
from tests.search_helpers import Raw, raw_study, refusal, rows, write
from trainables import names as n
from trainables import test_split
from trainables.store import Store
from trainables.training import accuracy, tensors
from trainables.walk import Tree

SWEEP: list[Raw] = [{"step_ratio": 0.5, "steps": 2, "seed": [0, 1]}, {"family": "structured", "step_ratio": 0.3}]


def study(tmp_path: Path, **changes: object) -> Path:
    """A study that has been run; its folder."""
    assert main(["run", str(write(tmp_path, raw_study(tmp_path, **changes)))]) == 0
    return tmp_path / "results" / "tiny"


def confirmed(folder: Path) -> list[Raw]:
    return rows(folder / n.CONFIRMED_FILE)


def test_every_network_of_a_sweep_is_confirmed_once(tmp_path: Path) -> None:
    folder = study(tmp_path, sweep=SWEEP)
    assert main(["confirm", str(folder)]) == 0
    first = confirmed(folder)
    points = {row[n.STEP_ID]: row for row in rows(folder / n.POINTS_FILE)}
    assert [row[n.STEP_ID] for row in first] == list(points)
    assert all({**row, n.TEST_ACCURACY: 0} == {**points[row[n.STEP_ID]], n.TEST_ACCURACY: 0} for row in first)
    assert main(["confirm", str(folder)]) == 0
    assert confirmed(folder) == first


def test_the_test_accuracy_is_that_of_the_stored_network(tmp_path: Path) -> None:
    folder = study(tmp_path, sweep=SWEEP)
    assert main(["confirm", str(folder)]) == 0
    settings = load_study(folder / n.STUDY_FILE)
    tree = Tree(problem_of(settings, trusted=False), Store(folder / n.STEPS_FOLDER))
    images, labels = tensors(*test_split.load(settings.data, tree.problem.data), "cpu")
    torch.manual_seed(0)
    for row in confirmed(folder):
        model = tree.network(tree.node(row[n.STEP_ID])).model
        assert row[n.TEST_ACCURACY] == accuracy(model, images, labels, tree.problem.data, "cpu")


def test_of_a_search_the_front_alone_is_opened(tmp_path: Path) -> None:
    folder = study(tmp_path)
    assert main(["confirm", str(folder)]) == 0
    points = rows(folder / n.POINTS_FILE)
    opened = {row[n.STEP_ID] for row in confirmed(folder)}
    assert {row[n.STEP_ID] for row in points if row[n.TRIAL] is None} < opened
    assert len(opened) < len({row[n.STEP_ID] for row in points})
    for row in confirmed(folder)[1:]:  # nothing that was left out beats what was opened
        assert not any(
            other[n.ACCURACY] >= row[n.ACCURACY] and other[n.COMPRESSION] > row[n.COMPRESSION] for other in points
        )


def test_weights_that_are_gone_are_passed_over_or_trained_again_to_the_same_network(tmp_path: Path) -> None:
    folder = study(tmp_path, sweep=SWEEP)
    last = rows(folder / n.POINTS_FILE)[-1][n.STEP_ID]
    whole = (folder / n.STEPS_FOLDER / last / n.WEIGHTS_FILE).read_bytes()
    (folder / n.STEPS_FOLDER / last / n.WEIGHTS_FILE).unlink()
    assert main(["confirm", str(folder), "--stored-only"]) == 0
    assert last not in {row[n.STEP_ID] for row in confirmed(folder)}
    before = len(confirmed(folder))
    assert main(["confirm", str(folder)]) == 0
    assert [row[n.STEP_ID] for row in confirmed(folder)[before:]] == [last]
    assert (folder / n.STEPS_FOLDER / last / n.WEIGHTS_FILE).read_bytes() == whole


def test_a_folder_without_a_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no study" in refusal(["confirm", str(tmp_path)], capsys)
    assert not list(tmp_path.iterdir())
