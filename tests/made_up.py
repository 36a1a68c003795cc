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


LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
MATCHED = (0.5, 0.8, 0.9, 0.95)
CHANNELS = (0.1, 0.2, 0.3, 0.4, 0.5)
SCORES = {"lamp": 0.9, "taylor": 0.8, "magnitude_l2": 1.0, "fpgm": 1.1, "random": 2.2}
PRUNERS = {"base": 1.0, "group_norm": 1.25, "growing_reg": 1.15}
SWEEP_DENSE = 0.91


@dataclass(frozen=True)
class Sweep:
    """A made-up sweep of one-shot, iterative and structured pruning; its fields say who wins, and by how much."""

    seeds: tuple[int, ...] = (0, 1, 2)
    fresh: tuple[int, ...] = (10, 11, 12, 13, 14)
    noise: float = 0.0006
    iterative: float = 0.5
    """share of one-shot's loss at equal epochs that iterative pruning avoids; negative where it loses more"""
    rewinding: float = 0.35
    scores: Mapping[str, float] = field(default_factory=lambda: dict(SCORES))
    pruners: Mapping[str, float] = field(default_factory=lambda: dict(PRUNERS))
    turning: Mapping[str, float] = field(default_factory=dict)
    """importance -> how much dearer it is at few channels and cheaper at many"""
    finalists: tuple[tuple[str, str], ...] = (
        ("taylor", "base"),
        ("lamp", "base"),
        ("taylor", "growing_reg"),
        ("random", "base"),
    )
    channel_cost: float = 0.07
    weight_cost: float = 0.0022
    scratch: float = 0.008
    """what training from scratch loses on pruning"""
    timed: bool = True

    def rows(self) -> list[dict[str, Any]]:
        """All lines of points.jsonl."""
        return [row for seed in self.seeds for row in self.choosing(seed)] + [
            r for s in self.fresh for r in self.confirming(s)
        ]

    def choosing(self, seed: int) -> list[dict[str, Any]]:
        """The lines of a seed that chooses."""
        rows = [self.dense(seed)]
        for importance, retrain in (("magnitude", "fine_tune"), ("magnitude", "lr_rewind"), ("random", "fine_tune")):
            rows += [self.weights(seed, importance, retrain, level, 2) for level in LEVELS]
            rows += [self.weights(seed, importance, retrain, level, 2, step) for step, level in enumerate(LEVELS, start=1)]
            if importance != "random":
                rows += [self.weights(seed, importance, retrain, a, 2 * (LEVELS.index(a) + 1)) for a in MATCHED]
        recipes = [(importance, pruner) for importance in self.scores for pruner in self.pruners]
        rows += [self.channels(seed, *recipe, step) for recipe in recipes for step in range(1, len(CHANNELS) + 1)]
        return rows + [self.from_scratch(seed, step) for step in range(1, len(CHANNELS) + 1)]

    def confirming(self, seed: int) -> list[dict[str, Any]]:
        """The lines of a fresh seed."""
        steps = range(1, len(CHANNELS) + 1)
        return [self.dense(seed), *(self.channels(seed, *recipe, step) for recipe in self.finalists for step in steps)]

    def dense(self, seed: int) -> dict[str, Any]:
        """The dense network of a seed."""
        time = {n.LATENCY: 0.8, n.LATENCY_LARGE: 20.0} if self.timed else {n.LATENCY: None, n.LATENCY_LARGE: None}
        accuracy = SWEEP_DENSE + 0.003 * _gauss(["dense", seed])
        return dense(**{n.SEED: seed, n.STEP_ID: f"dense{seed}", n.ACCURACY: accuracy, n.EPOCHS: 30, n.TOTAL_EPOCHS: 0}) | {
            n.ACCURACY_BEFORE: accuracy, n.SHAPE_ID: "dense", n.SECONDS: 600.0, **time,
        }  # fmt: skip

    def weights(self, seed: int, importance: str, retrain: str, level: float, epochs: int, step: int = 0) -> dict[str, Any]:
        """An unstructured network: of the chain, at this step, or one-shot."""
        total, chain = epochs * max(step, 1), step > 1
        worth = (2 / total) ** 0.2 * (1 - self.rewinding * (retrain == "lr_rewind")) * (1 - self.iterative * chain)
        loss = self.weight_cost * ((1 / (1 - level)) ** 1.1 - 1) * worth * (4 if importance == "random" else 1)
        kept = 1 - level
        compression = 1 / min(kept + 1 / 32 + 0.004, 1.3 * kept + 0.004)
        return self._point(
            _settings(seed, importance, retrain, level, total),
            identity=step if chain else 0, loss=loss, before=4 * loss, kept=kept, compression=compression,
        ) | {
            n.STEP: max(step, 1), n.STEPS: len(LEVELS) if step else 1, n.SCHEDULE: "explicit", n.STEP_RATIO: None,
            n.FINE_TUNE_EPOCHS: epochs, n.EPOCHS: epochs, n.SECONDS: 25.0 * epochs, n.SHAPE_ID: "dense",
        }  # fmt: skip

    def channels(self, seed: int, importance: str, pruner: str, step: int) -> dict[str, Any]:
        """A structured network of a chain."""
        share = CHANNELS[step - 1]
        turned = 1 + self.turning.get(importance, 0.0) * (0.3 - share) / 0.2
        loss = self.channel_cost * share**1.3 * self.scores[importance] * self.pruners[pruner] * turned
        regularised = pruner != "base"
        return self._channels(seed, importance, "fine_tune", share, loss, 3 * step, f"{pruner}{step}") | {
            n.PRUNER: pruner, n.STEP: step, n.STEPS: len(CHANNELS), n.FINE_TUNE_EPOCHS: 2 if regularised else 3,
            n.SPARSE_EPOCHS: int(regularised), n.STEP_ID: address(f"{seed}-{importance}-{pruner}-{step}"),
        }  # fmt: skip

    def from_scratch(self, seed: int, step: int) -> dict[str, Any]:
        """The shape of a chain's step, trained from scratch."""
        share, best = CHANNELS[step - 1], min(self.scores.values())
        loss = self.channel_cost * share**1.3 * best + self.scratch
        return self._channels(seed, "magnitude_l2", "scratch", share, loss, 30 + 3 * step, "scratch") | {
            n.PRUNER: "base", n.STEP: 1, n.STEPS: 1, n.FINE_TUNE_EPOCHS: 30 + 3 * step, n.SPARSE_EPOCHS: 0,
        }  # fmt: skip

    def _channels(
        self, seed: int, importance: str, retrain: str, share: float, loss: float, total: int, identity: str
    ) -> dict[str, Any]:
        kept = (1 - share) ** 2
        time = {n.LATENCY: 0.8 * (1 - share) ** 0.7, n.LATENCY_LARGE: 20 * (1 - share) ** 1.5} if self.timed else {}
        return self._point(
            _settings(seed, importance, retrain, share, total),
            identity=identity, loss=loss, before=6 * loss, kept=kept, compression=1 / (kept + 0.004),
        ) | {
            n.FAMILY: n.STRUCTURED, n.SCOPE: "local", n.ROUND_TO: 1, n.SCHEDULE: "explicit", n.STEP_RATIO: None,
            n.SHAPE_ID: f"shape{1e6 * share:.0f}", n.MACS: int(DENSE_MACS * (1 - share) ** 1.9), n.EPOCHS: 3,
            n.SECONDS: 60.0, **time,
        }  # fmt: skip

    def _point(
        self, settings: dict[str, Any], identity: int | str, loss: float, before: float, kept: float, compression: float
    ) -> dict[str, Any]:
        key = [settings, identity]
        step_id = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        root = SWEEP_DENSE + 0.003 * _gauss(["dense", settings[n.SEED]])
        accuracy = root - loss + 0.002 + self.noise * _gauss([key, loss])
        return point(**settings) | {
            n.STEP_ID: step_id, n.ACCURACY: min(1.0, max(0.1, accuracy)), n.ACCURACY_BEFORE: max(0.1, root - before),
            n.SPARSITY: 1 - kept, n.PARAMS: int(DENSE_PARAMS * kept), n.STORED_BYTES: int(240_000 / compression),
            n.COMPRESSION: compression, n.SPARSE_EPOCHS: 0,
        }  # fmt: skip


def sweep_study(folder: Path, sweep: Sweep | None = None, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """A study's folder that holds this sweep, or these rows of it."""
    sweep = sweep or Sweep()
    top = sum(importance != "random" for importance, _ in sweep.finalists)
    settings = {"name": "comparison", "finalists": {"family": n.STRUCTURED, "top": top, "seeds": list(sweep.fresh)}}
    return write_study(folder, sweep.rows() if rows is None else rows, settings=settings)


def first_hour(rows: Sequence[Mapping[str, Any]], *, matched: bool) -> list[Mapping[str, Any]]:
    """The rows that are there first: no finalist, nothing from scratch, no regularised pruner, no random weights.

    ``matched`` says whether the one-shot networks of a chain's epochs have run.
    """
    return [
        row
        for row in rows
        if row[n.SEED] < min(Sweep().fresh)
        and row[n.RETRAIN] != "scratch"
        and row[n.PRUNER] in (None, "base")
        and (row[n.FAMILY] != n.UNSTRUCTURED or row[n.IMPORTANCE] != "random")
        and (matched or row[n.FAMILY] != n.UNSTRUCTURED or row[n.STEPS] > 1 or row[n.FINE_TUNE_EPOCHS] == 2)
    ]


def confirmed(folder: Path, share: float = 1.0) -> None:
    """Test accuracies of the folder's first points (all, unless ``share`` says less), half a point below validation's."""
    lines = [json.loads(line) for line in (folder / n.POINTS_FILE).read_text().splitlines()]
    once = list({line[n.STEP_ID]: line for line in lines}.values())
    kept = once[: round(share * len(once))]
    tested = [line | {n.TEST_ACCURACY: line[n.ACCURACY] - 0.005} for line in kept]
    (folder / n.CONFIRMED_FILE).write_text("".join(json.dumps(line) + "\n" for line in tested))


def _gauss(key: Any) -> float:
    return random.Random(json.dumps(key)).gauss(0, 1)


def _settings(seed: int, importance: str, retrain: str, level: float, total: int) -> dict[str, Any]:
    values = (seed, importance, retrain, level, total)
    return dict(zip((n.SEED, n.IMPORTANCE, n.RETRAIN, n.REQUESTED_SPARSITY, n.TOTAL_EPOCHS), values, strict=True))
