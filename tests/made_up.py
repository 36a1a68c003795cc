"""A made-up study on disk: two families, shared steps, a failed trial; smooth formulas instead of training."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainables import names as n

DENSE_ACCURACY = 0.962
RECIPE = (n.TRIAL, n.IMPORTANCE, n.SCOPE, n.SCHEDULE, n.STEP_RATIO, n.STEPS, n.FINE_TUNE_EPOCHS, n.RETRAIN)
DENSE_PARAMS, DENSE_MACS = 60_000, 4_200_000
IMPORTANCES = {n.UNSTRUCTURED: ("magnitude", "taylor", "random"), n.STRUCTURED: ("magnitude_l2", "lamp", "random")}
# How much accuracy an importance loses where the better ones lose little.
COST = {"magnitude": 1.0, "taylor": 1.2, "random": 4.0, "magnitude_l2": 1.1, "lamp": 1.0}


def point(**changes: Any) -> dict[str, Any]:
    """One row of points.jsonl; every column is there."""
    row: dict[str, Any] = dict.fromkeys(n.POINT_COLUMNS)
    row |= {
        n.TRIAL: 0, n.STEP: 1, n.STEP_ID: "a1", n.FAMILY: n.UNSTRUCTURED, n.IMPORTANCE: "magnitude", n.SCOPE: "global",
        n.RETRAIN: "fine_tune", n.SCHEDULE: "geometric", n.STEP_RATIO: 0.5, n.STEPS: 1, n.FINE_TUNE_EPOCHS: 1,
        n.SEED: 0, n.EPOCHS: 1, n.SECONDS: 1.5, n.REUSED: False, n.REQUESTED_SPARSITY: 0.5, n.SPARSITY: 0.5,
        n.ACCURACY_BEFORE: 0.4, n.ACCURACY: 0.9, n.PARAMS: 30_000, n.MACS: 4_200_000, n.EFFECTIVE_MACS: 2_100_000,
        n.STORED_BYTES: 120_000,
        n.COMPRESSION: 2.0,
    }  # fmt: skip
    return row | changes


def dense(**changes: Any) -> dict[str, Any]:
    """The row of a dense network."""
    root = dict.fromkeys((n.TRIAL, n.IMPORTANCE, n.SCOPE, n.SCHEDULE, n.STEP_RATIO, n.STEPS, n.FINE_TUNE_EPOCHS, n.RETRAIN))
    measured = {
        n.STEP: 0, n.STEP_ID: "d0", n.FAMILY: n.DENSE, n.EPOCHS: 20, n.REQUESTED_SPARSITY: 0.0, n.SPARSITY: 0.0,
        n.ACCURACY: DENSE_ACCURACY, n.ACCURACY_BEFORE: DENSE_ACCURACY, n.PARAMS: DENSE_PARAMS, n.MACS: DENSE_MACS,
        n.EFFECTIVE_MACS: DENSE_MACS, n.STORED_BYTES: 240_000, n.COMPRESSION: 1.0, n.LATENCY: 0.42,
    }  # fmt: skip
    return point(**root, **measured) | changes


def write_study(
    folder: Path,
    points: Sequence[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    trials: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """A study's folder that holds these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    study = {
        "name": "made-up", "objectives": ["accuracy", "compression"], "reference": {"accuracy_drop": 0.1},
        "data": {"dataset": "digits"}, "model": {"name": "cnn"}, "search": {"sampler": "tree", "trials": 60, "seed": 0},
    }  # fmt: skip
    (folder / n.STUDY_FILE).write_text(yaml.safe_dump(study | dict(settings or {})))
    (folder / n.PROVENANCE_FILE).write_text(json.dumps({"versions": {"torch": "2.0"}, "hardware": {"cpu": "made up"}}))
    (folder / n.POINTS_FILE).write_text("".join(json.dumps(row) + "\n" for row in points))
    (folder / n.TRIALS_FILE).write_text("".join(json.dumps(row) + "\n" for row in trials))
    return folder


def example_study(folder: Path, trials: int = 60, **settings: Any) -> Path:
    """A whole study: one-shot and iterative schedules of both families that share their first steps."""
    draw = random.Random(0)
    rows, seen = [dense()], set[str]()
    for trial in range(trials):
        rows += _walk(trial, draw, seen)
    ends = [end(trial, "complete") for trial in range(trials)]
    ends.append(end(trials, "failed", "removed nothing: round_to is too coarse"))
    return write_study(folder, rows, settings=settings, trials=ends)


def end(trial: int, state: str, reason: str | None = None) -> dict[str, Any]:
    """One line of trials.jsonl."""
    return {n.TRIAL: trial, "state": state, "reason": reason, n.SCHEDULE: {n.STEP_RATIO: 0.1}}


def _walk(trial: int, draw: random.Random, seen: set[str]) -> list[dict[str, Any]]:
    family = draw.choice(n.FAMILIES)
    recipe = {
        n.FAMILY: family,
        n.IMPORTANCE: draw.choice(IMPORTANCES[family]),
        n.SCOPE: draw.choice(("global", "layerwise")),
        n.PRUNER: draw.choice(("base", "group_norm")) if family == n.STRUCTURED else None,
        n.STEP_RATIO: draw.choice((0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)),
        n.FINE_TUNE_EPOCHS: draw.choice((1, 2, 4)),
    }
    steps = draw.randint(1, max(1, min(8, round(3.5 / -_log_kept(recipe, 1)))))
    return [_step(recipe, trial, step, steps, seen) for step in range(1, steps + 1)]


def _step(recipe: Mapping[str, Any], trial: int, step: int, steps: int, seen: set[str]) -> dict[str, Any]:
    step_id = hashlib.sha256(json.dumps([recipe, step]).encode()).hexdigest()[:12]
    reused = step_id in seen
    seen.add(step_id)
    epochs = recipe[n.FINE_TUNE_EPOCHS]
    return point(**recipe, **_measured(recipe, step)) | {
        n.TRIAL: trial, n.STEP: step, n.STEPS: steps, n.STEP_ID: step_id, n.REUSED: reused,
        n.EPOCHS: 0 if reused else epochs, n.TOTAL_EPOCHS: step * epochs, n.SECONDS: 0.1 if reused else 1.3 * epochs,
    }  # fmt: skip


def _measured(recipe: Mapping[str, Any], step: int) -> dict[str, float]:
    kept = math.exp(_log_kept(recipe, step))
    structured = recipe[n.FAMILY] == n.STRUCTURED
    hardness = COST[recipe[n.IMPORTANCE]] * (5 if structured else 1) / (1 + recipe[n.FINE_TUNE_EPOCHS]) / (1 + 0.2 * step)
    loss = 0.012 * hardness * ((1 / kept) ** 0.75 - 1)
    wobble = random.Random(json.dumps([dict(recipe), step])).gauss(0, 0.004)
    return {
        n.REQUESTED_SPARSITY: 1 - kept, n.SPARSITY: round(1 - kept, 4), n.PARAMS: int(DENSE_PARAMS * kept),
        n.ACCURACY: max(0.1, min(1.0, DENSE_ACCURACY + 0.004 - loss + wobble)),
        n.ACCURACY_BEFORE: max(0.1, DENSE_ACCURACY - 6 * loss), n.EFFECTIVE_MACS: int(DENSE_MACS * kept),
        n.MACS: int(DENSE_MACS * kept**0.8) if structured else DENSE_MACS,
        n.STORED_BYTES: int(240_000 * kept * (1 if structured else 1.04) + 900),
        n.COMPRESSION: 240_000 / int(240_000 * kept * (1 if structured else 1.04) + 900),
    }  # fmt: skip


def _log_kept(recipe: Mapping[str, Any], step: int) -> float:
    kept: float = (1 - recipe[n.STEP_RATIO]) ** step
    # Removing a share of the channels removes nearly that share squared of the weights.
    return math.log(kept) * (1.6 if recipe[n.FAMILY] == n.STRUCTURED else 1.0)
