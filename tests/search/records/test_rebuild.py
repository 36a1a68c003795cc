"""Files of the driver that are lost: every trial is found in the records of its steps, and costs nothing a second time."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from search.records.journal import open_journal
from search.records.ledger import Ledger
from search.records.recovery import ADDED, GIVEN_UP, lost_trials
from search.records.retelling import OUTSIDE, end_outside, retold, under_way
from search.sampling.constraints import EXCESS, constraints_of
from search.sampling.space import SearchSpace, Space, SpaceSettings, Sweep
from search.study import load_study
from tests.conftest import MakeProblem
from tests.search_helpers import raw_study, write
from trainables.records import names as n
from trainables.records.limits import Limits, excesses
from trainables.records.objectives import ACCURACY, gains
from trainables.schedule import Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import Store
from trainables.tree import Point, Tree

FAMILIES = {"unstructured": {"retrain": ["fine_tune", "weight_rewind"]}, "structured": {}}
SPACE = SearchSpace(SpaceSettings.model_validate(FAMILIES))
LAMP_ALONE = SearchSpace(SpaceSettings.model_validate({"structured": {"importance": ["lamp"]}}))
SCHEDULES = [
    UnstructuredSchedule(step_ratio=0.5, steps=2, fine_tune_epochs=1),
    UnstructuredSchedule(step_ratio=0.5, steps=3, fine_tune_epochs=1),
    StructuredSchedule(importance="magnitude_l1", pruner="group_norm", step_ratio=0.3, steps=1, sparse_epochs=1),
]


@pytest.mark.parametrize("space", [SPACE, LAMP_ALONE], ids=["all", "lamp alone"])
def test_parameters_and_schedules_stand_for_each_other(space: SearchSpace) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        trial = study.ask()
        try:
            schedule = space.schedule(trial)
        except ValueError:
            continue
        params = dict(space.params(schedule))
        assert space.schedule(FixedTrial(params)) == schedule
        if params != trial.params:  # what ranks alike has one name, if that is a choice
            assert trial.params["structured.importance"] == "lamp"
            params["structured.importance"] = "lamp"
        assert params == trial.params


def test_a_schedule_and_its_number_in_a_sweep_stand_for_each_other() -> None:
    sweep = Sweep(SCHEDULES)
    for schedule in SCHEDULES:
        assert sweep.schedule(FixedTrial(sweep.params(schedule))) == schedule


def run(tree: Tree, schedule: Schedule, trial: int | None) -> list[Point]:
    return [tree.point(node, schedule, k, trial) for k, node in enumerate(tree.chain(schedule), start=1)]


def told(points: list[Point]) -> list[Point]:
    return [{key: value for key, value in point.items() if key != n.SECONDS} for point in points]


@pytest.fixture
def found(problem: MakeProblem, tmp_path: Path) -> tuple[Tree, list[list[Point]]]:
    tree = Tree(problem(), Store(tmp_path / "steps"))
    tree.dense_point(0)
    return tree, [run(tree, schedule, trial) for trial, schedule in enumerate(SCHEDULES)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty one."""
    return Ledger(tmp_path, ("accuracy", "compression"), 0.1)


@pytest.mark.parametrize("space", [SPACE, Sweep(SCHEDULES)])
def test_every_trial_is_found_under_its_number(space: Space, found: tuple[Tree, list[list[Point]]], ledger: Ledger) -> None:
    lost = lost_trials(found[0], ledger)
    assert lost == dict(enumerate(SCHEDULES))
    rows = list(under_way(lost, space))
    assert [row.user_attrs[n.TRIAL] for row in rows] == [0, 1, 2]
    assert [space.schedule(FixedTrial(row.params)) for row in rows] == SCHEDULES


def test_a_trial_that_found_everything_is_known_to_the_ledger_alone(
    found: tuple[Tree, list[list[Point]]], ledger: Ledger
) -> None:
    run(found[0], SCHEDULES[0], 3)
    assert 3 not in lost_trials(found[0], ledger)
    ledger.add_trial(3, n.COMPLETE, SCHEDULES[0].model_dump(mode="json", exclude_none=True))
    assert lost_trials(found[0], ledger) == {**dict(enumerate(SCHEDULES)), 3: SCHEDULES[0]}


def test_a_trial_that_is_taken_up_again_tells_what_it_told_before(found: tuple[Tree, list[list[Point]]]) -> None:
    tree, points = found
    again = Tree(tree.problem, tree.store)
    for trial in (2, 1, 0):  # in whatever order
        repeated = run(again, SCHEDULES[trial], trial)
        assert told(repeated) == told(points[trial])
        assert all((point[n.SECONDS] > 0) != point[n.REUSED] for point in repeated)
    assert again.epochs == 0
    for trial in (3, None):
        assert [(point[n.EPOCHS], point[n.REUSED]) for point in run(again, SCHEDULES[0], trial)] == [(0, True)] * 2


def test_weights_made_again_leave_the_step_with_the_trial_that_paid(found: tuple[Tree, list[list[Point]]]) -> None:
    tree, points = found
    node = tree.chain(SCHEDULES[0])[0]
    tree.store.discard_weights(node.id)
    Tree(tree.problem, tree.store).content(node)
    assert told(run(Tree(tree.problem, tree.store), SCHEDULES[0], 0)) == told(points[0])


def test_a_number_that_was_given_twice_stands_for_one_schedule(
    found: tuple[Tree, list[list[Point]]], ledger: Ledger
) -> None:
    tree = found[0]
    other = StructuredSchedule(importance="magnitude_l1", step_ratio=0.5)
    run(tree, other, 2)
    (chosen,) = {lost_trials(tree, ledger)[2] for _ in range(3)}
    assert chosen in (SCHEDULES[2], other)
    for schedule in (SCHEDULES[2], other):
        told_of = Ledger(ledger._folder, ("accuracy", "compression"), 0.1)
        told_of.trials = [{n.TRIAL: 2, n.SCHEDULE: schedule.model_dump(mode="json", exclude_none=True)}]
        assert lost_trials(tree, told_of)[2] == schedule


def test_steps_of_no_trial_and_of_another_space_are_no_trials(tree: Tree, ledger: Ledger) -> None:
    run(tree, SCHEDULES[0], None)
    assert lost_trials(tree, ledger) == {}
    run(tree, UnstructuredSchedule(levels=(0.3,)), 0)
    run(tree, UnstructuredSchedule(step_ratio=0.4), 1)
    lost = lost_trials(tree, ledger)
    assert list(lost) == [0, 1]
    assert list(under_way(lost, SPACE)) == list(under_way(lost, Sweep(SCHEDULES))) == []


OBJECTIVES = ("accuracy", "macs")


def ledger_of(folder: Path, found: tuple[Tree, list[list[Point]]], state: str) -> Ledger:
    """All that was found on record, but that the last step of trial 1 is missing if it didn't complete."""
    made = Ledger(folder, OBJECTIVES, 0.1)
    made.add_dense(found[0].dense_point(0))
    for trial, own in enumerate(found[1]):
        ended = state if trial == 1 else n.COMPLETE
        for point in own if ended == n.COMPLETE else own[:-1]:
            made.add({**point, n.TRIAL: trial})
        made.add_trial(trial, ended, SCHEDULES[trial].model_dump(mode="json", exclude_none=True), "it diverged")
    return made


@pytest.mark.parametrize("state", [n.COMPLETE, n.FAILED, n.STOPPED])
def test_trials_that_have_ended_are_told_from_their_points(
    state: str, found: tuple[Tree, list[list[Point]]], tmp_path: Path
) -> None:
    tree, points = found
    ledger = ledger_of(tmp_path, found, state)
    rows = dict(retold(SPACE, tree, ledger, []))
    steps = [[point[n.STEP_ID] for point in own] for own in points]
    assert [(row.user_attrs.get(ADDED), row.user_attrs[n.STEP_ID]) for row in rows[0]] == [
        (0, steps[0][0]),
        (None, steps[0][1]),
    ]
    assert [row.values for row in rows[0]] == [gains(point, ledger.dense[0], OBJECTIVES) for point in points[0]]
    assert SPACE.schedule(FixedTrial(rows[0][1].params)) == SCHEDULES[0]
    told_of = [(row.state, row.user_attrs.get(n.STEP_ID), row.user_attrs.get(GIVEN_UP)) for row in rows[1]]
    assert (
        told_of
        == {
            n.COMPLETE: [(TrialState.COMPLETE, steps[1][2], None)],  # the others are told already
            n.FAILED: [(TrialState.FAIL, None, steps[1][2])],
            n.STOPPED: [],  # it may be worth going on with now
        }[state]
    )
    again = [row for own in rows.values() for row in own]
    assert [own for _, own in retold(SPACE, tree, ledger, again) if own] == []


def test_how_far_points_are_beyond_limits_is_told(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, found, n.COMPLETE)
    limits = Limits(max_drop=1, max_bytes="50%")
    told = retold(SPACE, found[0], ledger, [], constraints_of(limits, ledger.dense, ACCURACY))
    rows = [row for _, own in told for row in own if row.state == TrialState.COMPLETE]
    points = {point[n.STEP_ID]: point for own in found[1] for point in own}
    expected = [excesses(limits, points[row.user_attrs[n.STEP_ID]], ledger.dense[0], ACCURACY) for row in rows]
    assert [row.constraints for row in rows] == expected and rows
    assert [row.user_attrs[EXCESS] for row in rows] == [[list(one.values())] for one in expected]


def test_of_another_space_what_is_within_it_is_told(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, found, n.COMPLETE)
    short = SearchSpace(SpaceSettings.model_validate({"unstructured": {"max_steps": 1}}))
    ((row,),) = [own for _, own in retold(short, found[0], ledger, []) if own]
    assert (row.user_attrs[ADDED], row.params["unstructured.steps"]) == (0, 1)


def test_what_was_under_way_and_is_of_the_space_no_more_ends(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, found, n.COMPLETE)
    ledger.add({**found[1][0][0], n.TRIAL: 3})
    lost = {**dict(enumerate(SCHEDULES)), 3: SCHEDULES[1], 4: SCHEDULES[2]}
    end_outside(lost, SPACE, ledger)
    end_outside(lost, Sweep([]), ledger)  # its finalists' turn comes later
    assert len(ledger.trials) == 3
    short = SearchSpace(SpaceSettings.model_validate({"unstructured": {"max_steps": 1}, "structured": {}}))
    end_outside(lost, short, ledger)
    (ended,) = ledger.trials[3:]
    assert (ended[n.TRIAL], ended[n.STATE], ended[n.REASON]) == (3, n.STOPPED, OUTSIDE)


def test_a_trial_whose_points_are_lost_is_not_told_from_them(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger_of(tmp_path, found, n.FAILED)
    (tmp_path / n.POINTS_FILE).unlink()
    assert list(retold(SPACE, found[0], Ledger(tmp_path, OBJECTIVES, 0.1), [])) == []


@pytest.mark.parametrize("points", [True, False])
def test_without_points_optuna_s_study_is_forgotten(points: bool, tmp_path: Path) -> None:
    study = load_study(write(tmp_path, raw_study(tmp_path)))
    study.folder.mkdir(parents=True)
    journal, anew = open_journal(study)
    assert anew
    journal.create_new_trial(0)
    if points:
        (study.folder / n.POINTS_FILE).touch()
    journal, anew = open_journal(study)
    assert (anew, journal.get_n_trials(0)) == (not points, int(points))
    for limits in (Limits(max_drop=1), Limits(max_drop=2), Limits()):  # rows say how far beyond them they are
        journal, anew = open_journal(study.model_copy(update={"limits": limits}))
        assert anew
        journal.create_new_trial(0)
