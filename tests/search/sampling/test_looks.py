"""What looks change in the sampler that knows the tree, where it is plain to see what they should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.sampling.looks import Looks
from search.sampling.step_tree import StepTree
from search.sampling.tree_sampler import LOOKS, TreeSampler, state_of
from tests.sampling_helpers import ask, chains, kinds

HEIGHTS = {"a": 0.9, "b": 0.6, "c": 0.3, "d": 0.1}


def looking(names: str = "abcdef") -> StepTree:
    """Chains of which each step can be looked at; x and y differ in nothing that changes their cuts."""
    plain = chains(names)
    shared = {"x": "xy", "y": "xy"}
    with_looks = [
        replace(one, look=f"look {shared.get(str(one.params['name']), one.params['name'])}{one.params['steps']}")
        for one in plain.candidates
    ]
    return StepTree(with_looks, {address: 1.0 for one in plain.candidates for address in one.chain})


def study_of(tree: StepTree, seed: int, looks: Looks, told: Mapping[str, Sequence[float]]) -> optuna.Study:
    study = optuna.create_study(directions=["maximize"] * 2, sampler=TreeSampler(tree, seed, (0, 0), looks=looks))
    for address, values in told.items():
        params = {"name": address[0], "steps": int(address[1])}
        study.add_trial(create_trial(params=params, distributions=kinds(tree), values=list(values)))
    study.add_trial(create_trial(params={"name": "a", "steps": 4}, distributions=kinds(tree), state=TrialState.FAIL))
    return study


TOLD = {f"{name}{step}": (height, float(step)) for name, height in HEIGHTS.items() for step in (1, 2, 3, 4)}
del TOLD["a4"]  # the best chain failed there, so that there is something left to gain
OWN = {address: height for address, (height, _) in TOLD.items()}
"""What each computed step's cut had: as much as it has after its retraining."""


@pytest.mark.parametrize("better", ["e", "f"])
def test_the_candidate_whose_look_is_better_is_taken_all_else_being_equal(better: str) -> None:
    tree, worse = looking(), "e" if better == "f" else "f"
    found = OWN | {f"look {better}{k}": 0.9 for k in (1, 2, 3, 4)} | {f"look {worse}{k}": 0.1 for k in (1, 2, 3, 4)}
    assert {ask(study_of(tree, seed, Looks(1, found), TOLD), tree)[1][0] for seed in range(6)} == {better}
    blind = {ask(study_of(tree, seed, Looks(0, found), TOLD), tree)[1][0] for seed in range(12)}
    assert blind == {"e", "f"}


def test_without_a_budget_nothing_changes() -> None:
    tree, found = looking(), OWN | {"look e1": 0.9}
    for seed in range(6):
        told = dict(list(TOLD.items())[: 5 + seed])
        studies = [study_of(tree, seed, looks, told) for looks in (Looks(), Looks(0, found))]
        picks = {ask(study, tree)[1] for study in studies} | {ask(study_of(chains(), seed, Looks(), told), chains())[1]}
        assert len(picks) == 1
        assert not any(LOOKS in row.system_attrs for study in studies for row in study.get_trials())


def test_what_is_looked_at_are_next_steps_that_nobody_has_looked_at() -> None:
    """Of the chains that promise most, by rates given by hand: a is at its third step, and one look serves x and y."""
    tree = looking("abefgxy")
    at = {f"{one.params['name']}{one.params['steps']}": number for number, one in enumerate(tree.candidates)}
    rates = np.zeros(len(tree.parent))
    for place, address in enumerate(["f4", "f1", "e2", "x3", "y1", "a3", "b4"]):
        rates[tree.node[at[address]]] = 1 / (1 + place)
    told = np.array([at["a1"], at["a2"]])

    def wanted(budget: int, *busy: str) -> list[str]:
        looks = Looks(budget, {"look e1": 0.5})
        numbers = np.array([at[address] for address in busy], np.int64)
        found = looks.wanted(tree, rates, looks.seen(tree, told), told, numbers)
        return [str(tree.candidates[number].chain[-1]) for number in found]

    assert wanted(9) == ["f1", "x1", "a3", "b1"]
    assert wanted(2) == ["f1", "x1"]
    assert wanted(9, "f1", "y1") == ["a3", "b1"]
    rates[:] = 0
    assert wanted(9) == []


def test_a_trial_looks_at_no_cut_that_it_makes_itself() -> None:
    """The best chain has three steps left: whatever of them is picked, and what comes before it, is not looked at."""
    tree = looking()
    told = {address: values for address, values in TOLD.items() if address not in ("a2", "a3")}
    for seed in range(4):
        study = optuna.create_study(
            directions=["maximize"] * 2, sampler=TreeSampler(tree, seed, (0, 0), looks=Looks(3, OWN))
        )
        for address, values in told.items():
            params = {"name": address[0], "steps": int(address[1])}
            study.add_trial(create_trial(params=params, distributions=kinds(tree), values=list(values)))
        trial, address = ask(study, tree)
        assert address[0] == "a" and address != "a2"
        looked = study.get_trials()[trial.number].system_attrs.get(LOOKS, [])
        assert not any(one["name"] == "a" and one["steps"] <= int(address[1]) for one in looked)


def test_a_network_that_collapsed_does_not_hide_how_the_others_differ() -> None:
    tree = looking()
    at = {f"{one.params['name']}{one.params['steps']}": number for number, one in enumerate(tree.candidates)}
    usual = {address: 0.3 + 0.01 * place for place, address in enumerate(sorted(OWN))}
    told = np.array(sorted(at[address] for address in usual))
    plain = Looks(1, usual).seen(tree, told)
    collapsed = Looks(1, {**usual, "b1": -1e6}).seen(tree, told)
    others = [at[address] for address in usual if address != "b1"]
    assert np.array_equal(plain[others], collapsed[others])
    assert collapsed[at["b1"]] == np.nanmin(collapsed) > -1


def test_a_cut_that_a_sibling_made_needs_no_look() -> None:
    tree = looking("abcdxy")
    looks = Looks(9, OWN | {"x1": 0.7})
    study = study_of(tree, 0, looks, TOLD | {"x1": (0.7, 1.0)})
    told = state_of(study, tree).told
    seen = looks.seen(tree, told)
    at = {f"{one.params['name']}{one.params['steps']}": number for number, one in enumerate(tree.candidates)}
    assert seen[at["x1"]] == seen[at["y1"]] == 0.7 and seen[at["a1"]] == 0.9
    assert np.isnan(seen[at["x2"]]) and np.isnan(seen[at["y2"]])


def test_points_of_old_tell_nothing_of_looks_and_are_believed_as_ever() -> None:
    tree, blind = looking(), looking()
    for seed in range(4):
        assert ask(study_of(tree, seed, Looks(3), TOLD), tree)[1] == ask(study_of(blind, seed, Looks(), TOLD), blind)[1]
