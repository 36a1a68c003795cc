"""Steps of other studies: read where they are, never written, and refused in one line where they can't be read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import MakeProblem
from tests.search_helpers import raw_study, refusal, tree_of, write
from trainables.records import names as n
from trainables.schedule import UnstructuredSchedule
from trainables.storage.store import ASKED, RUN, Store
from trainables.tree import Tree

ONE = UnstructuredSchedule(step_ratio=0.5, steps=1, fine_tune_epochs=0)
TWO = ONE.model_copy(update={"steps": 2})


@pytest.fixture
def other(problem: MakeProblem, tmp_path: Path) -> Tree:
    """A study in which one step was computed, for a trial of a run."""
    tree = Tree(problem(), Store(tmp_path / "other" / n.STEPS_FOLDER, run=4))
    tree.point(tree.chain(ONE)[0], ONE, 1, trial=0)
    return tree


@pytest.fixture
def tree(other: Tree, tmp_path: Path) -> Tree:
    """A study that reads the other one's steps."""
    store = Store(tmp_path / "own" / n.STEPS_FOLDER, reuse=(other.store.place,), run=1)
    return Tree(other.problem, store)


def written(tree: Tree) -> Mapping[str, tuple[int, int]]:
    return tree_of(Path(tree.store.place))


def test_what_another_study_computed_is_found_and_extended(other: Tree, tree: Tree) -> None:
    before = written(other)
    first, second = tree.chain(TWO)
    found = tree.point(first, TWO, 1, trial=0)  # of another trial 0
    assert (found[n.REUSED], found[n.EPOCHS], tree.epochs) == (True, 0, 0)
    assert tree.store.own_ids() == []
    assert not tree.point(second, TWO, 2, trial=0)[n.REUSED]
    assert tree.store.own_ids() == [second.id]
    assert set(tree.store.ids()) == {*other.store.ids(), second.id}
    assert tree.record_of(second)[RUN] == 1
    assert written(other) == before


def test_weights_that_another_study_lost_are_stored_here(other: Tree, tree: Tree) -> None:
    first, second = tree.chain(TWO)
    theirs = other.record_of(first)
    content = other.content(first)
    other.store.discard_weights(first.id)
    before = written(other)
    tree.point(second, TWO, 2)
    assert written(other) == before
    assert set(tree.store.own_ids()) == {first.id, second.id}
    ours = tree.record_of(first)
    assert (ours["checksums"], ours[n.ACCURACY], ours[RUN]) == (theirs["checksums"], theirs[n.ACCURACY], 1)
    assert (theirs[RUN], ASKED in theirs, ASKED in ours) == (4, True, False)
    tree.store.discard_weights(first.id)
    assert not tree.has_weights(first.id)
    (Path(other.store.place) / first.id / n.WEIGHTS_FILE).write_bytes(content)
    assert tree.has_weights(first.id)


def test_a_damaged_step_of_another_study_is_computed_here(other: Tree, tree: Tree) -> None:
    (node,) = tree.chain(ONE)
    file = Path(other.store.place) / node.id / n.STEP_FILE
    file.write_text(file.read_text().replace(n.ACCURACY, "acuracy"))
    before = written(other)
    assert not tree.point(node, ONE, 1)[n.REUSED]
    assert written(other) == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Another study's folder, as far as a refusal looks at it."""
    made = tmp_path / "results" / "other"
    made.mkdir(parents=True)
    write(made, raw_study(tmp_path, name="other"), n.STUDY_FILE)
    return made


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], reuse: str) -> str:
    line = refusal(["run", str(write(tmp_path, raw_study(tmp_path, reuse=[reuse])))], capsys)
    assert line.startswith("error: ")
    assert not (tmp_path / "results" / "tiny" / n.STUDY_FILE).exists()
    return line


def test_what_is_no_other_study_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"reuse: {tmp_path}/none holds no study" in refused(tmp_path, capsys, f"{tmp_path}/none")
    (folder / n.STUDY_FILE).unlink()
    assert f"reuse: {folder} holds no study" in refused(tmp_path, capsys, str(folder))
    own = tmp_path / "results" / "tiny"
    assert f"reuse: {own} is the study itself" in refused(tmp_path, capsys, str(own))


def test_a_link_that_leads_out_of_it_is_not_followed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / n.STEPS_FOLDER).symlink_to(tmp_path)
    assert "is a link that leads out of" in refused(tmp_path, capsys, str(folder))


def test_a_url_that_only_a_folder_of_results_names_is_not_reached(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "s3://someone-else-s/results"
    write(folder, raw_study(tmp_path, name="other", storage=url), n.STUDY_FILE)
    assert f"reuse: {folder} says that its steps are in {url}" in refused(tmp_path, capsys, str(folder))
    write(folder, raw_study(tmp_path, name="other", reuse=[f"{url}/another"]), n.STUDY_FILE)
    for command in (["confirm", str(folder)], ["export", str(folder), "--point", "a", "--to", str(tmp_path / "a")]):
        line = refusal(command, capsys)
        assert f"reuse: {folder} says that it reads steps of {url}/another" in line
        assert "--set 'reuse=[]'" in line
    line = refusal(["export", str(folder), "--point", "a", "--to", str(tmp_path / "a"), "--set", "reuse=[]"], capsys)
    assert "names no point" in line


def test_a_study_in_a_bucket_is_read_there(
    bucket: str, other: Tree, tmp_path: Path, problem: MakeProblem, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{bucket}/results/other"
    assert f"reuse: {url} holds no study" in refused(tmp_path, capsys, url)
    there = Tree(problem(), Store(f"{url}/{n.STEPS_FOLDER}"))
    there.point(there.chain(ONE)[0], ONE, 1)
    tree = Tree(problem(), Store(tmp_path / "own", reuse=(there.store.place,)))
    assert tree.point(tree.chain(ONE)[0], ONE, 1)[n.REUSED]
    assert tree.content(tree.chain(ONE)[0]) == other.content(tree.chain(ONE)[0])
    assert tree.store.own_ids() == []
