"""The samplers by name. Each is made anew for every ask, seeded by the study's seed and the number of the ask, so that a
study goes on after a restart as if there had been none."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler


def _tpe(seed: int) -> BaseSampler:
    """Multivariate, group-decomposed TPE (Ozaki et al. 2022); settings are spelled out because defaults change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(n_startup_trials=10, multivariate=True, group=True, constant_liar=True, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    """NSGA-II (Deb et al. 2002) with a population that a study of a hundred trials can turn over."""
    return NSGAIISampler(population_size=20, seed=seed)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2, "random": _random}


def sampler_for_ask(name: str, seed: int, ask: int) -> BaseSampler:
    """The sampler that proposes the study's ``ask``-th trial."""
    digest = hashlib.sha256(f"{seed}/{ask}".encode()).digest()
    return SAMPLERS[name](int.from_bytes(digest[:4], "big"))
