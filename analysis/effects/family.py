"""The networks of one family with what is compared: how far each lies below the front, and what it adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis.load import Study
from analysis.pareto import excess, measured
from trainables.records.fronts import Floats, contributions, nondominated
from trainables.records.objectives import Objective

# What a reader calls a setting -> its column. A schedule's prefixes are schedules too, so a network's own
# number of steps is the cuts that it took, not those that its trial had planned.
SETTINGS = {
    "importance": n.IMPORTANCE,
    "pruner": n.PRUNER,
    "scope": n.SCOPE,
    "step ratio": n.STEP_RATIO,
    "steps": n.STEP,
    "retraining": n.RETRAIN,
    "fine-tune epochs": n.FINE_TUNE_EPOCHS,
    "sparse epochs": n.SPARSE_EPOCHS,
    "learning rate": n.FINE_TUNE_LR,
    "decay": n.FINE_TUNE_DECAY,
    "importance of channels": n.CHANNEL_IMPORTANCE,
    "scope of channels": n.CHANNEL_SCOPE,
    "channel ratio": n.CHANNEL_RATIO,
    "channel steps": n.CHANNEL_STEPS,
}
# Optuna asks for 5 trials in the best part, which is a quarter here.
FEWEST = 20


@dataclass(frozen=True, eq=False)
class Family:
    """The measured networks of a family and their positions, row by row."""

    name: str
    points: pd.DataFrame
    gains: Floats
    """one column for each of ``axes``: the gains over the reference"""
    axes: tuple[Objective, ...]
    """the measure, what it is shown against, then the study's other objectives"""
    objectives: tuple[Objective, ...]

    @property
    def plane(self) -> Floats:
        """The measure over the reference and the gain that it is shown against."""
        return self.gains[:, :2]

    def values(self, setting: str) -> pd.Series:
        """What each network has for a setting, missing where the setting has no effect."""
        column = self.points[SETTINGS[setting]]
        # Nought epochs of regularised training: there was none.
        return column.mask(column.eq(0)) if setting == "sparse epochs" else column

    @property
    def varied(self) -> list[str]:
        """The settings that have at least two values."""
        return [setting for setting in SETTINGS if self.values(setting).nunique() > 1]

    @property
    def enough(self) -> bool:
        """Whether there are enough networks to say what mattered."""
        return len(self.points) >= FEWEST


def families(study: Study, main: Objective) -> Iterator[Family]:
    """The families that the study has networks of; ``main`` is the objective that accuracy is shown against."""
    axes = tuple(dict.fromkeys((study.measure, main, *study.objectives)))
    usable = measured(study.steps, axes, study.dense)  # settings are compared in one stored form
    for name in n.FAMILIES:
        if study.pruned[n.FAMILY].eq(name).any():
            points = usable[usable[n.FAMILY] == name].reset_index(drop=True)
            gains = excess(points, axes, study.dense, study.accuracy_drop)
            yield Family(name, points, gains, axes, study.objectives)


def shortfall(plane: Floats) -> Floats:
    """Accuracy that each point lacks to the best at or beyond its own gain, or to the reference where that is higher.

    ``plane`` has accuracy and another gain over the reference in its columns. Without the reference, a collapsed network
    beyond the end of the front would lack nothing.
    """
    order = np.argsort(plane[:, 1], kind="stable")
    best_from = np.maximum.accumulate(plane[order[::-1], 0])[::-1]
    heights = best_from[np.searchsorted(plane[order, 1], plane[:, 1], side="left")]
    lacking: Floats = np.maximum(heights, 0.0) - plane[:, 0]
    return lacking


def contribution(gains: Floats) -> Floats:
    """Hypervolume that is lost without each point; 0 for those that others dominate or that miss the reference."""
    added = np.zeros(len(gains))
    inside = np.flatnonzero((gains > 0).all(axis=1))
    if len(inside):
        best = inside[nondominated(gains[inside], equals=True)]
        added[best] = contributions(gains[best])
    return added
