"""What the marginal fronts come to, in sentences made from their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import words
from analysis.effects.importances import CHANCE, FRONT, SETTING, SHARE, TARGET
from analysis.effects.marginals import BEHIND, FEWEST_OF_VALUE, LUCK, NETWORKS, VALUE
from analysis.pareto import HYPERVOLUME, ROUNDING
from trainables.records.objectives import ACCURACY, MAXIMISE, Objective, Quality

MOST_NAMED = 5
NO_DIFFERENCE = "no difference that this search can tell"


def validation_images(provenance: Mapping[str, Any]) -> int | None:
    """How many images an accuracy was measured on, where the study recorded it."""
    data = provenance.get("data")
    images = data.get("validation_images") if isinstance(data, dict) else None
    return images if isinstance(images, int) and not isinstance(images, bool) and images > 0 else None


def verdict(
    rows: pd.DataFrame,
    error: float | None,
    images: int | None,
    where: str,
    level: float,
    measure: Quality = ACCURACY,
) -> str:
    """Which value of one setting leads, and whether its lead is more than noise; ``rows`` are those of the setting.

    A lead is one if it exceeds ``error``, which all networks share with their validation images, and if at most a share
    ``level`` of the shuffles leaves one as wide, which the choice among values and the scatter of networks explain.
    """
    known = rows[rows[NETWORKS] >= FEWEST_OF_VALUE].to_dict("records")
    few = [value_text(row[SETTING], row[VALUE]) for row in rows[rows[NETWORKS] < FEWEST_OF_VALUE].to_dict("records")]
    left_out = f" Not compared, with fewer than {FEWEST_OF_VALUE} networks: {_listed(few)}." if few else ""
    if len(known) < 2:
        return f"fewer than two values have the {FEWEST_OF_VALUE} networks that a comparison needs.{left_out}"
    if known[0][HYPERVOLUME] <= 0:
        return f"{NO_DIFFERENCE}: no network lies beyond the reference of the hypervolume.{left_out}"
    behind = [row[BEHIND] - known[0][BEHIND] for row in known]
    margin = max(error or 0.0, ROUNDING)
    tied = [rank for rank in range(1, len(known)) if behind[rank] <= margin or known[rank][LUCK] > level]
    near = max(tied, default=0) + 1
    told = _tie(known, behind, near, measure) if near > 1 else _leader(known, behind, where, measure)
    return f"{told}; {_by_luck(known[max(near - 1, 1)][LUCK], level)}{_noise(error, images, measure)}{left_out}"


def deciding(table: pd.DataFrame) -> str:
    """Which settings decided what a network is worth to the front, in one sentence."""
    rows = table[table[TARGET] == FRONT].sort_values(SHARE, ascending=False, kind="stable")
    clear = [f"{row[SETTING]} ({100 * row[SHARE]:.0f}%)" for row in rows[rows[SHARE] > rows[CHANCE]].to_dict("records")]
    if not clear:
        return "No setting mattered more to the front than in shuffled networks."
    return f"What mattered to the front, more than in shuffled networks: {_listed(clear)}."


def value_text(setting: str, value: Any) -> str:
    """A setting's value as a reader sees it."""
    if isinstance(value, str):
        return value if len(value) <= 40 else f"{value[:39]}\N{HORIZONTAL ELLIPSIS}"
    return f"{100 * value:g}%" if setting.endswith("ratio") else f"{value:g}"


def points(difference: float, measure: Quality = ACCURACY) -> str:
    """A difference of a measure: of a share 0.0063 -> "0.63 points"."""
    if measure.is_share:
        return f"{100 * difference:.2f} points"
    return f"{difference:.3g}" + (f" {measure.unit}" if measure.unit else "")


def over(main: Objective, doublings: float) -> str:
    """The range over which fronts are averaged."""
    return f"on average over {main.noun} up to {words.times(2**doublings)} (log scale)"


def _leader(known: Sequence[Mapping[Any, Any]], behind: Sequence[float], where: str, measure: Quality) -> str:
    above = "above" if measure.direction == MAXIMISE else "better than"
    lead = f"{points(behind[1], measure)} of {measure.name} {above} that of {_named(known[1])}"
    return f"{_named(known[0])} leads: {where}, its front lies {lead}"


def _tie(known: Sequence[Mapping[Any, Any]], behind: Sequence[float], near: int, measure: Quality) -> str:
    apart = points(behind[near - 1], measure)
    level = f"{NO_DIFFERENCE} between {_listed([_named(row) for row in known[:near]])}, {apart} apart"
    rest = [f"{_named(row)}, by {points(gap, measure)}" for row, gap in zip(known[near:], behind[near:], strict=True)]
    return f"{level}; behind the first: {_listed(rest)}" if rest else level


def _by_luck(share: float, level: float) -> str:
    """How often shuffles come as far apart, beside how seldom they must for a lead."""
    return f"shuffled networks come as far apart in {share:.1%} of the shuffles (a lead: in {level:.1%} at most)"


def _noise(error: float | None, images: int | None, measure: Quality) -> str:
    if error is None or images is None:
        return ". How many validation images there were is not recorded, so their noise could not be considered."
    what, size = f"{measure.article} {measure.name} on {images:,} validation images", points(error, measure)
    return f". The standard error of {what} is {size}, and no lead is smaller."


def _named(row: Mapping[Any, Any]) -> str:
    return f"{value_text(row[SETTING], row[VALUE])} [{row[NETWORKS]}]"


def _listed(parts: Sequence[str]) -> str:
    shown = [*parts[:MOST_NAMED], f"{len(parts) - MOST_NAMED} more"] if len(parts) > MOST_NAMED else list(parts)
    return shown[0] if len(shown) == 1 else f"{'; '.join(shown[:-1])} and {shown[-1]}"
