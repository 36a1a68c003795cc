"""The vocabulary on disk: every file name, column and objective, each spelled once.

``trainables.records`` is all of ``trainables`` that ``analysis`` imports, so nothing in it imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names the field, the value and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """``text`` in one line, with every character that could steer a terminal spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


class StoppedError(RuntimeError):
    """The study has to stop here through no fault of its own; the message is one line, and the same command goes on."""


# Files of a study's folder, results/<study>/.
STUDY_FILE = "study.yaml"
PROVENANCE_FILE = "provenance.json"
POINTS_FILE = "points.jsonl"
TRIALS_FILE = "trials.jsonl"
CONFIRMED_FILE = "confirmed.jsonl"
OPENINGS_FILE = "openings.jsonl"
LATENCY_FOLDER = "latency"
OPTUNA_FILE = "optuna.journal"
STEPS_FOLDER = "steps"
REPORT_FOLDER = "report"
LOCK_FILE = "driver.lock"
SNAPSHOT_FILE = "snapshot.json"

# Files of one step, steps/<step id>/.
STEP_FILE = "step.json"
WEIGHTS_FILE = "model.safetensors"
REWIND_FILE = "rewind.safetensors"
TRAINING_FILE = "training.safetensors"
CLAIM_FILE = "claim.lock"

UNSTRUCTURED = "unstructured"
STRUCTURED = "structured"
DENSE = "dense"
FAMILIES = (UNSTRUCTURED, STRUCTURED)
RANDOM = "random"
"""The importance of each family that is its control."""

# Columns of points.jsonl, in order.
TRIAL = "trial"
STEP = "step"
STEP_ID = "step_id"
PARENT_ID = "parent_id"
FAMILY = "family"
IMPORTANCE = "importance"
PRUNER = "pruner"
SCOPE = "scope"
SCHEDULE = "schedule"
STEP_RATIO = "step_ratio"
STEPS = "steps"
FINE_TUNE_EPOCHS = "fine_tune_epochs"
SPARSE_EPOCHS = "sparse_epochs"
ROUND_TO = "round_to"
RETRAIN = "retrain"
SEED = "seed"
EPOCHS = "epochs"
TOTAL_EPOCHS = "total_epochs"
SECONDS = "seconds"
REUSED = "reused"
REQUESTED_SPARSITY = "requested_sparsity"
SPARSITY = "sparsity"
CHANNEL_SPARSITY = "channel_sparsity"
ACCURACY_BEFORE = "accuracy_before"
ACCURACY = "accuracy"
PARAMS = "params"
MACS = "macs"
EFFECTIVE_MACS = "effective_macs"
STORED_BYTES = "stored_bytes"
COMPRESSION = "compression"
SHAPE_ID = "shape_id"
EMPTY_LAYERS = "empty_layers"
LATENCY = "latency_ms"
LATENCY_LARGE = "latency_large_batch_ms"

# The columns that confirmed.jsonl has beside those of points.jsonl; the second only where weights were trained again and
# came out different from the network that the point tells of. It is the validation accuracy of the one that was opened.
TEST_ACCURACY = "test_accuracy"
RETRAINED_ACCURACY = "retrained_accuracy"

# The key of provenance.json that holds every run, with the conditions that it ran under.
HISTORY = "history"

# Columns of trials.jsonl (with TRIAL and SCHEDULE), and how a trial can end.
STATE = "state"
REASON = "reason"
TRIAL_COLUMNS = (TRIAL, STATE, REASON, SCHEDULE)
COMPLETE = "complete"
FAILED = "failed"
STOPPED = "stopped"

POINT_COLUMNS = (
    TRIAL, STEP, STEP_ID, PARENT_ID, FAMILY, IMPORTANCE, PRUNER, SCOPE, SCHEDULE, STEP_RATIO, STEPS, FINE_TUNE_EPOCHS,
    SPARSE_EPOCHS, ROUND_TO, RETRAIN, SEED, EPOCHS, TOTAL_EPOCHS, SECONDS, REUSED, REQUESTED_SPARSITY, SPARSITY,
    CHANNEL_SPARSITY, ACCURACY_BEFORE, ACCURACY, PARAMS, MACS, EFFECTIVE_MACS, STORED_BYTES, COMPRESSION, SHAPE_ID,
    EMPTY_LAYERS, LATENCY, LATENCY_LARGE,
)  # fmt: skip

# How far below the dense accuracy the hypervolume's fixed reference lies, unless the study file says otherwise.
REFERENCE_ACCURACY_DROP = 0.10


@dataclass(frozen=True)
class Objective:
    """A measured column turned into a gain: larger is better, and the fixed reference is ``reference(dense)``.

    Accuracy is its own gain. Every cost is a reduction against the dense network on a log2 scale (1 = halved), so that
    0, "no better than dense", is its reference.
    """

    column: str
    label: str
    gain: Callable[[float, float], float]
    """(value of the point, value of the dense network) -> gain"""


def _accuracy(value: float, _dense: float) -> float:
    return value


def _growth(value: float, dense: float) -> float:
    return math.log2(value / dense)


def _reduction(value: float, dense: float) -> float:
    return math.log2(dense / value)


# A point's compression is dense bytes / stored bytes, so the dense network's own is 1.
OBJECTIVES: Mapping[str, Objective] = {
    "accuracy": Objective(ACCURACY, "validation accuracy", _accuracy),
    "compression": Objective(COMPRESSION, "compression (dense bytes / stored bytes)", _growth),
    "macs": Objective(MACS, "MACs", _reduction),
    "params": Objective(PARAMS, "parameters kept", _reduction),
    "latency": Objective(LATENCY, "latency at batch 1 (ms)", _reduction),
}


def gains(point: Mapping[str, Any], dense: Mapping[str, Any], objectives: Sequence[str]) -> list[float]:
    """The point's gain on each objective, all to be maximised. ``dense`` is the record of the dense network."""
    table = (OBJECTIVES[name] for name in objectives)
    return [o.gain(float(point[o.column]), float(dense[o.column])) for o in table]


def reference(dense: Mapping[str, Any], objectives: Sequence[str], accuracy_drop: float) -> list[float]:
    """The hypervolume's reference point in gains: dense accuracy less ``accuracy_drop``, and no reduction at all."""
    return [float(dense[ACCURACY]) - accuracy_drop if name == "accuracy" else 0.0 for name in objectives]
