"""What each value of a setting reached with the networks that have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import trainables.records.names as n
from analysis.effects.family import Family, shortfall
from analysis.effects.importances import SETTING, chains_of
from analysis.effects.permutation import chances
from analysis.pareto import HYPERVOLUME
from trainables.records.fronts import Floats, volume

Flags = npt.NDArray[np.bool_]

# Those whose fronts are shown; of steps each network has passed through the smaller ones.
SHOWN = (
    "importance", "pruner", "scope", "step ratio", "retraining", "fine-tune epochs", "sparse epochs", "learning rate",
    "decay", "importance of channels", "scope of channels", "channel ratio", "channel steps",
)  # fmt: skip
VALUE, NETWORKS, SHORTFALL, BEHIND, LUCK = "value", "networks", "median_shortfall", "behind", "by_luck"
COLUMNS = (n.FAMILY, SETTING, VALUE, NETWORKS, HYPERVOLUME, SHORTFALL, BEHIND, LUCK)
# With fewer networks, the best of them says more about luck than about their setting.
FEWEST_OF_VALUE = 5


def span(family: Family) -> float:
    """The largest gain against which a network of the family keeps more than the reference accuracy; 0 if none does."""
    inside = family.plane[family.plane[:, 0] > 0]
    return max(0.0, float(inside[:, 1].max())) if len(inside) else 0.0


def marginals(family: Family) -> pd.DataFrame:
    """A row for each value of each setting that varies, the largest hypervolume of each setting first.

    ``behind`` is how far the value's front lies below the best value's front in accuracy, both taken no lower than the
    reference, on average over the doublings that the family's front spans: their hypervolumes' difference by the span.
    ``by_luck`` is the share of shuffles that leave as wide a gap (``effects.permutation``), among the values with at
    least FEWEST_OF_VALUE networks; missing for the others and the best.
    """
    lacking = shortfall(family.plane)
    rows = [row for setting in SHOWN if setting in family.varied for row in _rows(family, setting, lacking)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    best = table.groupby(SETTING)[HYPERVOLUME].transform("max")
    wide = span(family) or 1.0
    return table.assign(**{BEHIND: (best - table[HYPERVOLUME]) / wide})


def _rows(family: Family, setting: str, lacking: Floats) -> list[dict[str, Any]]:
    column = family.values(setting)
    values = sorted(column.dropna().astype(object).unique())
    members = {value: column.eq(value).to_numpy(dtype=bool, na_value=False) for value in values}
    rows = [
        {
            n.FAMILY: family.name, SETTING: setting, VALUE: value, NETWORKS: int(mine.sum()),
            HYPERVOLUME: volume(family.plane[mine]), SHORTFALL: float(np.median(lacking[mine])),
        }
        for value, mine in members.items()
    ]  # fmt: skip
    rows.sort(key=lambda row: -row[HYPERVOLUME])
    ranked = [row[VALUE] for row in rows if row[NETWORKS] >= FEWEST_OF_VALUE]
    luck = _luck(family, [members[value] for value in ranked])
    return [row | {LUCK: luck[ranked.index(row[VALUE])] if row[VALUE] in ranked else None} for row in rows]


def _luck(family: Family, ranked: Sequence[Flags]) -> list[float | None]:
    if len(ranked) < 2:
        return [None] * len(ranked)
    compared = np.any(ranked, axis=0)
    ranks = np.argmax(ranked, axis=0)[compared]
    return [None, *chances(family.plane[compared], ranks, chains_of(family)[compared])]
