"""Seconds that the sampler which knows the tree takes for one suggestion, at many points."""

from __future__ import annotations

import time
from collections.abc import Hashable

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import create_trial

from search.step_tree import Candidate, StepTree
from search.tree_sampler import TreeSampler

SIZES = (100, 1_000, 10_000)
RECIPES, STEPS = 1_500, 10
ASKS = 5


def growth() -> dict[str, float]:
    """Median seconds of an ask in a made-up space of 15,000 schedules, by the number of points told."""
    tree = made_up_tree()
    return {f"{size:,} points": _seconds(tree, size) for size in SIZES}


def made_up_tree() -> StepTree:
    """Chains of ten steps, a recipe each."""
    draw = np.random.default_rng(0)
    candidates: list[Candidate] = []
    costs: dict[Hashable, float] = {}
    for recipe in range(RECIPES):
        chain = [f"{recipe}/{step}" for step in range(STEPS)]
        costs |= dict.fromkeys(chain, float(draw.integers(1, 5)))
        fields = {f"choice{i}": f"{value}" for i, value in enumerate(draw.integers(0, 5, 6))}
        candidates += [
            Candidate({**fields, "recipe": recipe, "steps": step}, tuple(chain[: step + 1])) for step in range(STEPS)
        ]
    return StepTree(candidates, costs)


def _seconds(tree: StepTree, size: int) -> float:
    draw = np.random.default_rng(0)
    study = optuna.create_study(directions=["maximize"] * 2, sampler=TreeSampler(tree, 0))
    names = dict.fromkeys(name for candidate in tree.candidates[:STEPS] for name in candidate.params)
    kinds: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(sorted({candidate.params[name] for candidate in tree.candidates})) for name in names
    }
    for number in draw.permutation(len(tree.candidates))[:size]:
        params = tree.candidates[number].params
        step, height = params["steps"], draw.random()
        study.add_trial(create_trial(params=params, distributions=kinds, values=[height - 0.05 * step, 0.5 * step]))
    seconds = []
    for _ in range(ASKS):
        started = time.perf_counter()
        study.ask()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
