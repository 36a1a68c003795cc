"""Tables of a comparison, for readers."""

from __future__ import annotations

import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison.statistics import estimate
from analysis.comparison.sweep import OF_RECIPE, VALIDATION, Sweep
from analysis.comparison.told import SPEED_UP, at, formatted, signed, unit, values
from analysis.pareto import sign
from trainables.records.contrasts import CUTTING, LEVEL
from trainables.records.objectives import Quality

UNSTRUCTURED_LEVELS, STRUCTURED_LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0.1, 0.2, 0.3, 0.4, 0.5)
"""Those of the exercise: shares of the weights, and of the channels."""
SCRATCH = "scratch"
MEAN, BYTES = "mean", n.STORED_BYTES
BUDGET = n.TOTAL_EPOCHS


def best(rows: pd.DataFrame, by: list[str], sweep: Sweep) -> pd.DataFrame:
    """For each group the rows of its best recipe by mean validation value, among those that have most seeds."""
    rows, up = rows[rows[sweep.split].notna()], sign(sweep.measure)
    recipe = [column for column in (*OF_RECIPE, BUDGET) if column not in by]
    found = []
    for _, group in rows.groupby(by, dropna=False, sort=False):
        scores = group.groupby(recipe, dropna=False, sort=False).agg(seeds=(n.SEED, "nunique"), mean=(VALIDATION, "mean"))
        scores[MEAN] *= up
        first = scores.sort_values(["seeds", MEAN], ascending=False, kind="stable").index[0]
        same = [group[c].isna() if pd.isna(value) else group[c].eq(value) for c, value in zip(recipe, first, strict=True)]
        found.append(group[pd.concat(same, axis=1).all(axis=1)])
    return pd.concat(found) if found else rows


def trained_on(sweep: Sweep) -> pd.DataFrame:
    """The networks that were pruned by a score and retrained: neither controls nor dense ones."""
    rows = sweep.pruned
    return rows[rows[n.IMPORTANCE].ne(n.RANDOM) & rows[n.RETRAIN].ne(SCRATCH)]


def levels_table(sweep: Sweep) -> pd.DataFrame:
    """The best recipe of each kind at the exercise's levels: measure, bytes, MACs, milliseconds."""
    rows, split, measure = trained_on(sweep), sweep.split, sweep.measure
    of_weights = rows[n.FAMILY].eq(n.UNSTRUCTURED) & rows[LEVEL].isin(UNSTRUCTURED_LEVELS)
    rows = rows[of_weights | (rows[n.FAMILY].eq(n.STRUCTURED) & rows[LEVEL].isin(STRUCTURED_LEVELS))]
    kinds, dense = [n.FAMILY, CUTTING, LEVEL], sweep.dense.set_index(n.SEED)[split]
    told = []
    for (family, cutting, level), group in best(rows, kinds, sweep).groupby(kinds, sort=False):
        found, one = estimate(group[split] - group[n.SEED].map(dense), sweep.step[split]), group.iloc[0]
        half = "" if pd.isna(found.low) else f" ± {signed(found.high - found.mean, measure).lstrip('+')}"
        told.append(
            {
                "pruning": f"{family}, {str(cutting).replace('_', '-')}", "removed": words.percent(level, 0),
                "recipe": " + ".join(str(one[c]) for c in (n.IMPORTANCE, n.PRUNER, n.RETRAIN) if pd.notna(one[c])),
                "epochs": words.number(one[BUDGET]), "seeds": str(found.n),
                measure.name: measure.told(group[split].mean()),
                ", ".join(filter(None, ["less dense", unit(measure)])): f"{signed(found.mean, measure)}{half}",
                "kB": f"{group[BYTES].mean() / 1000:,.0f}",
                "smaller": formatted(group[n.COMPRESSION].mean(), n.COMPRESSION, measure),
                "MACs": words.amount(group[n.MACS].mean()), "ms": words.number(group[n.LATENCY].mean()),
                "faster": formatted(values(group, SPEED_UP, sweep).mean(), SPEED_UP, measure),
            }
        )  # fmt: skip
    table = pd.DataFrame(told)
    return table.sort_values(["pruning", "removed"], ascending=[False, True], kind="stable") if len(table) else table


def frame_table(frame: pd.DataFrame, measure: Quality) -> pd.DataFrame:
    """The frame in words and rounded numbers, a row a test."""
    rows = frame.to_dict("records")
    return pd.DataFrame(
        {
            "left less right": [f"{row['left']} less {row['right']}" for row in rows],
            "at": [at(row["of"]) for row in rows],
            "left": [measure.told(row["left_mean"]) for row in rows],
            "right": [measure.told(row["right_mean"]) for row in rows],
            "difference": [signed(row["estimate"], measure) for row in rows],
            "95% interval": [
                words.MISSING if pd.isna(row["low"]) else f"{signed(row['low'], measure)} to {signed(row['high'], measure)}"
                for row in rows
            ],
            "n": [str(row["n"]) for row in rows],
            "p (Holm)": [words.MISSING if pd.isna(row["adjusted_p"]) else f"{row['adjusted_p']:.2g}" for row in rows],
            "noise": [
                words.MISSING if pd.isna(row["noise_floor"]) else signed(row["noise_floor"], measure).lstrip("+")
                for row in rows
            ],
            "verdict": [row["verdict"] for row in rows],
            "seeds": [concluding(row) for row in rows],
            "split": [row["split"] for row in rows],
            "also differ": [row["differs"] or "nothing" for row in rows],
        }
    )


def concluding(row: dict[object, object]) -> str:
    """Whether a test concludes, and if not why."""
    if row["concludes"]:
        return "conclude"
    roles = row["roles"]
    assert isinstance(roles, list)
    return f"do not conclude ({', '.join(roles) or 'too few'})"
