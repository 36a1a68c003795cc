"""The networks of a sweep made ready to be compared: columns made of others, both splits, and the roles of seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

import trainables.records.names as n
from analysis.columns import point_ids
from analysis.comparison.statistics import step_of
from analysis.confirmed import load_confirmed
from analysis.load import TIMES, Study
from trainables.records.contrasts import (
    BEFORE,
    CUTTING,
    ITERATIVE,
    LEVEL,
    ONE_SHOT,
    PEAK_LR,
    Comparison,
    Contrast,
    declared,
    unknown,
)
from trainables.records.objectives import Quality
from trainables.records.points import LARGEST

USUAL = Path(__file__).parent.parent / "templates" / "contrasts.yaml"
"""What is compared where a study declares nothing: the exercise's questions."""
TEST, VALIDATION = "test", "validation"
ROLE = "role"
"""why a seed does not conclude; missing where it does"""
FRESH = "fresh"
HALF_A_POINT = 0.005
OF_RECIPE = (
    n.FAMILY, n.IMPORTANCE, n.PRUNER, n.SCOPE, n.ROUND_TO, CUTTING, n.STEPS, n.SCHEDULE, n.RETRAIN, PEAK_LR,
    n.FINE_TUNE_EPOCHS, n.SPARSE_EPOCHS, n.STRENGTH,
)  # fmt: skip
"""What is left of a schedule without its seed and its level."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """All networks, dense ones among them, each once for every schedule that it is a step of."""

    study: Study
    declared: Comparison
    rows: pd.DataFrame
    step: Mapping[str, float]
    """of the values of each split: one image, where the measure counts them"""
    usual: bool
    """whether the study declares no contrasts, so that the exercise's are asked"""

    @property
    def dense(self) -> pd.DataFrame:
        """The dense networks."""
        return self.rows[self.rows[n.FAMILY] == n.DENSE]

    @property
    def pruned(self) -> pd.DataFrame:
        """All others."""
        return self.rows[self.rows[n.FAMILY] != n.DENSE]

    @property
    def split(self) -> str:
        """Whose values tables and figures show: the test split's once it was opened."""
        return TEST if self.rows[TEST].notna().any() else VALIDATION

    @property
    def measure(self) -> Quality:
        """What is compared."""
        return self.study.measure

    def margin(self, contrast: Contrast) -> float:
        """Differences within it are equivalent, in the measure's unit."""
        usual = HALF_A_POINT if self.measure.is_share else self.study.accuracy_drop / 20
        return usual if contrast.margin is None else contrast.margin

    def where(self, where: Mapping[str, Any], told: str) -> pd.DataFrame:
        """The networks that have these values; InputError if there are none."""
        found = self.rows
        for column, value in where.items():
            wanted = value if isinstance(value, list | tuple) else [value]
            known = self.rows[column].dropna().unique().tolist()
            if lacking := [one for one in wanted if one is not None and not _among(self.rows[column], one).any()]:
                remedy = unknown(str(lacking[0]), _texts(known))
                raise n.InputError(f"{told}: {column}: no network of this study has {lacking[0]!r}; {remedy}")
            found = found[np.logical_or.reduce([_among(found[column], one) for one in wanted])]
        if found.empty:
            raise n.InputError(f"{told}: matches no network: {dict(where)}; leave one of them out, or run such schedules")
        return found


def _among(column: pd.Series, value: Any) -> Any:
    if value is None:
        return column.isna()
    if isinstance(value, str) != (column.dtype == object or pd.api.types.is_string_dtype(column)):
        return pd.Series(False, index=column.index)
    if isinstance(value, str):
        return column.eq(value).fillna(False)
    return pd.Series(np.isclose(column.to_numpy(dtype=float, na_value=np.nan), value), index=column.index)


def _texts(values: list[Any]) -> list[str]:
    return [one if isinstance(one, str) else f"{one:g}" for one in sorted(values)[:20]]


def load_sweep(study: Study) -> Sweep:
    """The study's networks and what it declares."""
    comparison = declared(study.settings, study.folder / n.STUDY_FILE)
    if usual := comparison.contrasts is None:
        asked = declared(yaml.safe_load(USUAL.read_text(encoding="utf-8")), USUAL)
        comparison = comparison.model_copy(update={"arms": {**asked.arms, **comparison.arms}, "contrasts": asked.contrasts})
    rows = pd.concat([study.dense, _pruned(study)], ignore_index=True)
    rows[LEVEL] = rows[n.REQUESTED_SPARSITY].fillna(rows[n.SPARSITY]).round(4)
    rows[CUTTING] = np.where(rows[n.STEPS].fillna(0).gt(1), ITERATIVE, ONE_SHOT)
    rows.loc[rows[n.FAMILY] == n.DENSE, CUTTING] = None
    rows[PEAK_LR] = _peaks(rows, study.settings)
    rows[VALIDATION], rows[BEFORE] = rows[study.measure.column], rows[study.measure.before]
    tested = {point: one.value for point, one in load_confirmed(study.folder, study.measure).items()}
    rows[TEST] = point_ids(rows).map(tested).astype(np.float64)
    rows = _timed(rows.drop_duplicates([n.STEP_ID, n.SEED, *OF_RECIPE]).reset_index(drop=True), study)
    steps = {split: step_of(rows[split]) if study.measure.counted else 0.0 for split in (TEST, VALIDATION)}
    sweep = Sweep(study, comparison, rows, steps, usual)
    rows[ROLE] = None
    for part in comparison.seeds:
        chosen = sweep.where(part.where, f"seeds.{part.role}") if part.where else rows
        rows.loc[chosen.index[chosen[n.SEED].isin(part.seeds)], ROLE] = part.role
    return sweep


def _pruned(study: Study) -> pd.DataFrame:
    # A chain's first step can be a one-shot network as well: it is then a row of both schedules.
    rows = study.points[(study.points[n.FAMILY] != n.DENSE) & (study.points[n.FORM] == study.forms[0])].copy()
    rows[n.STEPS] = rows[n.STEPS].fillna(1)
    rows[n.STRENGTH] = rows[n.STRENGTH].mask(rows[n.STRENGTH].isna() & rows[n.SPARSE_EPOCHS].gt(0), 1.0)
    return rows


def _peaks(rows: pd.DataFrame, settings: Mapping[str, Any]) -> list[float]:
    dense, retraining = (section(settings, name) for name in ("dense", "retraining"))
    return [_peak(row, dense, retraining) for row in rows.to_dict("records")]


def section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a study's settings; empty where there is none."""
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _peak(row: Mapping[Any, Any], dense: Mapping[str, Any], retraining: Mapping[str, Any]) -> float:
    """The largest learning rate of a network's retraining; NaN where it has none, or the settings don't tell."""
    epochs = row[n.FINE_TUNE_EPOCHS]
    peak, total, warmup = (_number(dense.get(key)) for key in ("learning_rate", "epochs", "warmup"))
    if pd.isna(epochs) or not epochs:
        return np.nan
    if row[n.RETRAIN] == "lr_rewind":  # from its highest point on the schedule falls linearly to 0
        return float(min(peak, peak * epochs / (total * (1 - warmup)))) if total * (1 - warmup) > 0 else np.nan
    if row[n.RETRAIN] == "scratch":
        return peak
    return float(row[n.FINE_TUNE_LR]) if pd.notna(row[n.FINE_TUNE_LR]) else _number(retraining.get("learning_rate"))


def _number(value: Any) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    return float(value) if known else np.nan


def _timed(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Latencies filled in from networks of the same shape, because those run equally fast in a dense runtime."""
    for key, timed in ((n.STEP_ID, study.pruned), (n.SHAPE_ID, study.points)):
        known = timed[timed[n.LATENCY].gt(0) & timed[key].notna()].drop_duplicates(key).set_index(key)
        lacking = rows[n.LATENCY].isna()
        for column in TIMES:  # all of them from one row, because the dense network's belong to the point's
            rows[column] = rows[column].where(~lacking, rows[key].map(known[column]))
    dense = rows[rows[n.FAMILY] == n.DENSE].set_index(n.SEED)
    for own, of_dense in ((n.LATENCY, n.LATENCY_DENSE), (n.LATENCY_LARGE, n.LATENCY_LARGE_DENSE)):
        rows[of_dense] = rows[of_dense].fillna(rows[n.SEED].map(dense[own]))  # what older studies don't tell
    return rows
