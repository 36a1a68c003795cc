"""The rows of a sweep made ready to be compared: within seeds, by recipe and level, on one split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis.columns import point_ids
from analysis.comparison import sentences as say
from analysis.comparison.columns import (
    BASE,
    CHANGE,
    CHANGE_BEFORE,
    DENSE_EPOCHS,
    LABEL,
    LEVEL,
    RECIPE,
    REPORTED,
    SCRATCH,
    TEST,
    VALIDATION,
    VALIDATION_CHANGE,
    WHO,
    is_control,
)
from analysis.comparison.questions.ranking import equal_budget, ranked
from analysis.comparison.statistics import STEP_SIZE, step_of
from analysis.confirmed import Confirmed, load_confirmed
from analysis.load import TIMES, Study
from trainables.records.words import RETRAINING

# A recipe is what is left of a schedule without its seed and its level.
RECIPE_COLUMNS = (
    n.FAMILY, n.IMPORTANCE, n.PRUNER, n.SCOPE, n.ROUND_TO, n.SCHEDULE, n.STEP_RATIO, n.STEPS, n.FINE_TUNE_EPOCHS,
    n.SPARSE_EPOCHS, n.RETRAIN,
)  # fmt: skip
DETAILS: Mapping[str, Callable[[Any], str]] = {
    n.SCOPE: str,
    n.STEPS: lambda value: f"{value:g} steps",
    n.RETRAIN: lambda value: RETRAINING.get(value, str(value)),
    n.FINE_TUNE_EPOCHS: lambda value: f"{say.epochs(value)} a step",
    n.SPARSE_EPOCHS: lambda value: f"{say.epochs(value)} of sparse training a step",
    n.SCHEDULE: str,
    n.STEP_RATIO: lambda value: f"{100 * value:g}% of what remains a step",
    n.ROUND_TO: lambda value: f"widths in multiples of {value:g}",
}


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep's networks, each once for every recipe that it is a step of, with its change against its dense network."""

    study: Study
    rows: pd.DataFrame
    dense: pd.DataFrame
    fresh: frozenset[int]
    """the seeds that had no part in choosing recipes"""
    split: str
    """whose accuracies REPORTED and CHANGE hold: those of all networks, never a mixture"""
    confirmed: int
    """how many of the ``compared`` networks have a test accuracy"""
    compared: int
    others: int
    """how many of the confirmed were trained again and came out different from what their points tell"""

    @property
    def top(self) -> int | None:
        """How many recipes the study runs again on the fresh seeds; None where its settings do not say."""
        section = self.study.settings.get("finalists")
        top = section.get("top") if isinstance(section, dict) else None
        return top if isinstance(top, int) and not isinstance(top, bool) and top > 0 else None

    @property
    def one_shot(self) -> pd.DataFrame:
        """Unstructured, one cut."""
        return self._unstructured[self._unstructured[n.STEPS] == 1]

    @property
    def iterative(self) -> pd.DataFrame:
        """Unstructured, several cuts."""
        return self._unstructured[self._unstructured[n.STEPS] > 1]

    @property
    def structured(self) -> pd.DataFrame:
        """Structured, pruned from the trained network, at the budget that most recipes have at their level.

        Only recipes whose accuracies are known on the split that is reported.
        """
        rows = equal_budget(structured(self.rows))[0]
        return rows[~rows[RECIPE].isin(rows.loc[rows[REPORTED].isna(), RECIPE])]

    @property
    def scratch(self) -> pd.DataFrame:
        """The control: pruned shapes trained from scratch."""
        return self.rows[(self.rows[n.FAMILY] == n.STRUCTURED) & (self.rows[n.RETRAIN] == SCRATCH)]

    @property
    def _unstructured(self) -> pd.DataFrame:
        return self.rows[(self.rows[n.FAMILY] == n.UNSTRUCTURED) & (self.rows[n.RETRAIN] != SCRATCH)]

    def selection(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of the seeds that choose."""
        return rows[~rows[n.SEED].isin(self.fresh)]

    def confirmation(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of the fresh seeds."""
        return rows[rows[n.SEED].isin(self.fresh)]


def structured(rows: pd.DataFrame) -> pd.DataFrame:
    """The structured networks that were pruned from a trained one."""
    return rows[(rows[n.FAMILY] == n.STRUCTURED) & (rows[n.RETRAIN] != SCRATCH)]


def load_sweep(study: Study) -> Sweep:
    """The study's rows; on the test split where it is known of every network that a conclusion rests on."""
    rows, fresh, confirmed = _rows(study), _fresh(study.settings), load_confirmed(study.folder)
    compared = {*point_ids(_compared(rows, fresh)), *point_ids(study.dense)}
    opened = [confirmed[step_id] for step_id in compared if step_id in confirmed]
    split = TEST if len(opened) == len(compared) else VALIDATION
    dense = study.dense.assign(**{REPORTED: _reported(study.dense, confirmed, split)})
    rows = rows.assign(**{REPORTED: _reported(rows, confirmed, split)})
    rows[CHANGE] = rows[REPORTED] - rows[n.SEED].map(dense.set_index(n.SEED)[REPORTED])
    # Where both splits are spoken of, the coarser step: that errs on the side of doubt.
    accuracies = [(frame[n.ACCURACY], frame[REPORTED]) for frame in (dense, rows)]
    rows[STEP_SIZE] = max(step_of(*of_split) for of_split in zip(*accuracies, strict=True))
    others = sum(network.other for network in opened)
    return Sweep(study, rows, dense, fresh, split, len(opened), len(compared), others)


def _compared(rows: pd.DataFrame, fresh: frozenset[int]) -> pd.DataFrame:
    # Recipes that selection dropped are told by the validation numbers that dropped them, so they need no others.
    kept = structured(rows)
    choosing, confirming = kept[~kept[n.SEED].isin(fresh)], kept[kept[n.SEED].isin(fresh)]
    chosen = ranked(equal_budget(choosing)[0])[:1]
    chosen = [] if len(confirming) else chosen  # the final has it, unless another budget or a failure kept it out
    named = {*confirming[RECIPE], *chosen, *choosing.loc[is_control(choosing) & choosing[n.PRUNER].eq(BASE), RECIPE]}
    dropped = choosing[~choosing[RECIPE].isin(named)]
    return rows.drop(index=dropped.index)


def _rows(study: Study) -> pd.DataFrame:
    # A chain's first step can be a one-shot network as well: it is then a row of both recipes.
    # Of a network in several stored forms, the first.
    rows = study.points[(study.points[n.FAMILY] != n.DENSE) & (study.points[n.FORM] == study.forms[0])].copy()
    rows[LEVEL] = rows[n.REQUESTED_SPARSITY].fillna(rows[n.SPARSITY]).round(4)
    rows[n.STEPS] = rows[n.STEPS].fillna(1)
    rows[RECIPE] = [_recipe(row) for row in rows[list(RECIPE_COLUMNS)].to_dict("records")]
    rows = rows.drop_duplicates([n.STEP_ID, RECIPE, n.SEED]).reset_index(drop=True)
    rows[LABEL] = _labels(rows)
    rows[WHO] = _who(rows)
    dense = study.dense.set_index(n.SEED)
    rows[DENSE_EPOCHS] = rows[n.SEED].map(dense[n.EPOCHS])
    rows[VALIDATION_CHANGE] = rows[n.ACCURACY] - rows[n.SEED].map(dense[n.ACCURACY])
    rows[CHANGE_BEFORE] = rows[n.ACCURACY_BEFORE] - rows[n.SEED].map(dense[n.ACCURACY])
    return _timed(rows, study)


def _recipe(row: Mapping[Any, Any]) -> str:
    # One cut is told by its level alone, whichever kind of schedule asked for it.
    idle = (n.SCHEDULE, n.STEP_RATIO) if row[n.STEPS] == 1 else ()
    values = {c: None if c in idle or pd.isna(row[c]) else row[c] for c in RECIPE_COLUMNS}
    return json.dumps(values, default=int)


def _labels(rows: pd.DataFrame) -> pd.Series:
    """Importance and pruner, with those other settings in which recipes of equal importance and pruner differ."""
    first = rows.drop_duplicates(RECIPE).set_index(RECIPE)
    pruners = first[n.PRUNER].map(lambda pruner: "" if pd.isna(pruner) else f" + {pruner}")
    importances = first[n.IMPORTANCE].fillna("no importance").astype(str)
    names: dict[str, str] = {str(recipe): name for recipe, name in (importances + pruners).items()}
    kinds = (
        first[n.FAMILY]
        + importances
        + pruners
        + first[n.STEPS].gt(1).astype(str)
        + first[n.RETRAIN].eq(SCRATCH).astype(str)
    )
    for _, group in first.groupby(kinds, sort=False):
        varied = [column for column in DETAILS if group[column].nunique(dropna=False) > 1]
        for recipe, row in group.iterrows():
            details = [DETAILS[column](row[column]) for column in varied if pd.notna(row[column])]
            names[str(recipe)] = f"{names[str(recipe)]} ({', '.join(details)})" if details else names[str(recipe)]
    return rows[RECIPE].map(names)


def _who(rows: pd.DataFrame) -> pd.Series:
    importance = rows[n.IMPORTANCE].fillna("no importance").astype(str)
    several = rows.groupby([n.FAMILY, n.IMPORTANCE], dropna=False)[n.SCOPE].transform("nunique") > 1
    return importance.where(~several, importance + " (" + rows[n.SCOPE].astype(str) + ")")


def _timed(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Latencies filled in from networks of the same shape, because those run equally fast in a dense runtime."""
    for key, timed in ((n.STEP_ID, study.pruned), (n.SHAPE_ID, study.points)):
        known = timed[timed[n.LATENCY].gt(0) & timed[key].notna()].drop_duplicates(key).set_index(key)
        lacking = rows[n.LATENCY].isna()
        for column in TIMES:  # all of them from one row, because the dense network's belong to the point's
            rows[column] = rows[column].where(~lacking, rows[key].map(known[column]))
    return rows


def _reported(rows: pd.DataFrame, confirmed: Mapping[str, Confirmed], split: str) -> pd.Series:
    if split == VALIDATION:
        return rows[n.ACCURACY]
    return point_ids(rows).map({point: network.accuracy for point, network in confirmed.items()}).astype(np.float64)


def _fresh(settings: Mapping[str, Any]) -> frozenset[int]:
    section = settings.get("finalists")
    seeds = section.get("seeds") if isinstance(section, dict) else None
    return frozenset(seed for seed in seeds if isinstance(seed, int)) if isinstance(seeds, list) else frozenset()
