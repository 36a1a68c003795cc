"""``search confirm``: the test split is opened once, for what was named in advance."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from search.__main__ import main
from search.records.ledger import Ledger
from search.session import problem_of
from search.stages.finalists import Final
from search.stages.recompute import rounds
from search.study import load_study
from tests.search_helpers import Raw, one_line, raw_study, refusal, rows, write
from trainables.data import test_split
from trainables.node import Node
from trainables.records import names as n
from trainables.records.confirmation import AGAIN
from trainables.records.objectives import ACCURACY
from trainables.storage.store import Store
from trainables.training.loop import judge, kept_outputs, tensors
from trainables.tree import Tree

SWEEP: list[Raw] = [{"step_ratio": 0.5, "steps": 2, "seed": [0, 1]}, {"family": "structured", "step_ratio": 0.3}]
CHANNELS: Raw = {"family": "structured", "importance": ["magnitude_l1", "fpgm"], "step_ratio": [0.3, 0.4]}
FINALISTS: Raw = {"sweep": [CHANNELS], "finalists": {"family": "structured", "top": 1, "seeds": [5]}}

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("one_ray")]


def study(tmp_path: Path, **changes: object) -> Path:
    """A study that has been run; its folder."""
    assert main(["run", str(write(tmp_path, raw_study(tmp_path, **changes)))]) == 0
    return tmp_path / "results" / "tiny"


@pytest.fixture(scope="module")
def finished(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that has been run, not to be changed."""
    return study(tmp_path_factory.mktemp("sweep"), sweep=SWEEP)


@pytest.fixture(scope="module")
def chosen(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with finalists that has been run, not to be changed."""
    return study(tmp_path_factory.mktemp("finalists"), **FINALISTS)


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The finished sweep in a folder of its own."""
    return Path(shutil.copytree(finished, tmp_path / "results" / "tiny"))


@pytest.fixture
def final(chosen: Path, tmp_path: Path) -> Path:
    """The sweep with finalists in a folder of its own."""
    return Path(shutil.copytree(chosen, tmp_path / "results" / "tiny"))


def confirmed(folder: Path) -> list[Raw]:
    return rows(folder / n.CONFIRMED_FILE)


def test_every_network_of_a_sweep_is_confirmed_once(folder: Path) -> None:
    assert main(["confirm", str(folder)]) == 0
    first = confirmed(folder)
    points = {row[n.STEP_ID]: row for row in rows(folder / n.POINTS_FILE)}
    assert [row[n.STEP_ID] for row in first] == list(points)
    opened = {n.TEST_ACCURACY, ACCURACY.test_paired}
    assert all({key: row[key] for key in row.keys() - opened} == points[row[n.STEP_ID]] for row in first)
    assert main(["confirm", str(folder)]) == 0
    assert confirmed(folder) == first


def test_every_opening_is_on_record_and_a_later_one_tells_of_those_before(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def openings() -> list[int]:
        return [row["networks"] for row in rows(folder / n.OPENINGS_FILE)]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def said() -> str:
        capsys.readouterr()
        assert main(["confirm", str(folder)]) == 0
        return " ".join(capsys.readouterr().out.split())

    with monkeypatch.context() as patch:
        patch.setattr("search.confirm._open", killed)
        assert main(["confirm", str(folder)]) == 130
    assert openings() == [7]
    assert "The test split was opened once before, for 0 networks." in said()
    assert "opened" not in said()  # with nothing left
    assert openings() == [7, 7]
    (folder / n.CONFIRMED_FILE).write_text("".join(f"{json.dumps(row)}\n" for row in confirmed(folder)[:-1]))
    assert "The test split was opened 2 times before, for 6 networks." in said()
    assert openings() == [7, 7, 1]
    (folder / n.OPENINGS_FILE).unlink()  # as an earlier version leaves it
    (folder / n.CONFIRMED_FILE).write_text("".join(f"{json.dumps(row)}\n" for row in confirmed(folder)[:-1]))
    assert "The test split was opened at least once before, for 6 networks." in said()


def test_recipes_that_missed_the_final_stay_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    channels = {"family": "structured", "importance": ["magnitude_l1", "fpgm", "random"], "step_ratio": 0.3, "steps": 2}
    shapes = {"family": "structured", "retrain": "scratch", "fine_tune_epochs": 2, "step_ratio": 0.3}
    final = {"family": "structured", "top": 1, "seeds": [5]}
    folder = study(tmp_path, sweep=[SWEEP[0], channels, shapes], finalists=final)
    points = rows(folder / n.POINTS_FILE)
    dense = {row[n.SEED]: row[n.ACCURACY] for row in points if row[n.TRIAL] is None}
    losses = {
        name: sum(
            dense[0] - r[n.ACCURACY]
            for r in points
            if r[n.IMPORTANCE] == name and (r[n.SEED], r[n.RETRAIN]) == (0, "fine_tune")
        )
        for name in ("magnitude_l1", "fpgm")
    }
    loser = max(losses, key=lambda name: losses[name])
    closed = {row[n.STEP_ID] for row in points if row[n.IMPORTANCE] == loser and row[n.RETRAIN] == "fine_tune"}
    for file in (folder / n.STEPS_FOLDER).glob(f"*/{n.WEIGHTS_FILE}"):
        if file.parent.name in closed:  # and nothing is trained for them
            file.unlink()
    capsys.readouterr()
    assert main(["confirm", str(folder)]) == 0
    assert {row[n.STEP_ID] for row in confirmed(folder)} == {row[n.STEP_ID] for row in points} - closed
    assert len(closed) == 2 and "Left closed: 2 networks" in capsys.readouterr().out
    assert not any((folder / n.STEPS_FOLDER / step_id / n.WEIGHTS_FILE).exists() for step_id in closed)


def test_what_may_be_dropped_yet_stays_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    channels = {"family": "structured", "importance": ["magnitude_l1", "fpgm", "random"], "step_ratio": 0.3}
    folder = study(tmp_path, sweep=[SWEEP[0], channels], finalists={"family": "structured", "top": 2, "seeds": [5]})
    points = rows(folder / n.POINTS_FILE)
    competing = {r[n.STEP_ID]: r for r in points if r[n.IMPORTANCE] in ("magnitude_l1", "fpgm") and r[n.SEED] == 0}
    gone = next(iter(competing))  # as if the run had been interrupted before this one
    shutil.rmtree(folder / n.STEPS_FOLDER / gone)
    left = [row for row in points if row[n.STEP_ID] != gone]
    (folder / n.POINTS_FILE).write_text("".join(json.dumps(row) + "\n" for row in left))
    capsys.readouterr()
    assert main(["confirm", str(folder)]) == 0
    assert {row[n.STEP_ID] for row in confirmed(folder)} == {row[n.STEP_ID] for row in left} - competing.keys()
    assert "Left closed: 1 network that may not reach the final" in " ".join(capsys.readouterr().out.split())
    # One that failed has run: of what is left the best two are known. A trial's number is no place in the sweep.
    trial = competing[gone][n.TRIAL]
    ended = [
        r | {n.TRIAL: r[n.TRIAL] + 7} | ({n.STATE: n.FAILED} if r[n.TRIAL] == trial else {})
        for r in rows(folder / n.TRIALS_FILE)
    ]
    (folder / n.TRIALS_FILE).write_text("".join(json.dumps(row) + "\n" for row in ended))
    assert main(["confirm", str(folder)]) == 0
    assert {row[n.STEP_ID] for row in confirmed(folder)} == {row[n.STEP_ID] for row in left}


def test_only_what_was_run_is_opened(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = rows(folder / n.POINTS_FILE)[-1][n.STEP_ID]
    export = ["export", str(folder), "--point", step, "--to", str(tmp_path / "pruned.safetensors")]
    for command in (["confirm", str(folder)], export):
        for override in ("data.split_seed=1", "objectives=[accuracy, macs]", "reference.accuracy_drop=0.2"):
            line = refusal([*command, "--set", override], capsys)
            assert override.partition("=")[0] in line and "leave that out" in line
    file = folder / n.STUDY_FILE
    whole = file.read_text()
    for before, after, named in (
        ("split_seed: 0", "split_seed: 1", "data.root: the dense network"),
        ("width: 4", "width: 8", "arguments: the dense network"),
    ):
        assert before in whole
        file.write_text(whole.replace(before, after))
        assert named in refusal(["confirm", str(folder)], capsys) and named in refusal(export, capsys)
    assert not (folder / n.CONFIRMED_FILE).exists() and not (tmp_path / "pruned.safetensors").exists()
    # How it was trained matters only where something must be trained again.
    file.write_text(whole.replace("precision: fp32", "precision: bf16"))
    assert main(["confirm", str(folder), "--stored-only"]) == 0
    (folder / n.CONFIRMED_FILE).unlink()
    (folder / n.STEPS_FOLDER / step / n.WEIGHTS_FILE).unlink()
    assert "precision: the dense network" in (line := refusal(["confirm", str(folder)], capsys)) and "--stored-only" in line
    assert "precision: the dense network" in refusal(export, capsys)


def test_what_is_there_is_opened_before_what_has_to_be_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = rows(folder / n.POINTS_FILE)
    (folder / n.STEPS_FOLDER / points[-1][n.STEP_ID] / n.WEIGHTS_FILE).unlink()
    monkeypatch.setattr("search.stages.recompute.alive", list)  # nowhere to train it
    assert main(["confirm", str(folder)]) == 2
    line = one_line(capsys.readouterr().err)
    assert "resources: a network must be trained again, with cpu 1" in line
    assert len(confirmed(folder)) == len({row[n.STEP_ID] for row in points}) - 1


def test_a_disk_that_fills_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def full(_file: Path, _row: Raw) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("search.confirm.append", full)
    capsys.readouterr()
    assert main(["confirm", str(folder)]) == 3
    assert "No space left on device" in one_line(capsys.readouterr().err)


def test_opening_is_shown_where_there_is_no_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.stages.waiting.PLAIN_INTERVAL", 0)
    capsys.readouterr()
    assert main(["confirm", str(folder)]) == 0
    networks = len(confirmed(folder))
    assert f"Opening the test split: {networks} of {networks} networks" in capsys.readouterr().out


def test_the_test_accuracy_is_that_of_the_stored_network(folder: Path) -> None:
    assert main(["confirm", str(folder)]) == 0
    settings = load_study(folder / n.STUDY_FILE)
    tree = Tree(problem_of(settings, trusted=False), Store(folder / n.STEPS_FOLDER))
    images, labels = tensors(*test_split.load(settings.data, tree.problem.data), "cpu")
    right = dict[str, torch.Tensor]()
    torch.manual_seed(0)
    for row in confirmed(folder):
        model = tree.network(tree.node(row[n.STEP_ID])).model
        assert row[n.TEST_ACCURACY] == judge(model, images, labels, tree.problem.data, "cpu").value
        right[row[n.STEP_ID]] = (kept_outputs(model, images, tree.problem.data, "cpu") == labels).double()
    dense = {row[n.SEED]: right[row[n.STEP_ID]] for row in confirmed(folder) if not row[n.STEP]}
    assert all((ACCURACY.test_paired in row) == (row[n.STEP] > 0) for row in confirmed(folder))
    for row in confirmed(folder)[len(dense) :]:
        error = float((right[row[n.STEP_ID]] - dense[row[n.SEED]]).std()) / math.sqrt(len(labels))
        assert row[ACCURACY.test_paired] == pytest.approx(error) and error > 0


def given(tmp_path: Path) -> Path:
    """The weights of a network that was trained elsewhere."""
    problem = problem_of(load_study(write(tmp_path, raw_study(tmp_path, sweep=SWEEP))), trusted=False)
    model = Tree(problem, Store(tmp_path / "elsewhere")).network(problem.root(0)).model
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_of_a_search_the_front_alone_is_opened(tmp_path: Path) -> None:
    """Of one that begins at given weights; on fresh seeds these stay, and what follows is drawn anew."""
    model = {"name": "cnn", "arguments": {"width": 4}, "checkpoint": str(given(tmp_path))}
    folder = study(tmp_path, model=model)
    assert main(["confirm", str(folder)]) == 0
    points = rows(folder / n.POINTS_FILE)
    opened = {row[n.STEP_ID] for row in confirmed(folder)}
    assert {row[n.STEP_ID] for row in points if row[n.TRIAL] is None} < opened
    assert len(opened) < len({row[n.STEP_ID] for row in points})
    for row in confirmed(folder)[1:]:  # nothing that was left out beats what was opened
        assert not any(
            other[n.ACCURACY] >= row[n.ACCURACY] and other[n.COMPRESSION] > row[n.COMPRESSION] for other in points
        )
    assert main(["confirm", str(folder), "--seeds", "2"]) == 0
    place, [root] = folder / n.CONFIRMATION_FOLDER, [row for row in points if row[n.TRIAL] is None]
    plan, again = rows(place / n.AGAIN_FILE), {row[n.STEP_ID]: row for row in confirmed(place)}
    assert {line[n.STEP_ID] for line in plan} < opened and {line[n.SEED] for line in plan} == {1, 2}
    dense = [row for row in again.values() if not row[n.STEP]]
    assert [row[n.ACCURACY] for row in dense] == [root[n.ACCURACY]] * 2 and len(
        {row[n.TEST_ACCURACY] for row in dense}
    ) == 1
    store = Store(folder / n.CONFIRMATION_FOLDER / n.STEPS_FOLDER)
    for member in {line[n.STEP_ID] for line in plan}:
        seeds = [again[line[AGAIN]][n.STEP_ID] for line in plan if line[n.STEP_ID] == member]
        records = [store.record(step_id) for step_id in seeds]
        assert len({str(record and record["checksums"]) for record in records}) == 2


def test_weights_that_are_gone_are_passed_over_or_trained_again_to_the_same_network(folder: Path) -> None:
    last = rows(folder / n.POINTS_FILE)[-1][n.STEP_ID]
    whole = (folder / n.STEPS_FOLDER / last / n.WEIGHTS_FILE).read_bytes()
    (folder / n.STEPS_FOLDER / last / n.WEIGHTS_FILE).unlink()
    assert main(["confirm", str(folder), "--stored-only"]) == 0
    assert last not in {row[n.STEP_ID] for row in confirmed(folder)}
    before = len(confirmed(folder))
    assert main(["confirm", str(folder)]) == 0
    assert [row[n.STEP_ID] for row in confirmed(folder)[before:]] == [last]
    assert (folder / n.STEPS_FOLDER / last / n.WEIGHTS_FILE).read_bytes() == whole


@pytest.mark.parametrize("same", [True, False])
def test_where_no_weights_are_left_all_are_computed_again(
    same: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", str(folder)]) == 0
    first, store = confirmed(folder), Store(folder / n.STEPS_FOLDER)
    (folder / n.CONFIRMED_FILE).unlink()
    if not same:  # as if another machine had computed this one
        record = store.record(first[-1][n.STEP_ID])
        assert record is not None
        store.write({**record, n.ACCURACY: 0.125}, {n.WEIGHTS_FILE: b"other"})
    for file in (folder / n.STEPS_FOLDER).glob("*/*.safetensors"):
        file.unlink()
    capsys.readouterr()
    assert main(["confirm", str(folder)]) == 0
    assert confirmed(folder) == first
    said = " ".join(capsys.readouterr().out.split())
    assert ("1 came out different on this machine" in said) != same
    assert len(list((folder / n.STEPS_FOLDER).glob(f"*/{n.WEIGHTS_FILE}"))) == len(first)


def test_a_network_that_came_out_different_is_told_by_its_own_accuracy(folder: Path) -> None:
    points = rows(folder / n.POINTS_FILE)
    known = {row[n.STEP_ID]: row[n.ACCURACY] for row in points}
    other = points[-1][n.STEP_ID]  # of which the points tell as another machine had measured it
    told = [row | ({n.ACCURACY: 0.125} if row[n.STEP_ID] == other else {}) for row in points]
    (folder / n.POINTS_FILE).write_text("".join(json.dumps(row) + "\n" for row in told))
    assert main(["confirm", str(folder)]) == 0
    found = {row[n.STEP_ID]: row for row in confirmed(folder)}
    assert found[other][n.ACCURACY] == 0.125 and found[other][n.RETRAINED_ACCURACY] == known[other]
    assert [step for step, row in found.items() if n.RETRAINED_ACCURACY in row] == [other]


def test_recipes_that_missed_the_final_stay_closed_on_another_machine(final: Path) -> None:
    whole = (final / n.STUDY_FILE).read_text()
    (final / n.STUDY_FILE).write_text(whole.replace("precision: fp32", "precision: bf16"))  # as auto would be there
    assert main(["confirm", str(final), "--stored-only"]) == 0
    assert len(confirmed(final)) == len({row[n.STEP_ID] for row in rows(final / n.POINTS_FILE)}) - 3  # of four recipes


def test_who_runs_again_is_chosen_by_the_points(final: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(write(tmp_path, raw_study(tmp_path, **FINALISTS)))]) == 0  # with nothing left to do
    told = " ".join(capsys.readouterr().out.split())
    settings = load_study(final / n.STUDY_FILE)
    store = Store(final / n.STEPS_FOLDER)
    tree = Tree(problem_of(settings, trusted=False), store)

    def chosen() -> Final:
        assert settings.finalists is not None
        return Final(settings.finalists, settings.schedules(), tree, Ledger(final, settings.objectives, 0.1))

    before = chosen()
    [first], [line] = before.recipes, before.told()
    assert line in told and line == f"Again on seeds 5: {first.importance} + base (step_ratio {first.step_ratio})."
    for schedule in settings.schedules():  # as if weights had been trained again, and the last had become the first
        record = store.record(tree.chain(schedule)[-1].id)
        assert record is not None
        store.write({**record, n.ACCURACY: 1 - record[n.ACCURACY]}, {n.WEIGHTS_FILE: b"other"})
    assert chosen().recipes == [first] and not chosen().unscored and not chosen().undecided


def test_nobody_is_chosen_while_points_are_missing(final: Path, tmp_path: Path) -> None:
    points = rows(final / n.POINTS_FILE)
    gone = next(row[n.STEP_ID] for row in points if row[n.STEP])
    shutil.rmtree(final / n.STEPS_FOLDER / gone)
    left = [row for row in points if row[n.STEP_ID] != gone]
    (final / n.POINTS_FILE).write_text("".join(json.dumps(row) + "\n" for row in left))
    assert main(["run", str(write(tmp_path, raw_study(tmp_path, **FINALISTS)))]) == 0  # which computes them first
    assert {row[n.STEP_ID] for row in rows(final / n.POINTS_FILE)} == {row[n.STEP_ID] for row in points}


def test_of_unstructured_finalists_nothing_stays_closed(tmp_path: Path) -> None:
    weights = {"importance": ["magnitude", "random", "taylor"], "step_ratio": 0.5}
    folder = study(tmp_path, sweep=[weights], finalists={"family": "unstructured", "top": 1, "seeds": [5]})
    assert main(["confirm", str(folder)]) == 0
    assert len(confirmed(folder)) == len({row[n.STEP_ID] for row in rows(folder / n.POINTS_FILE)})


def test_what_begins_at_one_lost_step_is_computed_by_one_worker() -> None:
    nodes = {"a": Node(None, {"name": "a"}), "b": Node(None, {"name": "b"})}
    for name, parent in {"a1": "a", "a11": "a1", "a12": "a1", "a2": "a", "b1": "b", "a121": "a12"}.items():
        nodes[name] = Node(nodes[parent], {"name": name})
    names = {node.id: name for name, node in nodes.items()}

    def named(*lost: str) -> list[list[list[str]]]:
        found = rounds({nodes[name].id: nodes[name] for name in lost}, lambda node: 9 if names[node.id] == "a2" else 1)
        return [[[names[step_id] for step_id in chain] for chain in chains] for chains in found]

    # "a2" takes longest, and would be waited for if it began last.
    assert named(*nodes) == [[["a"], ["b"]], [["a2"], ["a1", "a11", "a12", "a121"], ["b1"]]]
    assert named("b", "a11", "a12", "a2", "b1", "a121") == [[["b"]], [["a2"], ["a12", "a121"], ["a11"], ["b1"]]]


def test_a_folder_without_a_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no study" in refusal(["confirm", str(tmp_path)], capsys)
    assert not list(tmp_path.iterdir())
