"""A made-up study on disk: two families, shared steps, a failed trial; smooth formulas instead of training."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import trainables.records.names as n
from trainables.records.methods import MEASURE, Measure, QualityDescription

DENSE_ACCURACY = 0.962
MAE = Measure(
    "mae",
    QualityDescription(
        column="mae", label="validation mean absolute error", direction="minimise", scale="linear", slack=None, low=0.0
    ),
)
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


def address(text: str) -> str:
    """The text as an address, which has neither spaces nor signs."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:64]


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


def of_mae(folder: Path) -> Path:
    """The folder of a study, measured by the tenfold of what is wrong."""
    rows = [json.loads(line) for line in (folder / n.POINTS_FILE).read_text().splitlines()]
    for row in rows:
        row |= {
            "mae": 10 * (1 - row.pop(n.ACCURACY)),
            "mae_before": 10 * (1 - row.pop(n.ACCURACY_BEFORE)),
            "mae_error": 0.05,
        }
    (folder / n.POINTS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = yaml.safe_load((folder / n.STUDY_FILE).read_text()) | {"reference": {"drop": 1.0}}
    settings["objectives"] = ["mae" if one == n.ACCURACY else one for one in settings.get("objectives", [])]
    (folder / n.STUDY_FILE).write_text(yaml.safe_dump(settings))
    (folder / n.METHODS_FILE).write_text(json.dumps({MEASURE: {"mae": MAE.describe()}}))
    return folder


def end(trial: int, state: str, reason: str | None = None) -> dict[str, Any]:
    """One line of trials.jsonl."""
    return {n.TRIAL: trial, "state": state, "reason": reason, n.SCHEDULE: {n.STEP_RATIO: 0.1}}


def _walk(trial: int, draw: random.Random, seen: set[str]) -> list[dict[str, Any]]:
    family = draw.choice(list(IMPORTANCES))
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


LEVELS = (0.5, 0.8, 0.9)
CHANNELS = (0.2, 0.5)
SWEEP_DENSE = 0.91
WORTH = {"magnitude_l2": 0.0, "taylor": -0.01, "random": -0.05}


@dataclass(frozen=True)
class Sweep:
    """A made-up sweep of one-shot, iterative and structured pruning; its fields say by how much which loses."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    noise: float = 0.0005
    chain: float = -0.02
    """what cutting in steps adds to one cut of equal epochs"""
    importances: Mapping[str, float] = field(default_factory=lambda: dict(WORTH))
    """what each adds to structured pruning"""
    timed: bool = True

    def rows(self) -> list[dict[str, Any]]:
        """All lines of points.jsonl."""
        return [row for seed in self.seeds for row in self.of_seed(seed)]

    def of_seed(self, seed: int) -> list[dict[str, Any]]:
        """The lines of a seed: dense, one-shot, longer one-shot, a chain, random weights; channels, and from scratch."""
        times = {n.LATENCY: 0.8, n.LATENCY_LARGE: 20.0} if self.timed else {n.LATENCY: None}
        root = dense(**{n.SEED: seed, n.STEP_ID: f"dense{seed}", n.ACCURACY: _dense(seed), n.EPOCHS: 30, n.TOTAL_EPOCHS: 0})
        rows = [root | {n.SHAPE_ID: "dense", **times}]
        for step, level in enumerate(LEVELS, start=1):
            rows.append(self.weights(seed, level, 2))
            rows.append(self.weights(seed, level, 2, adds=-0.1, **{n.IMPORTANCE: "random"}))
            rows += [self.weights(seed, level, 2 * step)] if step > 1 else []
            in_chain = {n.STEP: step, n.STEPS: len(LEVELS), n.TOTAL_EPOCHS: 2 * step}
            adds = 0.0 if step == 1 else self.chain - 0.01 * (2 - 2 * step)
            rows.append(self.weights(seed, level, 2, adds=adds, **in_chain))
        for importance, adds in self.importances.items():
            rows += [self.channels(seed, importance, step, adds) for step in range(1, len(CHANNELS) + 1)]
        scratch = {n.RETRAIN: "scratch", n.STEPS: 1, n.STEP: 1, n.FINE_TUNE_EPOCHS: 34, n.TOTAL_EPOCHS: 34}
        return [*rows, self.channels(seed, "magnitude_l2", len(CHANNELS), 0.01, **scratch)]

    def weights(self, seed: int, level: float, epochs: int, adds: float = 0.0, **columns: Any) -> dict[str, Any]:
        """An unstructured network: of one cut, unless its columns say otherwise."""
        loss = 0.05 * level**4 - 0.01 * (epochs - 2) - adds
        settings = {n.FINE_TUNE_EPOCHS: epochs, n.TOTAL_EPOCHS: epochs, n.EPOCHS: epochs, n.SHAPE_ID: "dense", **columns}
        return self.network(seed, level, loss, 1 / (1.03 * (1 - level) + 0.004), **settings)

    def channels(self, seed: int, importance: str, place: int, adds: float, **columns: Any) -> dict[str, Any]:
        """A structured network of a chain, unless its columns say otherwise."""
        share = CHANNELS[place - 1]
        time = {n.LATENCY: 0.8 * (1 - share) ** 0.7, n.LATENCY_LARGE: 20 * (1 - share) ** 1.5} if self.timed else {}
        settings = {
            n.FAMILY: n.STRUCTURED, n.IMPORTANCE: importance, n.PRUNER: "base", n.SCOPE: "local", n.ROUND_TO: 1,
            n.STEP: place, n.STEPS: len(CHANNELS), n.FINE_TUNE_EPOCHS: 2, n.TOTAL_EPOCHS: 2 * place, n.EPOCHS: 2,
            n.SHAPE_ID: f"shape{1e6 * share:.0f}", n.MACS: int(DENSE_MACS * (1 - share) ** 1.9), **time, **columns,
        }  # fmt: skip
        return self.network(seed, share, 0.1 * share - adds, 1 / (1 - share) ** 1.9, **settings)

    def network(self, seed: int, level: float, loss: float, compression: float, **columns: Any) -> dict[str, Any]:
        """A network that loses so much, but for noise."""
        settings = {n.SEED: seed, n.REQUESTED_SPARSITY: level, n.SCHEDULE: "explicit", n.STEP_RATIO: None, **columns}
        # A chain's first step of weights is the one-shot network.
        first = settings.get(n.STEP, 1) == 1 and n.PRUNER not in settings
        told = {key: value for key, value in settings.items() if not first or key not in (n.STEP, n.STEPS)}
        accuracy = _dense(seed) - loss + self.noise * _gauss(json.dumps(told, sort_keys=True))
        step_id = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
        return point(**settings) | {
            n.STEP_ID: step_id, n.ACCURACY: min(1.0, max(0.1, accuracy)), n.ACCURACY_BEFORE: 0.5, n.SPARSITY: level,
            n.STORED_BYTES: int(240_000 / compression), n.COMPRESSION: compression, n.SPARSE_EPOCHS: 0,
        }  # fmt: skip


def sweep_study(
    folder: Path, sweep: Sweep | None = None, rows: Sequence[Mapping[str, Any]] | None = None, **settings: Any
) -> Path:
    """A study's folder that holds this sweep, or these rows of it."""
    usual = {
        "name": "comparison", "dense": {"epochs": 30, "learning_rate": 0.2, "warmup": 0.2},
        "retraining": {"learning_rate": 0.02},
    }  # fmt: skip
    return write_study(folder, (sweep or Sweep()).rows() if rows is None else rows, settings=usual | settings)


def _dense(seed: int) -> float:
    return SWEEP_DENSE + 0.001 * _gauss(["dense", seed])


def confirmed(folder: Path, share: float = 1.0) -> None:
    """Test accuracies of the folder's first points (all, unless ``share`` says less), half a point below validation's."""
    lines = [json.loads(line) for line in (folder / n.POINTS_FILE).read_text().splitlines()]
    once = list({line[n.STEP_ID]: line for line in lines}.values())
    kept = once[: round(share * len(once))]
    tested = [line | {n.TEST_ACCURACY: line[n.ACCURACY] - 0.005} for line in kept]
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(line) + "\n" for line in tested))


def _gauss(key: Any) -> float:
    return random.Random(json.dumps(key)).gauss(0, 1)
