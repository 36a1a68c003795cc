"""Limits as constraints: rows that are added have them, and samplers keep away from what is beyond."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from search.sampling.constraints import EXCESS, constrained, constraints_of
from search.sampling.samplers import sampler_for_ask
from search.sampling.tree_sampler import FORMS, TreeSampler
from tests.sampling_helpers import ask, chains, kinds, line
from trainables.records import names as n
from trainables.records.limits import Limits
from trainables.records.objectives import ACCURACY
from trainables.tasks.labels import Regression

DENSE = {0: {n.ACCURACY: 0.9, n.STORED_BYTES: 1000, n.MACS: 100, n.PARAMS: 10}}


def test_of_the_forms_within_the_limits_the_best_stands_for_a_step() -> None:
    limit = constraints_of(Limits(max_bytes=500), DENSE, ACCURACY)
    points = [{n.SEED: 0, n.STORED_BYTES: size} for size in (600, 400, 300)]
    gains, found = [[0.9, 3.0], [0.5, 1.0], [0.4, 1.1]], [limit(point) for point in points]
    values, attributes, constraints = constrained(gains, found, [0.0, 0.0])
    assert values == [0.5, 1.0] and constraints == {"max_bytes": pytest.approx(-0.2)}
    assert attributes == {FORMS: gains, EXCESS: [[pytest.approx(0.2)], [pytest.approx(-0.2)], [pytest.approx(-0.4)]]}
    assert constrained(gains, [{}, {}, {}], [0.0, 0.0]) == (gains[0], {FORMS: gains}, {})
    assert constrained(gains[:1], found[:1], [0.0, 0.0])[0] == gains[0]


def test_a_measure_to_be_minimised_is_constrained_from_above() -> None:
    mae = Regression(measured_by="mae").quality
    limit = constraints_of(Limits(max_drop="50%", max_bytes=500), {0: {"mae": 0.4, n.STORED_BYTES: 1000}}, mae)
    found = [limit({n.SEED: 0, "mae": value, n.STORED_BYTES: 500}) for value in (0.3, 0.6, 0.9)]
    assert [each["max_drop"] for each in found] == [pytest.approx(-0.5), 0.0, pytest.approx(0.5)]
    # The gains of an error are its negative: of the two that are within the limits, the smaller error stands for the step.
    assert constrained([[-0.6, 1.0], [-0.9, 3.0], [-0.3, 1.0]], [found[1], found[2], found[0]], [-1.0, 0.0])[0] == [
        -0.3,
        1.0,
    ]


def share_beyond(*, limited: bool) -> float:
    """Of what TPE proposes, what lies well beyond the constraint, where the objectives are best."""
    study = optuna.create_study(directions=["maximize"] * 2)
    for i in range(40):
        x = i / 40
        broken = {"limit": x - 0.5} if limited else {}
        row = create_trial(params={"x": x}, distributions={"x": FloatDistribution(0, 1)}, values=[x, x], constraints=broken)
        study.add_trial(row)
    proposed = []
    for number in range(40):
        study.sampler = sampler_for_ask("tpe", 0, number)
        proposed.append(study.ask({"x": FloatDistribution(0, 1)}).params["x"])
    return sum(x > 0.6 for x in proposed) / len(proposed)


def test_tpe_avoids_what_is_infeasible_of_rows_that_were_added() -> None:
    assert share_beyond(limited=False) > 0.5
    assert share_beyond(limited=True) < 0.2


def limited_study(limit: float, told: dict[str, tuple[float, float]], seed: int) -> optuna.Study:
    """A study of chains whose heights may be no more than ``limit``."""
    tree = chains()
    study = optuna.create_study(directions=["maximize"] * 2, sampler=TreeSampler(tree, seed, (0, 0)))
    for address, values in told.items():
        params = {"name": address[0], "steps": int(address[1])}
        constraints = {"limit": values[0] - limit}
        study.add_trial(
            create_trial(params=params, distributions=kinds(tree), values=list(values), constraints=constraints)
        )
    return study


def test_tree_expects_nothing_of_what_can_not_come_within_the_limits() -> None:
    told = {**line("d", 0.3), **line("e", 0.2), "a1": (0.9, 1.0), "a2": (0.9, 2.0), "b1": (0.25, 2.0), "c1": (0.1, 1.0)}
    tree = chains()
    free = {ask(limited_study(2.0, told, seed), tree)[1][0] for seed in range(5)}
    kept = {ask(limited_study(0.5, told, seed), tree)[1][0] for seed in range(5)}
    assert free == {"a"} and "a" not in kept


def test_tree_goes_where_least_is_missing_while_nothing_is_within_the_limits() -> None:
    told = {name + "1": (0.9, 1.0) for name in "abc"} | {"d1": (0.6, 1.0), "d2": (0.55, 2.0)}
    found = [ask(limited_study(0.5, told, seed), chains())[1] for seed in range(5)]
    assert {address[0] for address in found} == {"d"}
