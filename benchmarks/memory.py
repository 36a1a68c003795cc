"""What a worker's memory comes to over a thousand trials, all in one trainable, as in an actor that Ray Tune reuses.

    python -m benchmarks.memory [--csv benchmarks/tables/memory.csv]

Each trial is another schedule of one step, in both families and with every importance, pruner and retraining that costs
little, on 360 of scikit-learn's digits. The growth is the slope of a line through the second half: what is cached
for good is there by then.
"""

from __future__ import annotations

import argparse
import csv
import gc
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from trainables.data.dataset import DataSettings, load
from trainables.networks.factory import ModelSettings
from trainables.problem import Problem
from trainables.trainable import PruningTrainable
from trainables.training.loop import DenseSettings

EACH = 20
"""Trials between two looks."""
MOST_GROWTH = 10.0
"""MB in a thousand trials that count as flat: a percent of what a worker has."""
CHOICES: dict[str, dict[str, list[Any]]] = {
    "unstructured": {
        "importance": ["magnitude", "taylor", "random"],
        "scope": ["global", "layerwise"],
        "retrain": ["fine_tune", "distill", "lr_rewind", "weight_rewind"],
    },
    "structured": {
        "importance": ["magnitude_l2", "taylor", "lamp", "fpgm", "hessian", "random"],
        "scope": ["local", "global"],
        "pruner": ["base", "bn_scale", "group_norm", "growing_reg"],
        "retrain": ["fine_tune", "scratch"],
    },
}


def config(number: int) -> dict[str, Any]:
    """The schedule of a trial: no two alike."""
    draw = random.Random(number)
    family = draw.choice(list(CHOICES))
    chosen = {name: draw.choice(values) for name, values in CHOICES[family].items()}
    penalised = chosen.get("pruner", "base") != "base"
    chosen |= {"sparse_epochs": 1} if penalised else {}
    levels = {"steps": 1, "step_ratio": draw.uniform(0.3, 0.9)}
    return {"trial": number, "family": family, **chosen, **levels, "fine_tune_epochs": 1}


def measure(trials: int) -> list[tuple[int, float]]:
    """(trials, resident memory in MB) as the trainable goes through them."""
    model = ModelSettings(name="cnn", arguments={"width": 4})
    problem = Problem(
        load(DataSettings(limit=400)), model, DenseSettings(epochs=1, batch_size=64, threads=1, rewind_epoch=0)
    )
    found, trial = [], PruningTrainable.__new__(PruningTrainable)
    with tempfile.TemporaryDirectory() as folder:
        trial.setup(config(0), problem=problem, folder=folder)
        for number in range(1, trials + 1):
            trial.reset_config(config(number))
            trial.step()
            if number % EACH == 0:
                gc.collect()
                found.append((number, psutil.Process().memory_info().rss / 1e6))
                print(f"{number:5} trials: {found[-1][1]:.1f} MB", flush=True)
    return found


def growth(found: list[tuple[int, float]]) -> float:
    """MB in a thousand trials, by the second half."""
    numbers, resident = np.array(found[len(found) // 2 :]).T
    return float(np.polyfit(numbers, resident, 1)[0]) * 1000


def main() -> None:
    """Measure, and write the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--csv", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    if arguments.trials < 4 * EACH:
        parser.error(f"--trials must be at least {4 * EACH}")
    found = measure(arguments.trials)
    slope = growth(found)
    print(
        f"growth: {slope:+.1f} MB in 1,000 trials; {'flat' if slope < MOST_GROWTH else 'NOT FLAT'} (below {MOST_GROWTH:g})"
    )
    if arguments.csv is not None:
        with arguments.csv.open("w", newline="") as file:
            rows = [(number, round(resident, 1)) for number, resident in found]
            csv.writer(file, lineterminator="\n").writerows([("trials", "resident_mb"), *rows])


if __name__ == "__main__":
    main()
