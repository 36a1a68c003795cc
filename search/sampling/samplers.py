"""The samplers by name. Each is made anew for every ask, seeded by the study's seed and the number of the ask, so that a
study goes on after a restart as if there had been none."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from pydantic import Field

from search.sampling.looks import Looks
from search.sampling.step_tree import StepTree
from search.sampling.tree_sampler import TreeSampler
from trainables.methods import Method, Registry, section
from trainables.settings import Settings

NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Known(NamedTuple):
    """What a sampler that ``knows_tree`` is given."""

    tree: StepTree | None
    reference: Sequence[float] | None
    found: Mapping[Hashable, float]
    """What looks have told (``search.sampling.looks``)."""


class Sampler(Method):
    """How the next schedule is proposed."""

    knows_tree: ClassVar[bool] = False
    """Whether it is given all candidates, the reference, and what looks told."""

    @abstractmethod
    def sampler(self, seed: int, known: Known) -> BaseSampler:
        """Optuna's sampler for one ask, whose own the ``seed`` is."""

    @property
    def looks_at(self) -> int:
        """How many cuts a trial looks at for it."""
        return 0


class Tpe(Sampler):
    """Multivariate, group-decomposed tree-structured Parzen estimators."""

    name, source = "tpe", "Bergstra et al. 2011; Ozaki et al. 2022"

    def sampler(self, seed: int, known: Known) -> BaseSampler:  # noqa: ARG002
        """Settings are spelled out because defaults change."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(n_startup_trials=10, multivariate=True, group=True, constant_liar=True, seed=seed)


class NsgaII(Sampler):
    """A genetic algorithm; where both families are searched, it proposes what random does."""

    name, source = "nsga2", "Deb et al. 2002"

    def sampler(self, seed: int, known: Known) -> BaseSampler:  # noqa: ARG002
        """With a population that a study of a hundred trials can turn over."""
        return NSGAIISampler(population_size=20, seed=seed)


class Random(Sampler):
    """Every schedule as likely as any other."""

    name, control = "random", True

    def sampler(self, seed: int, known: Known) -> BaseSampler:  # noqa: ARG002
        """Optuna's."""
        return RandomSampler(seed=seed)


class Tree(Sampler):
    """The most expected hypervolume for each new epoch, by a surrogate that knows which steps schedules share."""

    name, knows_tree = "tree", True
    looks: int = Field(
        0, ge=0, description="cuts that each trial looks at for tree before its first step: recalibrated, at no epochs"
    )

    def sampler(self, seed: int, known: Known) -> BaseSampler:
        """``search.sampling.tree_sampler``."""
        looks = Looks(self.looks, known.found)
        return TreeSampler(known.tree or StepTree([], {}), seed, known.reference, ask=0, looks=looks)

    @property
    def looks_at(self) -> int:
        """Its setting."""
        return self.looks


SAMPLERS = Registry[Sampler]("sampler", Sampler, (Tree, Tpe, NsgaII, Random))


if TYPE_CHECKING:

    class SamplerSettings(Settings):
        """The fields of the samplers."""

else:
    SamplerSettings = section("SamplerSettings", __name__, "The fields of the samplers.", SAMPLERS.values())


def sampler_for_ask(
    name: str, seed: int, ask: int, tree: StepTree | None = None, reference: Sequence[float] | None = None, *,
    settings: Mapping[str, Any] = NOTHING, found: Mapping[Hashable, float] = NOTHING,
) -> BaseSampler:  # fmt: skip
    """The sampler that proposes the study's ``ask``-th trial, with its ``settings``.

    Only one that ``knows_tree`` needs the tree, the reference, and what looks have ``found``.
    """
    digest = hashlib.sha256(f"{seed}/{ask}".encode()).digest()
    return SAMPLERS.make(name, settings).sampler(int.from_bytes(digest[:4], "big"), Known(tree, reference, found))
