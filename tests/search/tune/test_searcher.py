"""The searcher, driven without Ray by trials that make their points up from the schedule."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.records import asked, ledger
from search.records.asked import Asks, line
from search.records.journal import ADDED, FAILED, NAME, REASON, View, lines_of
from search.records.ledger import Ledger
from search.records.recovery import schedule_of as schedule_on_record
from search.records.snapshots import FILES
from search.sampling.samplers import SAMPLERS, sampler_for_ask
from search.sampling.space import SearchSpace, Space, SpaceSettings, Sweep
from search.study import SearchSettings
from search.tune import searcher as module
from search.tune.searcher import FrontSearch
from tests.search_helpers import STRUCTURED_SPACE, UNSTRUCTURED_SPACE, optuna_rows
from trainables.records import names as n
from trainables.records.limits import Limits, excesses
from trainables.records.objectives import ACCURACY
from trainables.schedule import FAMILIES, Schedule, UnstructuredSchedule
from trainables.settings import parse
from trainables.trainable import gain_metric, points_of
from trainables.tree import Tree

OBJECTIVES = ("accuracy", "compression")
DENSE = {
    n.STEP: 0, n.STEP_ID: "dense", n.SEED: 0, n.ACCURACY: 0.9, n.COMPRESSION: 1.0, n.EPOCHS: 1, n.TOTAL_EPOCHS: 0,
    n.FAMILY: n.DENSE, n.SPARSITY: 0.0,
}  # fmt: skip
TRIALS = 16

optuna.logging.set_verbosity(optuna.logging.WARNING)


def search_space(**unstructured: Any) -> SearchSpace:
    """The helpers' space with changes; without any, a wider one of both families, which no test exhausts."""
    wider = {"step_ratio": [0.1, 0.2, 0.3, 0.5], "max_steps": 6, "fine_tune_epochs": [1, 2, 4], "scope": ["global"]}
    both = {"unstructured": {**UNSTRUCTURED_SPACE, **wider}, "structured": {**STRUCTURED_SPACE, **wider}}
    raw = {"unstructured": {**UNSTRUCTURED_SPACE, **unstructured}} if unstructured else both
    return SearchSpace(parse(SpaceSettings, raw, "space"))


def tiny_space() -> SearchSpace:
    """Two schedules: one step of a half, and two."""
    return search_space(importance=["magnitude"], step_ratio=[0.5], max_steps=2)


@dataclass
class Study:
    """A study in the middle of its life; ``search`` begins it, or goes on with it as a new driver would."""

    tree: Tree
    folder: Path
    space: Space
    settings: SearchSettings
    clock: Callable[[], float] = lambda: 0.0
    reported: dict[str, list[float]] = field(default_factory=dict)
    configs: list[dict[str, Any]] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)

    def search(self) -> FrontSearch:
        ledger = Ledger(self.folder, OBJECTIVES, 0.1, self.tree.forms)
        ledger.add_dense({**dict.fromkeys(n.POINT_COLUMNS), **DENSE})
        self.ledger, asks = ledger, Asks(self.folder)
        self.last = FrontSearch(self.space, self.settings, self.tree, ledger, asks, self.clock, limits=self.limits)
        return self.last

    def rows(self) -> list[FrozenTrial]:
        return self.last.study.get_trials()

    def asked(self) -> list[dict[str, Any]]:
        return Asks(self.folder).lines

    def results(self, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What the trainable would report: smooth in the sparsity, different for every address."""
        schedule = schedule_of(config)
        nodes = self.tree.chain(schedule)
        for number, (node, target) in enumerate(zip(nodes, schedule.targets(), strict=True), start=1):
            left = 1 - target / 1e6
            known = node.id in self.reported
            accuracy = 0.9 - 0.2 * (1 - left) ** 4 - 0.01 * (node.seed % 1000) / 1000
            values = {gain_metric("accuracy"): accuracy, gain_metric("compression"): math.log2(1 / left)}
            point = {
                n.STEP: number, n.STEP_ID: node.id, n.SEED: 0, n.ACCURACY: accuracy, n.COMPRESSION: 1 / left,
                n.EPOCHS: 0 if known else schedule.fine_tune_epochs, n.REUSED: known, n.TRIAL: config[n.TRIAL],
                n.TOTAL_EPOCHS: number * schedule.fine_tune_epochs, n.FAMILY: schedule.family, n.SPARSITY: 1 - left,
            }  # fmt: skip
            result = {**dict.fromkeys(n.POINT_COLUMNS), **point, **values, "done": number == len(nodes)}
            if len(self.tree.forms) > 1:
                forms = [in_form(result, form, 2**i) for i, form in enumerate(self.tree.forms)]
                result |= {**forms[0], n.FORMS: forms[1:]}
            yield result

    def run(
        self, search: FrontSearch, at_once: int = 1, fails: Callable[[int, int], bool] = lambda _trial, _step: False
    ) -> None:
        """Stand in for Tune: keep ``at_once`` trials under way, one step of each in turn."""
        running: dict[str, Iterator[dict[str, Any]]] = {}
        configs: dict[str, dict[str, Any]] = {}
        for tick in itertools.count():
            while len(running) < at_once:
                config = search.suggest(f"trial {tick} {len(running)}")
                if config == Searcher.FINISHED:
                    break
                key = f"trial {tick} {len(running)}"
                running[key], configs[key] = self.results(config), config
                self.configs.append(config)
            if not running:
                return
            for key in list(running):
                result = next(running[key])
                if fails(result[n.TRIAL], result[n.STEP]):
                    search.on_trial_complete(key, error=True)
                    search.fail(key, "its worker died")
                    self.end(result[n.TRIAL], schedule_of(configs[key]), n.FAILED, "its worker died")
                    del running[key]
                    continue
                self.report(search, key, result)
                if result["done"]:
                    del running[key]

    def report(self, search: FrontSearch, key: str, result: dict[str, Any]) -> None:
        """In Tune's order: the searcher hears of a step first, but the ledger of a trial's last one."""
        self.reported[result[n.STEP_ID]] = [result[gain_metric(name)] for name in OBJECTIVES]
        if result["done"]:
            self.ledger.add(*points_of(result))
            schedule = search._under_way[key].schedule
            search.on_trial_complete(key, result)
            self.end(result[n.TRIAL], schedule, n.COMPLETE if result[n.STEP] == schedule.steps else n.STOPPED)
        else:
            search.on_trial_result(key, result)
            self.ledger.add(*points_of(result))

    def end(self, trial: int, schedule: Schedule, state: str, reason: str | None = None) -> None:
        self.ledger.add_trial(trial, state, schedule.model_dump(mode="json", exclude_none=True), reason)


def schedule_of(config: dict[str, Any]) -> Schedule:
    fields = {key: value for key, value in config.items() if key != n.TRIAL}
    return parse(FAMILIES[fields["family"]], fields, "config")


def in_form(point: dict[str, Any], form: str, factor: float) -> dict[str, Any]:
    """The same network in a file that is so many times smaller."""
    smaller = {n.COMPRESSION: point[n.COMPRESSION] * factor}
    smaller |= {gain_metric("compression"): point[gain_metric("compression")] + math.log2(factor)}
    return {**point, **smaller, n.FORM: form, n.STORED_FORMAT: n.COMPACT}


def last_level(config: dict[str, Any]) -> float:
    return schedule_of(config).targets()[-1] / 1e6


def complete(rows: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [row for row in rows if row.state == TrialState.COMPLETE]


def comparable(rows: Sequence[FrozenTrial]) -> list[tuple[Any, ...]]:
    """All of a row but its times."""
    return [(r.number, r.state, r.params, r.values, r.user_attrs) for r in rows]


@pytest.fixture
def make(tree: Tree, tmp_path: Path) -> Callable[..., Study]:
    numbers = itertools.count()

    def study(
        space: Space | None = None, folder: Path | None = None, clock: Any = None, forms: Sequence[str] = (n.FP32,),
        **settings: Any,
    ) -> Study:  # fmt: skip
        folder = folder or tmp_path / f"study {next(numbers)}"
        folder.mkdir(exist_ok=True)
        given = SearchSettings(**{"trials": TRIALS, **settings})
        return Study(replace(tree, forms=forms), folder, space or search_space(), given, clock or (lambda: 0.0))

    return study


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_is_one_complete_row_with_its_values(sampler: str, at_once: int, make: Callable[..., Study]) -> None:
    study = make(sampler=sampler)
    study.run(study.search(), at_once)
    rows = study.rows()
    told = {row.user_attrs[n.STEP_ID]: row.values for row in complete(rows)}
    assert told == study.reported
    assert len(complete(rows)) == len(told)
    assert {row.state for row in rows} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert all(REASON in row.user_attrs for row in rows if row.state == TrialState.FAIL)
    assert len(study.configs) == TRIALS
    assert [config[n.TRIAL] for config in study.configs] == list(range(TRIALS))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_row_has_the_parameters_of_the_schedule_that_ends_in_its_step(
    sampler: str, make: Callable[..., Study]
) -> None:
    study = make(sampler=sampler)
    study.run(study.search())
    rows = complete(study.rows())
    for row in rows:
        schedule = study.space.schedule(FixedTrial(row.params))
        assert study.tree.chain(schedule)[-1].id == row.user_attrs[n.STEP_ID]
        assert row.params[f"{row.params['family']}.steps"] == schedule.steps
    assert any(ADDED in row.user_attrs for row in rows)


@pytest.mark.parametrize("sampler", ["tree", "tpe"])
def test_every_row_says_how_far_it_is_beyond_the_limits(sampler: str, make: Callable[..., Study]) -> None:
    study = make(sampler=sampler, trials=6)
    study.limits = Limits(max_drop=1)
    study.run(study.search())
    rows = [row for row in study.rows() if row.state == TrialState.COMPLETE]
    assert {ADDED in row.user_attrs for row in rows} == {True, False}
    for row in rows:
        accuracy = {n.ACCURACY: row.values[0]}
        assert row.constraints == pytest.approx(excesses(study.limits, accuracy, DENSE, ACCURACY)) and row.constraints


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_known_schedule_is_not_run_again(sampler: str, make: Callable[..., Study]) -> None:
    study = make(sampler=sampler)
    search = study.search()
    for trial in range(TRIALS):
        config = search.suggest(str(trial))
        assert study.tree.chain(schedule_of(config))[-1].id not in study.reported
        for result in study.results(config):
            study.report(search, str(trial), result)


def test_a_failed_trial_is_told_and_the_study_goes_on(make: Callable[..., Study]) -> None:
    study = make(space=search_space(step_ratio=[0.5], max_steps=3, importance=["magnitude", "taylor", "random"]), trials=5)
    study.run(study.search(), fails=lambda trial, step: trial == 1 or (trial == 2 and step == 2))
    rows = study.rows()
    by_trial = {row.user_attrs[n.TRIAL]: row for row in rows if n.TRIAL in row.user_attrs}
    assert sorted(by_trial) == [0, 1, 2, 3, 4]
    assert by_trial[1].state == TrialState.FAIL
    assert by_trial[1].user_attrs[REASON].startswith("failed")
    assert {row.user_attrs[n.STEP_ID]: row.values for row in complete(rows)} == study.reported
    assert TrialState.RUNNING not in {row.state for row in rows}


def stopped_after_one(study: Study, search: FrontSearch) -> dict[str, Any]:
    """The config of a trial of several steps that was stopped after its first."""
    for i in itertools.count():
        config = search.suggest(str(i))
        points = list(study.results(config))
        if len(points) > 1:
            study.report(search, str(i), {**points[0], "done": True})
            return config
        study.report(search, str(i), points[0])
    raise AssertionError


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trial_that_is_stopped_keeps_its_points_and_is_pruned(sampler: str, make: Callable[..., Study]) -> None:
    study = make(sampler=sampler)
    config = stopped_after_one(study, study.search())
    own = next(row for row in study.rows() if row.user_attrs.get(n.TRIAL) == config[n.TRIAL])
    assert (own.state, own.values) == (TrialState.PRUNED, None)
    assert own.user_attrs[REASON] == f"stopped after step 1 of {config[n.STEPS]}"
    assert {row.user_attrs[n.STEP_ID]: row.values for row in complete(study.rows())} == study.reported


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_a_stopped_trial_had_left_is_not_proposed_again(
    sampler: str, restart: bool, make: Callable[..., Study]
) -> None:
    """Not after a restart either; and what shares no more than its beginning is."""
    space = search_space(importance=["magnitude"], step_ratio=[0.5], max_steps=4)
    study = make(space=space, sampler=sampler, trials=50)
    search = study.search()
    config = stopped_after_one(study, search)
    given_up = {node.id for node in study.tree.chain(schedule_of(config))[1:]}
    if restart:
        search = study.search()
        assert not search._orphans
    study.run(search)
    assert str(search.finished_because).startswith("the space was exhausted")
    assert given_up.isdisjoint(study.reported)
    assert TrialState.RUNNING not in {row.state for row in study.rows()}


def test_what_another_trial_reached_is_not_given_up(make: Callable[..., Study]) -> None:
    space = search_space(importance=["magnitude"], step_ratio=[0.5], max_steps=3)
    study = make(space=space, sampler="random", starting_points=False, trials=50)
    search = study.search()
    for key, steps in (("a", 2), ("b", 2)):
        search.study.enqueue_trial(space.prefix(next(space.longest()), steps))
        config = search.suggest(key)
    first, second = study.results(config)
    study.report(search, "a", {**first, "done": True})
    study.report(search, "b", first)
    study.report(search, "b", second)
    study.run(search)
    assert len(study.reported) == 3


def test_each_budget_ends_the_search(make: Callable[..., Study]) -> None:
    study = make(trials=5)
    search = study.search()
    study.run(search)
    assert (len(study.configs), search.finished_because) == (5, "5 trials")
    study = make(trials=None, epochs=7)
    search = study.search()
    study.run(search)
    assert search.finished_because == "7 epochs"
    longest = max(len(config.targets()) * config.fine_tune_epochs for config in map(schedule_of, study.configs))
    assert 7 <= study.ledger.epochs_computed < 7 + longest
    ticks = itertools.count(step=20.0)
    study = make(trials=None, minutes=2, clock=lambda: next(ticks))
    search = study.search()
    study.run(search)
    assert search.finished_because == "2 minutes"
    assert 0 < len(study.configs) <= 6
    study = make(trials=None, stall_epochs=6, stall_share=1000.0)
    search = study.search()
    study.run(search)
    assert str(search.finished_because).startswith("6 epochs in which the hypervolume grew by less")
    assert 6 < study.ledger.epochs_computed < 7 + 2 * longest


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_exhausted_space_ends_the_search_for_good(sampler: str, make: Callable[..., Study]) -> None:
    study = make(space=tiny_space(), sampler=sampler, trials=50)
    search = study.search()
    study.run(search)
    assert len(study.reported) == 2
    assert len(study.configs) <= 2
    assert str(search.finished_because).startswith("the space was exhausted")
    rows = comparable(study.rows())
    again = study.search()
    assert again.finished
    assert again.suggest("one more") == Searcher.FINISHED
    assert comparable(study.rows()) == rows


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("trial", "steps"), [(0, 0), (4, 1), (13, 0)])
def test_a_restart_goes_on_as_if_there_had_been_none(
    sampler: str, trial: int, steps: int, make: Callable[..., Study]
) -> None:
    undisturbed = make(sampler=sampler)
    undisturbed.run(undisturbed.search())

    study = make(sampler=sampler)
    first = study.search()
    for i in range(trial):
        for result in study.results(first.suggest(str(i))):
            study.report(first, str(i), result)
    lost = first.suggest("lost")
    for result in itertools.islice(study.results(lost), min(steps, schedule_of(lost).steps - 1)):
        study.report(first, "lost", result)
    assert [row.state for row in study.rows()].count(TrialState.RUNNING) == 1

    second = study.search()
    assert not second.finished
    study.run(second)
    assert study.configs[0] == lost
    assert study.configs == undisturbed.configs[trial:]
    assert comparable(study.rows()) == comparable(undisturbed.rows())


@pytest.mark.parametrize("moment", ["search.sampling.space.SearchSpace.schedule", "trainables.tree.Tree.chain"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trial_lost_while_it_was_asked_for_is_asked_for_again(
    sampler: str, moment: str, make: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = make(sampler=sampler)
    undisturbed.run(undisturbed.search())

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    study = make(sampler=sampler)
    first = study.search()
    for i in range(12):
        for result in study.results(first.suggest(str(i))):
            study.report(first, str(i), result)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(moment, killed)
        first.suggest("lost")
    study.run(study.search())
    assert study.configs == undisturbed.configs[12:]
    assert comparable(study.rows()) == comparable(undisturbed.rows())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_lost_trials_are_taken_up_under_their_numbers_and_end(sampler: str, make: Callable[..., Study]) -> None:
    study = make(trials=4, sampler=sampler, starting_points=False)
    first = study.search()
    lost = [first.suggest(key) for key in "abcd"]
    assert [config[n.TRIAL] for config in lost] == [0, 1, 2, 3]
    study.run(study.search(), at_once=4)
    assert study.configs == lost
    assert TrialState.RUNNING not in {row.state for row in study.rows()}
    assert {row.user_attrs[n.STEP_ID] for row in complete(study.rows())} == set(study.reported)


def test_trials_that_only_their_steps_tell_of_are_taken_up_under_their_numbers(make: Callable[..., Study]) -> None:
    before = make(trials=6)
    before.run(before.search(), at_once=3)
    schedules = {config[n.TRIAL]: schedule_of(config) for config in before.configs}
    lost = {number: schedules[number] for number in (0, 1, 3, 5)}
    study = make(trials=8)
    study.reported = dict(before.reported)
    Asks(study.folder).add(*(line(0, trial, schedule) for trial, schedule in lost.items()))
    for _ in range(2):
        study.run(study.search(), at_once=2)
    assert {config[n.TRIAL]: schedule_of(config) for config in study.configs[:4]} == lost
    assert [config[n.TRIAL] for config in study.configs[4:]] == [2, 4, 6, 7]  # of 2 and 4 nothing was left
    told = Counter(row.user_attrs[n.STEP_ID] for row in complete(study.rows()))
    assert set(told.values()) == {1}


def test_a_sweep_of_which_steps_are_left_alone_runs_the_rest_under_the_numbers_left(make: Callable[..., Study]) -> None:
    space = sweep(5)
    study = make(space=space)
    # Numbers 0 and 2 had left nothing; 7 is a finalist's, whose turn comes later.
    listed = [space.schedule(FixedTrial(dict(params))) for params in space.starting_points()]
    schedules = {1: listed[1], 3: listed[3], 7: FINALIST}
    Asks(study.folder).add(*(line(0, trial, schedule) for trial, schedule in schedules.items()))
    for _ in range(2):
        study.run(study.search(), at_once=2)
    assert [config[n.TRIAL] for config in study.configs] == [1, 3, 0, 2, 4]
    assert sorted(map(last_level, study.configs)) == pytest.approx([0.35, 0.4, 0.45, 0.5, 0.55])
    grown = make(space=sweep(5, FINALIST), folder=study.folder)
    grown.run(grown.search())
    assert [(config[n.TRIAL], schedule_of(config)) for config in grown.configs] == [(7, FINALIST)]


FINALIST = UnstructuredSchedule(levels=(0.9,))


def sweep(count: int, *others: Schedule) -> Sweep:
    return Sweep([*(UnstructuredSchedule(levels=(0.3, 0.3 + 0.05 * (i + 1))) for i in range(count)), *others])


def test_a_sweep_runs_every_schedule_once_in_its_order(make: Callable[..., Study]) -> None:
    study = make(space=sweep(6), trials=2)
    search = study.search()
    study.run(search)
    assert [last_level(config) for config in study.configs] == pytest.approx([0.35, 0.4, 0.45, 0.5, 0.55, 0.6])
    assert search.finished_because == "the whole sweep of 6"
    assert {row.user_attrs[n.STEP_ID] for row in complete(study.rows())} == set(study.reported)
    assert len(study.reported) == 7  # the first level is shared
    again = study.search()
    assert again.finished
    grown = make(space=sweep(8), folder=study.folder)
    assert not grown.search().finished
    grown.run(grown.search())
    assert [last_level(config) for config in grown.configs] == pytest.approx([0.65, 0.7])


def test_of_a_sweep_in_another_order_nothing_runs_again_and_nothing_is_left_out(make: Callable[..., Study]) -> None:
    study = make(space=sweep(3))
    study.run(study.search())
    told = {row.user_attrs[n.STEP_ID]: row.values for row in complete(study.rows())}
    another = make(space=Sweep([FINALIST, *reversed(sweep(3).schedules)]), folder=study.folder)
    another.run(another.search())
    assert [(config[n.TRIAL], schedule_of(config)) for config in another.configs] == [(3, FINALIST)]
    for row in complete(another.rows()):
        schedule = another.space.schedule(FixedTrial(row.params))
        ids = [node.id for node in another.tree.chain(schedule)]
        assert ids[row.params["steps"] - 1] == row.user_attrs[n.STEP_ID]
        assert row.values == told.get(row.user_attrs[n.STEP_ID], row.values)
    assert len(complete(another.rows())) == len(told) + 1


def test_a_sweep_that_was_interrupted_misses_nothing(make: Callable[..., Study]) -> None:
    study = make(space=sweep(5))
    first = study.search()
    study.run(first, fails=lambda trial, _: trial == 1)
    assert [config[n.TRIAL] for config in study.configs] == [0, 1, 2, 3, 4]
    study = make(space=sweep(5))
    first = study.search()
    for result in study.results(first.suggest("a")):
        study.report(first, "a", result)
    lost = first.suggest("b")
    study.run(study.search())
    assert study.configs[0] == lost
    assert [config[n.TRIAL] for config in study.configs] == [1, 2, 3, 4]
    assert [row.params["steps"] for row in complete(study.rows()) if ADDED in row.user_attrs] == [1]


def test_what_a_sweep_names_is_a_trial_even_where_another_has_passed_its_last_step(
    make: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOWN_IN_A_ROW", 2)
    longest, *shorter = (UnstructuredSchedule(step_ratio=0.5, steps=steps) for steps in (6, 1, 2, 3, 4, 5))
    study = make(space=Sweep([longest, *shorter, UnstructuredSchedule(step_ratio=0.7)]))
    search = study.search()
    study.run(search)
    assert [(c["step_ratio"], c["steps"]) for c in study.configs] == [*((0.5, k) for k in (6, 1, 2, 3, 4, 5)), (0.7, 1)]
    assert [config[n.TRIAL] for config in study.configs] == list(range(7))
    assert search.finished_because == "the whole sweep of 7"
    assert len(complete(study.rows())) == 7  # a row a step
    study.run(study.search())
    assert len(study.configs) == 7


def test_starting_points_come_first_and_once_in_a_study_s_life(make: Callable[..., Study]) -> None:
    study = make()
    expected = [study.space.schedule(FixedTrial(point)) for point in study.space.starting_points()]
    first = study.search()
    for i in range(2):
        for result in study.results(first.suggest(str(i))):
            study.report(first, str(i), result)
    study.run(study.search())
    study.run(study.search())
    asked = [one for one in study.asked() if one[n.TRIAL] is not None]
    assert [study.space.schedule(FixedTrial(one["params"])) for one in asked[: len(expected)]] == expected
    assert [one[n.TRIAL] for one in asked] == list(range(TRIALS))
    assert not [one for one in asked[len(expected) :] if one["params"] in study.space.starting_points()]
    without = make(starting_points=False, trials=1)
    without.run(without.search())
    assert without.configs != study.configs[:1]


def test_a_schedule_that_the_network_refuses_costs_no_trial(make: Callable[..., Study]) -> None:
    study = make(space=search_space(retrain=["lr_rewind"], fine_tune_epochs=[1, 99]), sampler="random", trials=6)
    study.run(study.search())
    refused = [row for row in study.rows() if "99 epochs can't be rewound" in row.user_attrs.get(REASON, "")]
    assert refused
    assert {row.state for row in refused} == {TrialState.FAIL}
    assert {config["fine_tune_epochs"] for config in study.configs} == {1}
    assert len(study.configs) == 6


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_depends_on_the_seed_and_the_number_of_the_ask_alone(name: str) -> None:
    def proposal(seed: int, ask: int) -> int:
        study = optuna.create_study(sampler=sampler_for_ask(name, seed, ask), directions=["maximize"] * 2)
        return int(study.ask({"x": IntDistribution(0, 10**9)}).params["x"])

    proposals = [proposal(seed, ask) for seed in range(3) for ask in range(3)]
    assert proposals == [proposal(seed, ask) for seed in range(3) for ask in range(3)]
    assert len(set(proposals)) == 9


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_number_of_restarts_makes_no_difference(sampler: str, make: Callable[..., Study]) -> None:
    undisturbed = make(sampler=sampler)
    undisturbed.run(undisturbed.search())

    study, draw = make(sampler=sampler), random.Random(0)
    while not (search := study.search()).finished:
        for key in map(str, range(draw.randint(1, 3))):
            config = search.suggest(key)
            if config == Searcher.FINISHED:
                break
            study.configs.append(config)
            results = list(study.results(config))
            for result in results[: draw.randrange(len(results) + 1)]:
                study.report(search, key, result)
            if results[-1][n.STEP_ID] not in study.reported:  # the driver is killed now
                break
    assert len(study.configs) > TRIALS + 5, "too few trials were lost"
    last = {config[n.TRIAL]: config for config in study.configs}
    assert all(config == last[config[n.TRIAL]] for config in study.configs)
    assert [last[trial] for trial in range(TRIALS)] == undisturbed.configs
    assert comparable(study.rows()) == comparable(undisturbed.rows())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_of_a_version_that_kept_optuna_s_journal_alone_goes_on(sampler: str, make: Callable[..., Study]) -> None:
    undisturbed = make(sampler=sampler)
    undisturbed.run(undisturbed.search())

    study = make(sampler=sampler)
    first = study.search()
    for i in range(12):
        for result in study.results(first.suggest(str(i))):
            study.report(first, str(i), result)
    lost = first.suggest("lost")
    journal = JournalStorage(JournalFileBackend(str(study.folder / n.OPTUNA_FILE)))
    optuna.copy_study(from_study_name=NAME, from_storage=first._storage, to_storage=journal)
    (study.folder / n.ASKED_FILE).unlink()
    ended = dict(filter(None, map(schedule_on_record, study.ledger.trials)))
    Asks(study.folder).add(*lines_of(study.folder, study.ledger, ended, study.space))
    study.run(study.search())
    assert study.configs == [lost, *undisturbed.configs[13:]]
    assert comparable(study.rows()) == comparable(undisturbed.rows())


def test_the_view_has_each_row_that_has_ended_once(make: Callable[..., Study]) -> None:
    study = make(trials=6)
    search = study.search()
    view = View(study.folder, search.study)
    study.run(search, at_once=2)
    for _ in range(2):
        view.update()
    asked = search.study.ask()
    view.update()
    for _ in range(2):
        shown = {str(row[1:]) for row in comparable(optuna_rows(study.folder))}
        assert shown == {str(row[1:]) for row in comparable(study.rows()) if row[0] != asked.number}
        assert len(optuna_rows(study.folder)) == len(study.rows()) - 1
        view = View(study.folder, search.study)  # as a new run does


@pytest.mark.parametrize("at_once", [1, 3])
def test_nsga2_keeps_the_parents_that_it_chose(at_once: int, make: Callable[..., Study]) -> None:
    study = make(sampler="nsga2", trials=45, starting_points=False)
    first = study.search()
    study.run(first, at_once)
    second = study.search()
    chosen, again = (search._storage.get_study_system_attrs(search._study_id) for search in (first, second))
    assert again == chosen and chosen


@pytest.mark.parametrize("whole", range(4))
def test_files_of_which_the_first_are_newer_than_the_others_are_gone_on_with(
    whole: int, make: Callable[..., Study]
) -> None:
    """As of a snapshot that was cut off while it was written."""
    study, old = make(), dict[str, bytes]()
    first, names = study.search(), FILES[:3]
    for i in range(8):
        if i == 4:
            old = {name: (study.folder / name).read_bytes() for name in names}
        for result in study.results(first.suggest(str(i))):
            study.report(first, str(i), result)
    for name in names[whole:]:
        (study.folder / name).write_bytes(old[name])
    study.run(study.search())
    assert study.ledger.trial_numbers == set(range(TRIALS))
    assert {row.state for row in study.rows()} <= {TrialState.COMPLETE, TrialState.FAIL}
    told = sorted(row.user_attrs[n.STEP_ID] for row in complete(study.rows()))
    assert told == sorted({row[n.STEP_ID] for row in study.ledger.points if row[n.STEP]})


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_that_failed_is_paid_for_once(sampler: str, told: bool, make: Callable[..., Study]) -> None:
    study = make(space=search_space(importance=["magnitude", "random"], step_ratio=[0.5], max_steps=4), sampler=sampler)
    fails: list[str] = []

    def run(search: FrontSearch) -> None:
        while (config := search.suggest("a")) != Searcher.FINISHED:
            for result in study.results(config):
                if config["importance"] == "random" and result[n.STEP] == 2:
                    fails.append(result[n.STEP_ID])
                    search.on_trial_complete("a", {n.REASON: "it diverged"} if told else None, error=not told)
                    if not told:
                        search.fail("a", "it diverged")
                    study.end(config[n.TRIAL], schedule_of(config), n.FAILED, "it diverged")
                    break
                study.report(search, "a", result)
            if fails and search is first:
                return  # the driver is killed

    first = study.search()
    run(first)
    run(study.search())
    assert len(fails) == 1
    assert len(study.reported) == 4 + 1
    assert not set(fails) & set(study.reported)
    reasons = [row.user_attrs[REASON] for row in study.rows() if row.user_attrs.get(n.TRIAL) is not None and not row.values]
    assert [reason for reason in reasons if reason.startswith(FAILED)] == [FAILED + "it diverged"]


def test_a_lost_trial_of_the_finalists_waits_for_them(make: Callable[..., Study]) -> None:
    study = make(space=sweep(4))
    first = study.search()
    for i in range(3):
        for result in study.results(first.suggest(str(i))):
            study.report(first, str(i), result)
    lost = first.suggest("lost")
    shorter = make(space=sweep(2), folder=study.folder).search()
    assert shorter.finished
    assert shorter.suggest("none") == Searcher.FINISHED
    study.run(study.search())
    assert study.configs == [lost]


@pytest.mark.parametrize("after", [0, 1])
def test_a_trial_whose_worker_died_runs_again_under_its_number(after: int, make: Callable[..., Study]) -> None:
    study = make(space=sweep(2))
    search = study.search()
    configs = [search.suggest(key) for key in "ab"]
    for result in itertools.islice(study.results(configs[0]), after):
        study.report(search, "a", result)
    search.on_trial_complete("a", error=True)
    search.run_again("a")
    assert not search.finished
    assert search.suggest("c") == configs[0]
    for key, config in zip("cb", configs, strict=True):
        for result in study.results(config):
            study.report(search, key, result)
    assert search.finished
    assert {row.user_attrs[n.STEP_ID] for row in complete(study.rows())} == set(study.reported)
    assert TrialState.RUNNING not in {row.state for row in study.rows()}


class Killed(BaseException):
    """The end of a driver."""


def small_space() -> SearchSpace:
    """So small that a sampler proposes more and more of what is known."""
    return search_space(importance=["magnitude", "random"], step_ratio=[0.5, 0.8], max_steps=3, fine_tune_epochs=[1, 2])


@pytest.mark.parametrize("forms", [(n.FP32,), (n.FP32, "fp16", "int8")])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_driver_killed_at_any_write_goes_on_as_if_it_had_not_been(
    sampler: str, forms: Sequence[str], make: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a small space most proposals are known, and after some in a row they are drawn at random."""
    undisturbed = make(small_space(), sampler=sampler, trials=12, forms=forms)
    undisturbed.run(undisturbed.search())
    assert sampler == "tree" or longest_known(undisturbed.rows()) > module.KNOWN_BEFORE_RANDOM

    study, draw = make(small_space(), sampler=sampler, trials=12, forms=forms), random.Random(0)
    left, deaths, write = 2, 0, ledger.append

    def mortal(path: Path, *lines: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        write(path, *(lines if left > 0 else lines[: draw.randint(0, len(lines))]))
        if left == 0:
            raise Killed

    for room in (asked, ledger):
        monkeypatch.setattr(room, "append", mortal)
    while True:
        try:
            study.run(study.search())
            break
        except Killed:
            left, deaths = draw.randint(1, 6), deaths + 1
    assert deaths > 5
    assert comparable(study.rows()) == comparable(undisturbed.rows())


def longest_known(rows: Sequence[FrozenTrial]) -> int:
    """The most rows in a row that became no trial."""
    asked = [row for row in rows if ADDED not in row.user_attrs]
    return max(
        len(list(group)) for new, group in itertools.groupby(asked, lambda row: n.TRIAL in row.user_attrs) if not new
    )
