"""The samplers by name. Each is made anew for every ask, seeded by the study's seed and the number of the ask, so that a
study goes on after a restart as if there had been none."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from search.sampling.step_tree import StepTree
from search.sampling.tree_sampler import TreeSampler

TREE = "tree"


def _tpe(seed: int, *_: Any) -> BaseSampler:
    """Multivariate, group-decomposed TPE (Ozaki et al. 2022); settings are spelled out because defaults change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(n_startup_trials=10, multivariate=True, group=True, constant_liar=True, seed=seed)


def _nsga2(seed: int, *_: Any) -> BaseSampler:
    """NSGA-II (Deb et al. 2002) with a population that a study of a hundred trials can turn over."""
    return NSGAIISampler(population_size=20, seed=seed)


def _random(seed: int, *_: Any) -> BaseSampler:
    return RandomSampler(seed=seed)


def _tree(seed: int, tree: StepTree | None, reference: Sequence[float] | None) -> BaseSampler:
    """The sampler that knows the tree (``search.sampling.tree_sampler``); the seed is the ask's own."""
    return TreeSampler(tree or StepTree([], {}), seed, reference, ask=0)


SAMPLERS: Mapping[str, Callable[[int, StepTree | None, Sequence[float] | None], BaseSampler]] = {
    "tpe": _tpe, "nsga2": _nsga2, "random": _random, TREE: _tree,
}  # fmt: skip


def sampler_for_ask(
    name: str, seed: int, ask: int, tree: StepTree | None = None, reference: Sequence[float] | None = None
) -> BaseSampler:
    """The sampler that proposes the study's ``ask``-th trial; only ``tree`` needs the candidates and the reference."""
    digest = hashlib.sha256(f"{seed}/{ask}".encode()).digest()
    return SAMPLERS[name](int.from_bytes(digest[:4], "big"), tree, reference)
