"""The studies that the storms go over."""

from __future__ import annotations

import os
from pathlib import Path

from tests.search_helpers import STRUCTURED_SPACE, UNSTRUCTURED_SPACE, Raw, raw_study

STEPS = 6


def sweep_study(tmp: Path, size: int) -> Raw:
    """Chains of both families, several at once; what is told of them doesn't depend on the order of work."""
    both = [
        {"importance": ["magnitude", "random"], "schedule": "linear", "sparsity": 0.9, "steps": STEPS},
        {"family": "structured", "importance": "magnitude_l2", "step_ratio": 0.2, "steps": 3},
    ]
    sweep = [{**entry, "fine_tune_epochs": 4, "seed": seed} for seed in range(size) for entry in both]
    return raw_study(tmp, sweep=sweep, data={"dataset": "digits", "validation_fraction": 0.3})


def search_study(tmp: Path, size: int) -> Raw:
    """A search by the default sampler with one trial in flight, which goes the same way however often it is killed."""
    family = {"step_ratio": [0.2, 0.3, 0.5], "max_steps": 6, "fine_tune_epochs": [1, 2, 4]}
    space = {"unstructured": {**UNSTRUCTURED_SPACE, **family}, "structured": {**STRUCTURED_SPACE, **family}}
    search = {"trials": 6 * size, "starting_points": False}
    return raw_study(tmp, space=space, search=search, resources={"cpu": (os.cpu_count() or 1) / 2 + 0.5})
