"""What the tests of samplers share: trees of chains whose best next step is plain to see."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from search.sampling.step_tree import Candidate, StepTree

LENGTH = 4


def chains(names: str = "abcdef", cost: Mapping[str, float] | None = None, length: int = LENGTH) -> StepTree:
    """A chain of steps for each letter; step k of it is the candidate (letter, k)."""
    costs = {f"{name}{step}": (cost or {}).get(name, 1.0) for name in names for step in range(1, length + 1)}
    return StepTree(
        [
            Candidate({"name": name, "steps": step}, tuple(f"{name}{k}" for k in range(1, step + 1)))
            for name in names
            for step in range(1, length + 1)
        ],
        costs,
    )


def kinds(tree: StepTree) -> dict[str, BaseDistribution]:
    names = sorted({str(one.params["name"]) for one in tree.candidates})
    return {"name": CategoricalDistribution(names), "steps": IntDistribution(1, LENGTH)}


def ask(study: optuna.Study, tree: StepTree) -> tuple[optuna.Trial, str]:
    """The next trial and the address of its last step."""
    trial = study.ask(kinds(tree))
    return trial, f"{trial.params['name']}{trial.params['steps']}"


def line(name: str, height: float) -> dict[str, tuple[float, float]]:
    """A whole chain at one height, each step farther out."""
    return {f"{name}{step}": (height, float(step)) for step in range(1, LENGTH + 1)}
