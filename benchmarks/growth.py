"""How search and report grow: seconds of one suggestion, and of the report, at 100, 1,000 and 10,000 points.

    python -m benchmarks.growth [--json FILE]

Each is timed on one thread, by the processor's clock and the wall's: what else the machine does shows in the difference.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import create_trial

from search.sampling.step_tree import Candidate, StepTree
from search.sampling.tree_sampler import TreeSampler
from tests.made_up import dense, point, write_study
from trainables.records import names as n

SIZES = (100, 1_000, 10_000)
RECIPES, STEPS = 1_500, 10
ASKS = 5
CHAIN = 4
MOST_SECONDS = {"suggestion": 0.5, "report": 60.0}
PACKAGES = ("optuna", "scikit-learn", "numpy", "pandas", "matplotlib", "moocore")
CPU, WALL = "cpu_seconds", "wall_seconds"

Seconds = dict[str, float]


def growth() -> dict[str, Any]:
    """Seconds of a suggestion and of the report by the number of points told, and what they were measured on."""
    busy, tree = os.getloadavg()[0], made_up_tree()
    suggestion = {f"{size:,} points": _suggestion(tree, size) for size in SIZES}
    report = {f"{size:,} points": _report(size) for size in SIZES}
    return {"suggestion": suggestion, "report": report, "most_seconds": MOST_SECONDS, "conditions": _conditions(busy)}


def _conditions(busy: float) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(), "threads": 1, "load_average_before": round(busy, 1),
        "load_average_after": round(os.getloadavg()[0], 1), "machine": platform.machine(),
        "python": platform.python_version(), "versions": {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def made_up_tree() -> StepTree:
    """A space of 15,000 schedules: chains of ten steps, a recipe each."""
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


def _suggestion(tree: StepTree, size: int) -> Seconds:
    """Medians of a few asks."""
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
    taken = []
    for _ in range(ASKS):
        cpu, wall = time.process_time(), time.perf_counter()
        study.ask()
        taken.append((time.process_time() - cpu, time.perf_counter() - wall))
    return dict(zip((CPU, WALL), np.median(taken, axis=0).round(3).tolist(), strict=True))


def _report(size: int) -> Seconds:
    """Of the command as a user gives it, with its imports."""
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder) / "made-up", list(made_up_points(size)))
        before, wall = _children(), time.perf_counter()
        command = [sys.executable, "-m", "analysis", "report", str(study)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)  # noqa: S603
        return {CPU: round(_children() - before, 1), WALL: round(time.perf_counter() - wall, 1)}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def made_up_points(size: int) -> Iterator[dict[str, Any]]:
    """The dense network, and chains of four networks of both families, whose settings matter more or less."""
    draw = random.Random(0)
    yield dense()
    settings: dict[str, Any] = {}
    for number in range(size):
        step = number % CHAIN + 1
        if step == 1:
            settings = _recipe(draw)
        doublings = step * settings[n.STEP_RATIO] * draw.uniform(0.8, 1.2)
        lost = 0.01 * doublings + (0.03 if settings[n.IMPORTANCE] == n.RANDOM else 0.0)
        yield point(**settings) | {
            n.TRIAL: number // CHAIN, n.STEP: step, n.STEPS: CHAIN, n.STEP_ID: f"s{number}", n.TOTAL_EPOCHS: step,
            n.ACCURACY: 0.96 - lost + draw.gauss(0, 0.004), n.COMPRESSION: 2**doublings,
        }  # fmt: skip


def _recipe(draw: random.Random) -> dict[str, Any]:
    structured = draw.random() < 0.5
    importances = ("magnitude_l2", "lamp", "fpgm", "random") if structured else ("magnitude", "taylor", "random")
    return {
        n.FAMILY: n.STRUCTURED if structured else n.UNSTRUCTURED, n.IMPORTANCE: draw.choice(importances),
        n.PRUNER: draw.choice(("base", "group_norm", "growing_reg")) if structured else None,
        n.SCOPE: draw.choice(("global", "local" if structured else "layerwise")),
        n.STEP_RATIO: draw.choice((0.2, 0.3, 0.5, 0.7)), n.RETRAIN: draw.choice(("fine_tune", "lr_rewind")),
        n.FINE_TUNE_EPOCHS: draw.choice((1, 2, 4)),
    }  # fmt: skip


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The numbers as text, beside their limits."""
    for what, limit in MOST_SECONDS.items():
        for size, taken in found[what].items():
            yield f"{what}, {size}: {taken[CPU]:g} s of processor, {taken[WALL]:g} s by the wall (limit {limit:g} s)"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all numbers")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = growth()
    print("\n".join(lines(found)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
