"""The headline numbers of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

import trainables.records.names as n
from analysis.load import Study
from analysis.pareto import HYPERVOLUME, hypervolume

POINTS = "points"


@dataclass(frozen=True)
class Summary:
    """What a study did, and what the sharing of steps spared it."""

    trials: int
    states: Mapping[str, int]
    """state -> number of trials; empty where the study kept no record of its trials"""
    computed: int
    found: int
    epochs: float
    saved: float
    hours: float
    hypervolume: float


def summarise(study: Study) -> Summary:
    """Count what was computed, what was found, and what the front is worth."""
    walked = study.points[study.points[n.FAMILY] != n.DENSE].drop_duplicates([n.TRIAL, n.STEP_ID])
    states = study.trials[n.STATE].astype(str).value_counts().to_dict() if len(study.trials) else {}
    return Summary(
        trials=len(study.trials) or int(walked[n.TRIAL].nunique()),
        states={str(state): int(count) for state, count in states.items()},
        computed=int((~walked[n.REUSED]).sum()),
        found=int(walked[n.REUSED].sum()),
        epochs=float(walked[n.EPOCHS].sum()),
        saved=epochs_saved(walked),
        hours=float(walked[n.SECONDS].sum()) / 3600,
        hypervolume=hypervolume(study.pruned, study.objectives, study.dense, study.accuracy_drop),
    )


def epochs_saved(walked: pd.DataFrame) -> float:
    """What the trials' schedules would have cost one by one, less what was trained."""
    alone = walked.groupby(n.TRIAL)[n.TOTAL_EPOCHS].max().sum()
    return max(0.0, float(alone - walked[n.EPOCHS].sum()))


def failures(study: Study) -> pd.DataFrame:
    """The trials that failed, with the reason."""
    return study.trials.loc[study.trials[n.STATE] == n.FAILED, [n.TRIAL, n.REASON, n.SCHEDULE]]


def by_importance(study: Study) -> pd.DataFrame:
    """The hypervolume that each importance of each family reaches alone, largest first."""
    rows = [
        {
            n.FAMILY: family,
            n.IMPORTANCE: importance,
            POINTS: len(points),
            HYPERVOLUME: hypervolume(points, study.objectives, study.dense, study.accuracy_drop),
        }
        for (family, importance), points in study.pruned.groupby([n.FAMILY, n.IMPORTANCE])
    ]
    columns = [n.FAMILY, n.IMPORTANCE, POINTS, HYPERVOLUME]
    return pd.DataFrame(rows, columns=columns).sort_values(HYPERVOLUME, ascending=False).reset_index(drop=True)
