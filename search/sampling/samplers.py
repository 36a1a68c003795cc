"""The samplers by name. Each is made anew for every ask, seeded by the study's seed and the number of the ask, so that a
study goes on after a restart as if there had been none."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from search.sampling.step_tree import StepTree
from search.sampling.tree_sampler import TreeSampler
from trainables.methods import Method, Registry


class Sampler(Method):
    """How the next schedule is proposed."""

    knows_tree: ClassVar[bool] = False
    """Whether it is given all candidates and the reference."""

    @abstractmethod
    def sampler(self, seed: int, tree: StepTree | None, reference: Sequence[float] | None) -> BaseSampler:
        """Optuna's sampler for one ask, whose own the ``seed`` is."""


class Tpe(Sampler):
    """Multivariate, group-decomposed tree-structured Parzen estimators."""

    name, source = "tpe", "Bergstra et al. 2011; Ozaki et al. 2022"

    def sampler(self, seed: int, tree: StepTree | None, reference: Sequence[float] | None) -> BaseSampler:  # noqa: ARG002
        """Settings are spelled out because defaults change."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(n_startup_trials=10, multivariate=True, group=True, constant_liar=True, seed=seed)


class NsgaII(Sampler):
    """A genetic algorithm; where both families are searched, it proposes what random does."""

    name, source = "nsga2", "Deb et al. 2002"

    def sampler(self, seed: int, tree: StepTree | None, reference: Sequence[float] | None) -> BaseSampler:  # noqa: ARG002
        """With a population that a study of a hundred trials can turn over."""
        return NSGAIISampler(population_size=20, seed=seed)


class Random(Sampler):
    """Every schedule as likely as any other."""

    name, control = "random", True

    def sampler(self, seed: int, tree: StepTree | None, reference: Sequence[float] | None) -> BaseSampler:  # noqa: ARG002
        """Optuna's."""
        return RandomSampler(seed=seed)


class Tree(Sampler):
    """The most expected hypervolume for each new epoch, by a surrogate that knows which steps schedules share."""

    name, knows_tree = "tree", True

    def sampler(self, seed: int, tree: StepTree | None, reference: Sequence[float] | None) -> BaseSampler:
        """``search.sampling.tree_sampler``."""
        return TreeSampler(tree or StepTree([], {}), seed, reference, ask=0)


SAMPLERS = Registry[Sampler]("sampler", Sampler, (Tree, Tpe, NsgaII, Random))


def sampler_for_ask(
    name: str, seed: int, ask: int, tree: StepTree | None = None, reference: Sequence[float] | None = None
) -> BaseSampler:
    """The sampler that proposes the study's ``ask``-th trial; only one that ``knows_tree`` needs the last two."""
    digest = hashlib.sha256(f"{seed}/{ask}".encode()).digest()
    return SAMPLERS.make(name).sampler(int.from_bytes(digest[:4], "big"), tree, reference)
