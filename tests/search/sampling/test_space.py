"""Spaces: what is asked for, in which order, that every prefix is a schedule of the space, and parameters come back."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from search.sampling.candidates import step_tree
from search.sampling.space import SearchSpace, SpaceSettings
from search.session import prepare
from search.study import Study
from trainables.records import names as n
from trainables.schedule import MixedSchedule, StructuredSchedule, UnstructuredSchedule
from trainables.settings import parse
from trainables.tree import Tree

USUAL = {n.FINE_TUNE_LR: 0.05, n.FINE_TUNE_DECAY: "linear"}
SPACES: dict[str, dict[str, Any]] = {
    "plain": {"unstructured": {"max_steps": 3}, "structured": {"max_steps": 3, "importance": ["fpgm", "random"]}},
    "rates": {"unstructured": {"fine_tune_lr": [0.05, 0.1], "retrain": ["fine_tune", "lr_rewind"], "max_steps": 2}},
    "pattern": {"unstructured": {"scope": ["global", "2:4"], "step_ratio": [0.2, 0.9], "max_steps": 2}},
    "mixed": {
        "structured": {"step_ratio": [0.3, 0.5], "pruner": ["base"], "importance": ["magnitude_l2"], "max_steps": 2},
        "mixed": {
            "scope": ["global", "2:4"], "step_ratio": [0.5, 0.8], "max_steps": 2, "channel_ratio": [0.3, 0.5],
            "channel_steps": [1, 2], "fine_tune_decay": ["constant", "linear"], "retrain": ["fine_tune", "recalibrate"],
        },
    },
}  # fmt: skip


def space_of(name: str) -> SearchSpace:
    return SearchSpace(parse(SpaceSettings, SPACES[name], "here"), USUAL)


@pytest.mark.parametrize("name", SPACES)
def test_what_is_drawn_is_a_schedule_whose_parameters_come_back(name: str) -> None:
    space = space_of(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        trial = study.ask()
        schedule = space.schedule(trial)
        params = space.params(schedule)
        assert params == trial.params
        assert space.schedule(FixedTrial(params)) == schedule
        for step in range(1, schedule.steps + 1):
            shorter = space.schedule(FixedTrial(space.prefix(params, step)))
            assert shorter.steps == step and shorter.targets() == schedule.targets()[:step]


@pytest.mark.parametrize("name", SPACES)
def test_every_draw_is_a_prefix_of_one_of_the_longest(name: str) -> None:
    space = space_of(name)
    longest = list(space.longest())
    known = {tuple(sorted(space.prefix(params, 1).items())) for params in longest}
    assert len(known) == len(longest)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(60):
        trial = study.ask()
        space.schedule(trial)
        assert tuple(sorted(space.prefix(trial.params, 1).items())) in known
    for params in [*longest, *space.starting_points()]:
        assert space.schedule(FixedTrial(params))
        assert tuple(sorted(space.prefix(params, 1).items())) in known


def test_the_order_of_what_is_asked_for_stays() -> None:
    """Another order would make other schedules of a sampler's seed."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = set()
    for _ in range(40):
        trial = study.ask()
        space_of("plain").schedule(trial)
        asked.add(tuple(name.rpartition(".")[2] for name in trial.params))
    shared = ("family", "importance", "scope", "step_ratio", "retrain", "fine_tune_epochs", "steps")
    assert asked == {shared, (*shared, "round_to", "pruner"), (*shared, "round_to", "pruner", "sparse_epochs")}


def test_a_space_begins_with_plain_schedules() -> None:
    points = [space_of("mixed").schedule(FixedTrial(params)) for params in space_of("mixed").starting_points()]
    usual: dict[str, Any] = {"fine_tune_epochs": 4}
    assert points == [
        *(StructuredSchedule(step_ratio=ratio, **usual) for ratio in (0.3, 0.5)),
        *(MixedSchedule(step_ratio=ratio, fine_tune_decay="linear", **usual) for ratio in (0.5, 0.8)),
    ]


def test_what_the_study_says_and_a_schedule_repeats_is_one_choice() -> None:
    listed, plain = space_of("rates"), space_of("plain")
    unsaid, said, other = (
        UnstructuredSchedule(step_ratio=0.5, **fields) for fields in ({}, {"fine_tune_lr": 0.05}, {"fine_tune_lr": 0.1})
    )
    assert listed.params(unsaid) == listed.params(said) != listed.params(other)
    assert listed.params(unsaid)["unstructured.fine_tune_lr"] == 0.05
    assert plain.params(unsaid) == plain.params(said)
    assert "unstructured.fine_tune_lr" not in plain.params(said)
    assert plain.params(other)["unstructured.fine_tune_lr"] == 0.1


def test_a_tree_of_mixed_schedules_shares_its_beginnings_with_structured_ones(tmp_path: Any) -> None:
    raw = {
        "name": "shared", "data": {"dataset": "digits"}, "model": {"name": "cnn", "arguments": {"width": 4}},
        "space": SPACES["mixed"], "storage": str(tmp_path), "dense": {"epochs": 2, "threads": 1},
    }  # fmt: skip
    session = prepare(parse(Study, raw, "here"))
    tree: Tree = session.tree
    found = step_tree(session.space, tree)
    one_shot = {"step_ratio": 0.3, "fine_tune_epochs": 2}
    first = session.space.params(StructuredSchedule(**one_shot))
    mixed = MixedSchedule(channel_ratio=0.3, step_ratio=0.5, steps=1, fine_tune_epochs=2)
    assert found.number(first) == found.number(session.space.params(mixed)) is not None
    ends = [candidate.chain[-1] for candidate in found.candidates]
    assert len(set(ends)) == len(ends)


def test_no_choice_of_rates_is_the_default_and_a_space_needs_a_family() -> None:
    settings = parse(SpaceSettings, {"unstructured": {}, "structured": {}}, "here")
    assert settings.mixed is None
    for family in settings.families.values():
        assert family.fine_tune_lr == family.fine_tune_decay == ()
    with pytest.raises(ValueError, match="name unstructured, structured, mixed"):
        parse(SpaceSettings, {}, "here")
