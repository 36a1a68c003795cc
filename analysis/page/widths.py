"""Where fewer channels run slower than all of them, and which ``round_to`` helps: from what a study has timed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.figures import X, on_axis
from analysis.load import Study
from trainables.records.objectives import Objective

FASTER = 1.02
"""A factor that is more than what measuring a latency again changes."""
ALIKE = 0.2
"""Networks are compared whose MACs differ by no more than this share."""
FEWEST = 3
"""Comparisons that say something about a ``round_to``."""
USUAL = 8
"""What a study that has none is advised to try: channels that the vectors of processors hold."""


def slower(study: Study, timed: Objective) -> Iterator[str]:
    """Whether networks that need fewer MACs run slower than the dense one, and what of ``round_to`` helps."""
    rows = on_axis(study.steps, study.dense, timed)
    narrow = rows[rows[n.MACS] < study.dense[n.MACS].min()]
    slow = narrow[narrow[X] < 1 / FASTER]
    if len(slow):
        least = f"{timed.noun} down to {words.times(slow[X].min())}"
        yield (
            f"Fewer multiply-accumulates for their own sake: {len(slow)} of {len(narrow)} networks that need fewer run "
            f"slower than the dense one at batch 1 ({least}), as odd widths can: {advice(narrow)}."
        )


def advice(narrow: pd.DataFrame) -> str:
    """The ``round_to`` that makes networks of about as many MACs faster, as measured; or the one to try.

    ``narrow`` are networks that need fewer MACs than the dense one, with their speed-up in column X.
    """
    steps = narrow[n.ROUND_TO].fillna(1)
    factors = {step: gains(narrow[steps == 1], narrow[steps == step]) for step in sorted(steps[steps > 1].unique())}
    known = {int(step): float(np.median(found)) for step, found in factors.items() if len(found) >= FEWEST}
    if not known:
        return f"widths in multiples may help, of which this study has too few to tell; try round_to: [1, {USUAL}]"
    best = max(known, key=lambda step: known[step])
    told = f"round_to {best} makes networks of about as many MACs {words.times(known[best])} as fast (median)"
    if known[best] < FASTER:
        return f"and no round_to of this study helps; {told}"
    share = (narrow[steps == best][X] < 1 / FASTER).mean()
    return f"{told}, and {words.percent(share, 0)} of its networks run slower than the dense one"


def gains(plain: pd.DataFrame, rounded: pd.DataFrame) -> list[float]:
    """How much faster each rounded network is than the median of the plain ones of about as many MACs."""
    found = []
    for row in rounded.to_dict("records"):
        near = plain[(plain[n.MACS] - row[n.MACS]).abs() <= ALIKE * row[n.MACS]]
        if len(near):
            found.append(float(row[X] / near[X].median()))
    return found
