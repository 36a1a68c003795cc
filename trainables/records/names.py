"""The vocabulary on disk: every file name and column, each spelled once.

``trainables.records`` is all of ``trainables`` that ``analysis`` imports, so nothing in it imports torch.
"""

from __future__ import annotations


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
ASKED_FILE = "asked.jsonl"
POINTS_FILE = "points.jsonl"
TRIALS_FILE = "trials.jsonl"
CONFIRMED_FILE = "confirmed.jsonl"
OPENINGS_FILE = "openings.jsonl"
CONFIRMATION_FOLDER = "confirmation"  # a study of its own: the front's members again, on fresh seeds
AGAIN_FILE = "again.jsonl"  # there, which network is whose
METHODS_FILE = "methods.json"
LATENCY_FOLDER = "latency"
SENSITIVITY_FILE = "sensitivity.jsonl"
OPTUNA_FILE = "optuna.journal"
STEPS_FOLDER = "steps"
REPORT_FOLDER = "report"
LOGS_FOLDER = "logs"
LOCK_FILE = "driver.lock"
SNAPSHOT_FILE = "snapshot.json"

# Files of one step, steps/<step id>/.
STEP_FILE = "step.json"
LOOK_FILE = "look.json"  # at the address of a step that cuts and only recalibrates, whether that step is there or not
PACKED_FILE = "records.jsonl.gz"  # beside the steps' folders, the records of those that were packed
WEIGHTS_FILE = "model.safetensors"
REWIND_FILE = "rewind.safetensors"
TRAINING_FILE = "training.safetensors"
CLAIM_FILE = "claim.lock"

UNSTRUCTURED = "unstructured"
STRUCTURED = "structured"
MIXED = "mixed"
DENSE = "dense"
FAMILIES = (UNSTRUCTURED, STRUCTURED, MIXED)
# Stored forms and the formats of their files. What doesn't say otherwise is the step's own file, fp32 in safetensors.
FP32 = "fp32"
SAFETENSORS = "safetensors"
COMPACT = "compact"
FORMS = "forms"
"""Of a step's record: what was measured of each form. Of a trial's result: the points of further forms. Of a row of
Optuna's study: the values of each form."""

RANDOM = "random"
"""The importance of each family that is its control."""

LOOKS = "looks"
"""Of a trial's config: the schedules whose last cuts it is to look at before its own first step."""

# Columns of points.jsonl, in order.
TRIAL = "trial"
STEP = "step"
STEP_ID = "step_id"
FORM = "form"
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
STRENGTH = "strength"
"""Of the penalty, as a multiple of the study's; none where the study's was taken as it is."""
ROUND_TO = "round_to"
RETRAIN = "retrain"
# Of the cuts of channels before those of weights, in one schedule.
CHANNEL_IMPORTANCE = "channel_importance"
CHANNEL_SCOPE = "channel_scope"
CHANNEL_RATIO = "channel_ratio"
CHANNEL_STEPS = "channel_steps"
FINE_TUNE_LR = "fine_tune_lr"
FINE_TUNE_DECAY = "fine_tune_decay"
SEED = "seed"
EPOCHS = "epochs"
TOTAL_EPOCHS = "total_epochs"
SECONDS = "seconds"
REUSED = "reused"
REQUESTED_SPARSITY = "requested_sparsity"
SPARSITY = "sparsity"
CHANNEL_SPARSITY = "channel_sparsity"
ACCURACY_BEFORE = "accuracy_before"
ACCURACY_RECALIBRATED = "accuracy_recalibrated"
ACCURACY = "accuracy"
PARAMS = "params"
MACS = "macs"
EFFECTIVE_MACS = "effective_macs"
STORED_BYTES = "stored_bytes"
STORED_FORMAT = "stored_format"
COMPRESSION = "compression"
SHAPE_ID = "shape_id"
EMPTY_LAYERS = "empty_layers"
LATENCY = "latency_ms"
LATENCY_LARGE = "latency_large_batch_ms"
# The dense network's, measured where the point's were and under the same conditions.
LATENCY_DENSE = "latency_dense_ms"
LATENCY_LARGE_DENSE = "latency_large_batch_dense_ms"

# The columns that confirmed.jsonl has beside those of points.jsonl; the second only where weights were trained again and
# came out different from the network that the point tells of. It is the validation accuracy of the one that was opened.
TEST_ACCURACY = "test_accuracy"
RETRAINED_ACCURACY = "retrained_accuracy"

# The columns of sensitivity.jsonl that points have none of: what was cut alone, by its first layer, with all layers that
# lost something; the share of it that went; and what the dense network's measure is, with its standard error.
LAYER = "layer"
LAYERS = "layers"
SHARE = "share"
DENSE_VALUE = "dense_value"
NOISE = "noise"

# The key of provenance.json that holds every run, with the conditions that it ran under.
HISTORY = "history"
BEGAN = "began"
"""When the last run began, and how many trials and epochs there were."""
PROTECTED = "protected"
"""The part of provenance that says what of the network stays whole."""

# Columns of trials.jsonl (with TRIAL, SCHEDULE, and in STEP the last step that was done), and how a trial can end.
STATE = "state"
REASON = "reason"
TRIAL_COLUMNS = (TRIAL, STATE, STEP, REASON, SCHEDULE)
COMPLETE = "complete"
FAILED = "failed"
STOPPED = "stopped"

POINT_COLUMNS = (
    TRIAL, STEP, STEP_ID, FORM, PARENT_ID, FAMILY, IMPORTANCE, PRUNER, SCOPE, SCHEDULE, STEP_RATIO, STEPS, FINE_TUNE_EPOCHS,
    SPARSE_EPOCHS, STRENGTH, ROUND_TO, CHANNEL_IMPORTANCE, CHANNEL_SCOPE, CHANNEL_RATIO, CHANNEL_STEPS, RETRAIN,
    FINE_TUNE_LR, FINE_TUNE_DECAY, SEED, EPOCHS, TOTAL_EPOCHS, SECONDS, REUSED, REQUESTED_SPARSITY, SPARSITY,
    CHANNEL_SPARSITY, ACCURACY_BEFORE, ACCURACY_RECALIBRATED, ACCURACY, PARAMS, MACS, EFFECTIVE_MACS, STORED_BYTES,
    STORED_FORMAT, COMPRESSION, SHAPE_ID, EMPTY_LAYERS, LATENCY, LATENCY_LARGE, LATENCY_DENSE, LATENCY_LARGE_DENSE,
)  # fmt: skip

COUNTED = (ACCURACY, STORED_BYTES, PARAMS, MACS)
"""What is measured of every network, whatever a study's objectives are."""

# How far below the dense accuracy the hypervolume's fixed reference lies, unless the study file says otherwise.
REFERENCE_ACCURACY_DROP = 0.10
