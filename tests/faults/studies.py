"""The studies that the storms go over."""

from __future__ import annotations

import os
from pathlib import Path

from tests.search_helpers import SPACE, Raw, raw_study

STEPS = 6


def sweep_study(tmp: Path, seeds: int, epochs: int = 4) -> Raw:
    """Chains of both families, several at once; what is told of them doesn't depend on the order of work."""
    both = [
        {"importance": ["magnitude", "random"], "schedule": "linear", "sparsity": 0.9, "steps": STEPS},
        {"family": "structured", "importance": "magnitude_l2", "step_ratio": 0.2, "steps": 3},
    ]
    sweep = [{**entry, "fine_tune_epochs": epochs, "seed": seed} for seed in range(seeds) for entry in both]
    return raw_study(tmp, sweep=sweep, data={"dataset": "digits", "validation_fraction": 0.3})


def search_study(tmp: Path, sampler: str = "tree", trials: int = 12) -> Raw:
    """A search with one trial in flight, which goes the same way however often it is killed."""
    search = {"trials": trials, "sampler": sampler, "starting_points": False}
    return raw_study(tmp, space=SPACE, search=search, resources={"cpu": os.cpu_count() or 1})
