"""The sampler that knows the tree, on trees whose best next step is plain to see."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import moocore
import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from search.sampling import candidates, tree_sampler
from search.sampling.candidates import step_tree
from search.sampling.expected_gain import directions, reach
from search.sampling.samplers import sampler_for_ask
from search.sampling.space import SearchSpace, SpaceSettings
from search.sampling.step_tree import Candidate, Floats, StepTree, encode
from search.sampling.surrogate import MOST_FITTED, believed
from search.sampling.tree_sampler import TreeSampler, state_of
from tests.sampling_helpers import LENGTH, ask, chains, kinds, line
from tests.search_helpers import SPACE
from trainables.settings import parse
from trainables.storage.store import Store
from trainables.tree import Tree

Params = Mapping[str, Any]

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_of(tree: StepTree, told: Mapping[str, Sequence[float]], seed: int = 0, **options: Any) -> optuna.Study:
    """A study that was told values of steps by their address, such as ``a1``."""
    study = optuna.create_study(
        directions=["maximize"] * 2, sampler=TreeSampler(tree, seed, options.pop("reference", (0, 0)), **options)
    )
    for address, values in told.items():
        params = {"name": address[0], "steps": int(address[1])}
        study.add_trial(create_trial(params=params, distributions=kinds(tree), values=list(values)))
    return study


def test_the_obviously_best_chain_is_extended() -> None:
    tree = chains()
    told = {**line("d", 0.3), **line("e", 0.2), "a1": (0.9, 1.0), "a2": (0.9, 2.0), "b1": (0.1, 1.0), "c1": (0.1, 1.0)}
    for seed in range(5):
        _, address = ask(study_of(tree, told, seed), tree)
        assert address in ("a3", "a4")


def test_of_equal_promises_the_cheaper_is_taken() -> None:
    tree = chains("abcd", cost={"a": 10.0, "b": 1.0})
    told = {**line("c", 0.3), **line("d", 0.3), "a1": (0.9, 1.0), "b1": (0.9, 1.0)}
    for seed in range(5):
        assert ask(study_of(tree, told, seed), tree)[1][0] == "b"


def test_costs_count_only_what_is_new() -> None:
    tree = chains("ab")
    known = np.zeros(len(tree.parent), bool)
    known[tree.path(2)] = True  # a1, a2, a3
    assert tree.new_cost(known).tolist() == [0, 0, 0, 1, 1, 2, 3, 4]


def test_candidates_with_one_point_are_one() -> None:
    same = [Candidate({"name": name, "steps": 1}, ("a1",)) for name in "ab"]
    tree = StepTree([*same, Candidate({"name": "a", "steps": 2}, ("a1", "a2"))], {"a1": 1.0, "a2": 1.0})
    assert [tree.number(one.params) for one in same] == [0, 0]
    assert [one.params for one in tree.candidates] == [{"name": "a", "steps": 1}, {"name": "a", "steps": 2}]


def test_hidden_steps_cost_once_and_are_nobody_s_points() -> None:
    candidates = [Candidate({"x": i}, ("hidden", f"own{i}")) for i in range(2)]
    tree = StepTree(candidates, {"hidden": 5.0, "own0": 1.0, "own1": 1.0})
    nothing = np.zeros(3, bool)
    assert tree.new_cost(nothing)[tree.node].tolist() == [6, 6]
    done = nothing.copy()
    done[tree.path(0)] = True
    assert tree.new_cost(done)[tree.node].tolist() == [0, 1]
    assert (tree.point >= 0).sum() == 2


def test_nothing_known_or_under_way_is_proposed_until_nothing_is_left() -> None:
    tree = chains("abc")
    study = study_of(tree, {})
    running: list[optuna.Trial] = []
    seen: list[str] = []
    for _ in range(100):
        trial, address = ask(study, tree)
        if not state_of(study, tree, but=trial.number).open.any():
            study.tell(trial, state=TrialState.FAIL)
            if not running:
                break
        else:
            for other in running:  # neither a step that another trial is at, nor one that comes after it
                assert other.params["name"] != address[0] or trial.params["steps"] < other.params["steps"]
            seen.append(address)
            running.append(trial)
        if running and (len(running) == 3 or seen[-1] != address):
            done = running.pop(0)
            study.tell(done, [ord(done.params["name"]) / 100, float(done.params["steps"])])
    assert len(seen) == len(set(seen)) == len(tree.candidates)


def test_what_is_under_way_is_believed() -> None:
    tree = chains("abcdz")
    told = {**line("c", 0.3), **line("d", 0.3), **line("z", 0.1), "a1": (0.9, 1.0), "b1": (0.9, 1.0)}
    study = study_of(tree, told)
    (_, first), (_, second) = ask(study, tree), ask(study, tree)
    assert {first[0], second[0]} <= {"a", "b"}
    assert first != second


def test_nothing_beyond_a_failed_step_is_proposed() -> None:
    tree = chains("ab")
    study = study_of(tree, {"a1": (0.5, 1.0), "b1": (0.5, 1.0)})
    failed = study.ask({"name": CategoricalDistribution(["a"]), "steps": IntDistribution(2, 2)})
    study.tell(failed, state=TrialState.FAIL)
    left = state_of(study, tree).open
    assert sorted(tree.point[left]) == [tree.number({"name": "b", "steps": step}) for step in (2, 3, 4)]


def test_the_pick_depends_on_seed_ask_and_points_alone() -> None:
    tree, told = chains(), {f"{name}{1}": (ord(name) % 7 / 7, 1.0) for name in "abcdef"}
    backwards = dict(reversed(told.items()))
    picks = [ask(study_of(tree, told, seed), tree)[1] for seed in range(8)]
    assert picks == [ask(study_of(tree, backwards, seed), tree)[1] for seed in range(8)]
    assert len({ask(study_of(tree, {}, seed), tree)[1] for seed in range(8)}) > 1
    assert len({ask(study_of(tree, {}, ask=number), tree)[1] for number in range(8)}) > 1


def test_what_was_picked_in_another_tree_is_forgotten() -> None:
    large, small = chains("abc"), chains("c", length=2)
    study = study_of(large, line("a", 0.5) | line("b", 0.4))
    lost = study.ask()
    study.ask(kinds(large))
    for tree in (small, StepTree([], {}), chains("cba")):
        study.sampler = TreeSampler(tree, seed=0, reference=(0, 0))
        study.tell(study.ask(kinds(large)), (0.1, 1.0))
    assert [row.state for row in study.get_trials()[lost.number :]] == [TrialState.RUNNING] * 2 + [TrialState.COMPLETE] * 3


def test_costs_to_be_minimised_are_turned_around() -> None:
    tree = chains()
    told = {**line("d", 0.3), **line("e", 0.2), "a1": (0.9, 1.0), "a2": (0.9, 2.0), "b1": (0.1, 1.0), "c1": (0.1, 1.0)}
    study = optuna.create_study(directions=["minimize"] * 2, sampler=TreeSampler(tree, 0, (0, 0)))
    for address, (height, far) in told.items():
        params = {"name": address[0], "steps": int(address[1])}
        study.add_trial(create_trial(params=params, distributions=kinds(tree), values=[-height, -far]))
    assert ask(study, tree)[1] in ("a3", "a4")


class Slow(TreeSampler):
    """Leaves other threads the time to choose the same."""

    def pick(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> int | None:
        chosen = super().pick(study, trial)
        time.sleep(0.02)
        return chosen


def test_threads_never_pick_the_same() -> None:
    tree = chains("abcdef")
    study = optuna.create_study(directions=["maximize"] * 2, sampler=Slow(tree, 0, (0, 0)))

    def measure(trial: optuna.Trial) -> tuple[float, float]:
        name = str(trial.suggest_categorical("name", list("abcdef")))
        return ord(name) / 100, float(trial.suggest_int("steps", 1, LENGTH))

    study.optimize(measure, n_trials=len(tree.candidates), n_jobs=4)
    assert len({str(trial.params) for trial in study.trials}) == len(study.trials) == len(tree.candidates)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_behind_others_is_picked_before_anything_twice(seed: int) -> None:
    # Four in flight, told in any order: in the end all that is left comes after what others are at.
    tree, turn = chains("abcdef"), random.Random(seed)
    study = optuna.create_study(directions=["maximize"] * 2, sampler=TreeSampler(tree, 0, (0, 0)))
    flying: list[optuna.Trial] = []
    while len(study.trials) < len(tree.candidates) or flying:
        if len(study.trials) < len(tree.candidates) and len(flying) < 4 and (turn.random() < 0.7 or not flying):
            flying.append(study.ask(kinds(tree)))
        else:
            trial = flying.pop(turn.randrange(len(flying)))
            study.tell(trial, (ord(trial.params["name"]) / 100, float(trial.params["steps"])))
    assert len({str(trial.params) for trial in study.trials}) == len(tree.candidates)


def conditional(trial: optuna.Trial) -> tuple[float, float]:
    """Two families with parameters of their own."""
    if trial.suggest_categorical("kind", ["few", "many"]) == "few":
        return trial.suggest_float("few.height", 0, 1, step=0.5), 0.1
    return 0.1, float(trial.suggest_int("many.steps", 1, 3))


def test_a_plain_study_with_a_conditional_space_ends_when_all_is_known() -> None:
    few = [Candidate({"kind": "few", "few.height": height}, (f"few{height}",)) for height in (0.0, 0.5, 1.0)]
    many = [
        Candidate({"kind": "many", "many.steps": steps}, tuple(f"many{k}" for k in range(1, steps + 1)))
        for steps in (1, 2, 3)
    ]
    tree = StepTree([*few, *many], {address: 1.0 for one in (*few, *many) for address in one.chain})
    study = optuna.create_study(directions=["maximize"] * 2, sampler=TreeSampler(tree, 0))
    study.enqueue_trial({"kind": "few", "few.height": 0.5})
    study.optimize(conditional, n_trials=50)
    assert study.trials[0].params == {"kind": "few", "few.height": 0.5}
    assert sorted(map(str, (t.params for t in study.trials))) == sorted(str(dict(one.params)) for one in tree.candidates)


def test_three_objectives_and_a_tree_too_large_to_look_at_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_sampler, "MOST_NODES", 7)
    monkeypatch.setattr(tree_sampler, "MOST_TOLD", 6)
    tree = chains("abcdefghij")
    study = optuna.create_study(directions=["maximize"] * 3, sampler=TreeSampler(tree, 0))
    seen = set()
    for _ in range(25):
        trial, address = ask(study, tree)
        assert address not in seen
        seen.add(address)
        study.tell(trial, [ord(address[0]) / 100, float(address[1]), 1.0])


def test_of_a_large_tree_begun_chains_can_always_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six chains of four: two next steps of begun ones, three nodes drawn at random, and what comes before these."""
    monkeypatch.setattr(tree_sampler, "MOST_NODES", 5)
    tree = chains()
    study = study_of(tree, {"a1": (0.9, 1.0), "d1": (0.8, 1.0), "d2": (0.7, 2.0)})
    state, seen = state_of(study, tree), set()
    for seed in range(40):
        nodes = study.sampler._considered(state, np.random.default_rng(seed))  # type: ignore[attr-defined]
        addresses = {str(tree.candidates[point].chain[-1]) for point in tree.point[nodes]}
        assert {"a2", "d3"} <= addresses and 5 <= len(addresses) <= 2 + 3 * LENGTH
        assert not addresses & {"a1", "d1", "d2"}
        assert all(step == "1" or f"{name}{int(step) - 1}" in {"a1", "d2", *addresses} for name, step in addresses)
        seen |= addresses
    assert len(seen) == 6 * LENGTH - 3


def test_directions_measure_the_hypervolume() -> None:
    stairs = np.array([[0.2, 0.9], [0.5, 0.6], [0.8, 0.3], [0.4, 0.5]])
    radius = reach(stairs, directions(2)).max(axis=0)
    exact = moocore.hypervolume(stairs, ref=[0, 0], maximise=True)
    assert np.pi / 4 * (radius**2).mean() == pytest.approx(exact, rel=0.01)
    assert reach(np.array([[-0.1, 5.0]]), directions(2)).max() == 0


def fronts_in_space(fronts: int) -> Iterator[tuple[Floats, Floats]]:
    """Made-up fronts of three objectives, in some of which two go together as MACs and bytes do, and a point more."""
    draw = np.random.default_rng(5)
    for _ in range(fronts):
        count = draw.integers(1, 40)
        points = unit(np.abs(draw.normal(size=(count, 3)))) * draw.uniform(0.3, 1.2, (count, 1))
        if draw.random() < 0.5:
            points[:, 2] = points[:, 1] * draw.uniform(0.6, 1, len(points))
        yield np.minimum(points, 1), unit(np.abs(draw.normal(size=(1, 3)))) * draw.uniform(0.7, 1.2)


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_directions_in_space_measure_the_hypervolume_and_its_growth() -> None:
    along = directions(3)
    assert (along > 0).all() and np.allclose(np.linalg.norm(along, axis=1), 1)
    assert np.allclose(along.mean(axis=0), 0.5, atol=0.01) and (directions(3) == along).all()

    def measured(points: Floats) -> float:
        return float(np.pi / 6 * (reach(points, along).max(axis=0) ** 3).mean())

    def exact(points: Floats) -> float:
        return float(moocore.hypervolume(points, ref=[0, 0, 0], maximise=True))

    sizes, growths = [], []
    for front, more in fronts_in_space(200):
        both, size = np.vstack([front, more]), exact(front)
        sizes.append(measured(front) / size - 1)
        growths.append((measured(both) - measured(front) - exact(both) + size) / size)
    for errors in (sizes, growths):  # those drawn at random were off by .07 and .3
        assert np.sqrt(np.mean(np.square(errors))) < 0.012 and np.abs(errors).max() < 0.12


def test_four_objectives_have_directions_too() -> None:
    along = directions(4)
    assert np.allclose(np.linalg.norm(along, axis=1), 1) and np.allclose((along**2).mean(axis=0), 0.25, atol=0.01)


def test_numbers_stay_numbers_and_words_become_columns() -> None:
    assert encode([{"x": 2, "w": "a"}, {"w": "b"}, {"x": 3}]).tolist() == [[2, 1, 0], [0, 0, 1], [3, 0, 0]]


def test_every_schedule_of_a_space_is_a_candidate(tree: Tree, tmp_path: Any) -> None:
    space = SearchSpace(parse(SpaceSettings, SPACE, "space"))
    found = step_tree(space, Tree(tree.problem, Store(tmp_path)))
    addresses = [found.candidates[number].chain[-1] for number in range(len(found.candidates))]
    assert len(addresses) == len(set(addresses))
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    drawn = set()
    for _ in range(300):
        trial = study.ask()
        schedule = space.schedule(trial)
        number = found.number(trial.params)
        assert number is not None
        assert found.candidates[number].chain[-1] == tree.chain(schedule)[-1].id
        drawn.add(number)
    assert drawn == set(range(len(found.candidates)))


def test_of_a_space_with_too_many_recipes_the_starting_points_are_kept(
    tree: Tree, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SearchSpace(parse(SpaceSettings, SPACE, "space"))
    monkeypatch.setattr(candidates, "MOST_RECIPES", len(begin := space.starting_points()) + 1)
    assert len(list(space.longest())) > candidates.MOST_RECIPES
    found = step_tree(space, Tree(tree.problem, Store(tmp_path)))
    assert len(found.levels[0]) <= candidates.MOST_RECIPES
    assert all(found.number(params) is not None for params in begin)


def test_without_candidates_it_draws_at_random() -> None:
    study = optuna.create_study(sampler=sampler_for_ask("tree", 0, 0), directions=["maximize"] * 2)
    assert 0 <= study.ask().suggest_int("x", 0, 9) <= 9


def test_parameters_of_one_name_share_columns() -> None:
    rows = [{"kind": "a", "a.x": 2, "a.w": "u"}, {"kind": "b", "b.x": 3, "b.w": "v", "b.only": 1}]
    assert encode(rows).tolist() == [[1, 0, 2, 1, 0, 0], [0, 1, 3, 0, 1, 1]]


def test_features_are_on_one_scale_and_all_of_them_differ() -> None:
    tree = chains()
    np.testing.assert_allclose(tree.features.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(tree.features.std(axis=0), 1)


def surface(features: Floats) -> Floats:
    """One objective in one form, which only the first of the features matters to."""
    return np.sin(2 * features[:, 0])[:, None, None]


@pytest.mark.parametrize("count", [40, MOST_FITTED + 50])
def test_luck_is_told_from_what_settings_do(count: int) -> None:
    """Measured with an error of .2, values are believed to within half of it, and the luckiest isn't taken at its word."""
    random = np.random.default_rng(0)
    features, wanted = random.normal(size=(count, 4)), random.normal(size=(200, 4))
    luck = random.normal(scale=0.2, size=count)
    told = surface(features) + luck[:, None, None]
    found = believed(features, told, wanted, random) - surface(wanted)
    assert found.shape == (200, 1, 1) and np.abs(found[np.abs(wanted).max(axis=1) < 1.5]).mean() < 0.1
    luckiest = int(luck.argmax())
    again = believed(features, told, features[[luckiest]], random).item()
    assert again < told[luckiest].item() - luck[luckiest] / 2


def test_exact_values_are_reproduced() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(30, 2))
    np.testing.assert_allclose(believed(features, surface(features), features, random), surface(features), atol=0.01)


def test_forms_that_are_alike_are_believed_to_be_alike() -> None:
    random = np.random.default_rng(0)
    features, wanted = random.normal(size=(30, 4)), random.normal(size=(20, 4))
    one = random.random((30, 1, 2))
    found = believed(features, one + np.arange(3)[:, None], wanted, random)
    np.testing.assert_allclose(found - found[:, :1], np.broadcast_to(np.arange(3)[:, None], found.shape), atol=1e-6)


def test_the_forms_of_a_step_share_their_length_scales() -> None:
    """One says which setting matters, and another, which is noise alone, is believed by that, and not by itself."""
    random = np.random.default_rng(0)
    features, wanted = random.normal(size=(60, 3)), random.normal(size=(20, 3))
    clear, noise = np.sin(2 * features[:, 0]), 0.01 * random.normal(size=60)
    both = np.stack([clear, noise], axis=1)[:, :, None]
    together = believed(features, both, wanted, random)
    apart = np.concatenate([believed(features, both[:, [form]], wanted, random) for form in range(2)], axis=1)
    assert np.ptp(together[:, 1]) > 2 * np.ptp(apart[:, 1])


def test_values_that_are_all_the_same_are_believed_everywhere() -> None:
    random = np.random.default_rng(0)
    found = believed(random.normal(size=(5, 2)), np.full((5, 2, 1), 0.3), random.normal(size=(7, 2)), random)
    np.testing.assert_allclose(found, 0.3)
