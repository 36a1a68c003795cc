"""What each value of a setting reached with the networks that have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import trainables.names as n
from analysis.mattered.family import Family, shortfall
from analysis.mattered.importances import SETTING
from analysis.pareto import HYPERVOLUME, Floats, volume

# Those whose fronts are shown; of steps each network has passed through the smaller ones.
SHOWN = ("importance", "pruner", "scope", "step ratio", "retraining", "fine-tune epochs", "sparse epochs")
VALUE, NETWORKS, SHORTFALL, BEHIND, EVEN = "value", "networks", "median_shortfall", "behind", "even_hypervolume"
COLUMNS = (n.FAMILY, SETTING, VALUE, NETWORKS, HYPERVOLUME, SHORTFALL, BEHIND, EVEN)
# With fewer networks, the best of them says more about luck than about their setting.
FEWEST_OF_VALUE = 5
DRAWS = 40


def span(family: Family) -> float:
    """The largest gain against which a network of the family keeps more than the reference accuracy; 0 if none does."""
    inside = family.plane[family.plane[:, 0] > 0]
    return max(0.0, float(inside[:, 1].max())) if len(inside) else 0.0


def marginals(family: Family) -> pd.DataFrame:
    """A row for each value of each setting that varies, the largest hypervolume of each setting first.

    ``behind`` is how far the value's front lies below the best value's front in accuracy, both taken no lower than the
    reference, on average over the doublings that the family's front spans: their hypervolumes' difference by the span.
    ``even_hypervolume`` is, divided by the span too, the mean over random draws of as many networks as the value with the
    fewest has, of those with at least FEWEST_OF_VALUE: the best of many are better than the best of few by luck alone.
    """
    lacking = shortfall(family.plane)
    rows = [row for setting in SHOWN if setting in family.varied for row in _rows(family, setting, lacking)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    best = table.groupby(SETTING)[HYPERVOLUME].transform("max")
    wide = span(family) or 1.0
    return table.assign(**{BEHIND: (best - table[HYPERVOLUME]) / wide, EVEN: table[EVEN] / wide})


def _rows(family: Family, setting: str, lacking: Floats) -> list[dict[str, Any]]:
    column = family.values(setting)
    values = sorted(column.dropna().astype(object).unique())
    members = {value: column.eq(value).to_numpy(dtype=bool, na_value=False) for value in values}
    even = min((int(m.sum()) for m in members.values() if m.sum() >= FEWEST_OF_VALUE), default=0)
    rows = [
        {
            n.FAMILY: family.name, SETTING: setting, VALUE: value, NETWORKS: int(mine.sum()),
            HYPERVOLUME: volume(family.plane[mine]), SHORTFALL: float(np.median(lacking[mine])),
            EVEN: _mean_volume(family.plane[mine], even),
        }
        for value, mine in members.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row[HYPERVOLUME])


def _mean_volume(plane: Floats, size: int) -> float:
    if len(plane) <= size:
        return volume(plane)
    draw = np.random.default_rng(0)
    return float(np.mean([volume(plane[draw.choice(len(plane), size, replace=False)]) for _ in range(DRAWS)]))
