"""The columns that a comparison adds to those of the points, and the values that they can have."""

from __future__ import annotations

import pandas as pd

import trainables.records.names as n

LEVEL = "level"
"""the sparsity that was asked for: a share of the weights, or of the channels"""
RECIPE = "recipe"
"""names what is left of a schedule without its seed and its level"""
LABEL = "label"
"""the recipe for readers"""
WHO = "who"
"""the importance, with its scope where one importance has several"""
REPORTED = "reported_accuracy"
CHANGE = "accuracy_change"
"""reported accuracy less that of the dense network of the same seed"""
CHANGE_BEFORE = "accuracy_change_before"
"""the same between cut and retraining; always on validation data"""
VALIDATION_CHANGE = "validation_change"
DENSE_EPOCHS = "dense_epochs"

CONTROL = "random"
SCRATCH = "scratch"
BASE = "base"
TEST, VALIDATION = "test", "validation"
UNITS = {n.STRUCTURED: "channels", n.UNSTRUCTURED: "weights"}
"""family -> what its levels are shares of"""


def is_control(rows: pd.DataFrame) -> pd.Series:
    """Where the importance is random."""
    return rows[n.IMPORTANCE].eq(CONTROL)
