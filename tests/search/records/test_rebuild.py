"""Files of the driver that are lost: every trial is found in the records of its steps, and costs nothing a second time."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from search.records.asked import Asks, header, line, wanted
from search.records.journal import ADDED, GIVEN_UP
from search.records.ledger import Ledger
from search.records.recovery import lost_trials
from search.sampling.constraints import EXCESS, Constraints, constraints_of, no_constraints
from search.sampling.space import SearchSpace, Space, SpaceSettings, Sweep
from search.study import load_study
from search.tune.retelling import OUTSIDE, Retelling
from search.tune.telling import Telling
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


def retold(
    space: Space, tree: Tree, ledger: Ledger, asks: Asks | None = None, constraints: Constraints = no_constraints
) -> tuple[list[FrozenTrial], list[int]]:
    """The rows of Optuna's study, and the trials under way; unless ``asks`` are given, the schedules were asked for."""
    if asks is None:
        asks = Asks()
        asks.add(*(line(0, trial, schedule) for trial, schedule in enumerate(SCHEDULES)))
    study = optuna.create_study(directions=["maximize"] * 2)
    told = Retelling(study, space, tree, ledger, asks, Telling(study, space, ledger, constraints))
    return study.get_trials(), [asked.trial for asked in told.under_way]


@pytest.mark.parametrize("space", [SPACE, Sweep(SCHEDULES)])
def test_every_trial_is_found_under_its_number(space: Space, found: tuple[Tree, list[list[Point]]], ledger: Ledger) -> None:
    assert lost_trials(found[0], ledger) == dict(enumerate(SCHEDULES))
    rows, under_way = retold(space, found[0], ledger)
    assert [row.user_attrs[n.TRIAL] for row in rows] == under_way == [0, 1, 2]
    assert {row.state for row in rows} == {TrialState.RUNNING}
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
    lost, asks = lost_trials(tree, ledger), Asks()
    assert list(lost) == [0, 1]
    asks.add(*(line(0, trial, schedule) for trial, schedule in lost.items()))
    assert retold(SPACE, tree, ledger, asks) == retold(Sweep(SCHEDULES), tree, ledger, asks) == ([], [])


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
    rows, under_way = retold(SPACE, tree, ledger)
    assert under_way == []
    steps = [[point[n.STEP_ID] for point in own] for own in points]
    own, added, failed = ([row for row in rows if key in row.user_attrs] for key in (n.TRIAL, ADDED, GIVEN_UP))
    assert [row.user_attrs[n.STEP_ID] for row in added] == [steps[0][0]]  # what trial 1 shares is told already
    assert [row.user_attrs[n.TRIAL] for row in own] == [0, 1, 2]
    assert [row.values for row in (*added, own[0])] == [gains(point, ledger.dense[0], OBJECTIVES) for point in points[0]]
    assert SPACE.schedule(FixedTrial(own[0].params)) == SCHEDULES[0]
    states = {n.COMPLETE: TrialState.COMPLETE, n.FAILED: TrialState.FAIL, n.STOPPED: TrialState.PRUNED}
    assert own[1].state == states[state]
    assert own[1].user_attrs.get(n.STEP_ID) == (steps[1][2] if state == n.COMPLETE else None)
    assert [row.user_attrs[GIVEN_UP] for row in failed] == ([] if state == n.COMPLETE else [steps[1][2]])


def test_what_was_stopped_for_other_objectives_may_be_asked_for_again(
    found: tuple[Tree, list[list[Point]]], tmp_path: Path
) -> None:
    asks = Asks()
    asks.add(*(line(0, trial, schedule) for trial, schedule in enumerate(SCHEDULES)), header("others", [1]))
    rows, under_way = retold(SPACE, found[0], ledger_of(tmp_path, found, n.STOPPED), asks)
    assert {row.user_attrs.get(n.TRIAL) for row in rows} == {None, 0, 2} and not under_way
    assert not [row for row in rows if GIVEN_UP in row.user_attrs]


def test_how_far_points_are_beyond_limits_is_told(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, found, n.COMPLETE)
    limits = Limits(max_drop=1, max_bytes="50%")
    told, _ = retold(SPACE, found[0], ledger, constraints=constraints_of(limits, ledger.dense, ACCURACY))
    rows = [row for row in told if row.state == TrialState.COMPLETE]
    points = {point[n.STEP_ID]: point for own in found[1] for point in own}
    expected = [excesses(limits, points[row.user_attrs[n.STEP_ID]], ledger.dense[0], ACCURACY) for row in rows]
    assert [row.constraints for row in rows] == expected and rows
    assert [row.user_attrs[EXCESS] for row in rows] == [[list(one.values())] for one in expected]


def test_of_another_space_what_is_within_it_is_told(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, found, n.COMPLETE)
    short = SearchSpace(SpaceSettings.model_validate({"unstructured": {"max_steps": 1}}))
    (row,), _ = retold(short, found[0], ledger)
    assert (row.user_attrs[ADDED], row.params["unstructured.steps"]) == (0, 1)


def test_what_was_under_way_and_is_of_the_space_no_more_ends(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, found, n.COMPLETE)
    ledger.add({**found[1][0][0], n.TRIAL: 3})
    asks = Asks()
    asks.add(*(line(0, trial, schedule) for trial, schedule in enumerate((*SCHEDULES, *SCHEDULES[1:]))))
    assert retold(SPACE, found[0], ledger, asks)[1] == [3, 4]
    assert retold(Sweep([]), found[0], ledger, asks) == ([], [])  # its finalists' turn comes later
    assert len(ledger.trials) == 3
    short = SearchSpace(SpaceSettings.model_validate({"unstructured": {"max_steps": 1}, "structured": {}}))
    assert retold(short, found[0], ledger, asks)[1] == [4]
    (ended,) = ledger.trials[3:]
    assert (ended[n.TRIAL], ended[n.STATE], ended[n.REASON]) == (3, n.STOPPED, OUTSIDE)


def test_a_trial_whose_points_are_lost_is_not_told_from_them(found: tuple[Tree, list[list[Point]]], tmp_path: Path) -> None:
    ledger_of(tmp_path, found, n.FAILED)
    (tmp_path / n.POINTS_FILE).unlink()
    rows, under_way = retold(SPACE, found[0], Ledger(tmp_path, OBJECTIVES, 0.1))
    assert under_way == [0, 2]  # they find their steps; the other would fail again
    assert [row.state for row in rows] == [TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING]


def test_asks_for_other_objectives_or_limits_or_in_another_space_begin_anew(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, raw_study(tmp_path)))
    study.folder.mkdir(parents=True)
    asks = Asks(study.folder)
    assert asks.anew
    asks.add(
        header(wanted(study)), line(0, 0, SCHEDULES[0], {"a": 1}, number=0), line(0, None, None, {"b": 1}, "known: it")
    )
    again = Asks(study.folder)
    assert not again.anew and (again.made_for, again.lines) == (wanted(study), asks.lines) and len(again.lines) == 2
    made_for = {
        str(wanted(study.model_copy(update={"limits": limits}))) for limits in (Limits(max_drop=1), Limits(max_drop=2))
    }
    assert len({*made_for, str(wanted(study))}) == 3
    asks.add(header("others", [0]))
    for one in (asks, Asks(study.folder)):
        assert [(line[n.TRIAL], line["number"]) for line in one.lines] == [(0, None)]
        assert (one.made_for, one.reopened, one.count) == ("others", {0}, 2)
