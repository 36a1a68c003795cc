"""Whether one value's front lies above another's by more than luck: chains swap their values, as if these had no effect.

A front is made of the best networks, and the value that is named is the best of several fronts. Shuffles choose in the same
way, so they know how far apart such choices come to lie when there is nothing to choose. Chains are shuffled whole, for
the steps of one are much alike (permutation tests: Good 2005; all hypotheses that contain the one in question must fall:
Marcus, Peritz and Gabriel 1976).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainables.records.fronts import Floats

Labels = npt.NDArray[np.intp]

LEVEL = 0.05
"""Share of reports on settings without effect that may name a leader; it is divided by the settings that are compared."""
SHUFFLES = 999
AT_ONCE = 2_000_000
"""Numbers that one batch of shuffles holds."""


def chances(plane: Floats, ranks: Labels, chains: Labels) -> list[float]:
    """For each value but the best, how often shuffles leave so wide a gap between the best front and the one of its rank.

    ``ranks`` says which value each network has, 0 the one whose front has the largest hypervolume; ``chains`` to which
    chain it belongs, all of one value. The first k values are shuffled among themselves, for each k that reaches the value,
    and the largest share counts: that worse values are without effect too is not known.
    """
    best = int(ranks.max(initial=0)) + 1
    observed = areas(plane, ranks[None], best)[0]
    found = [0.0] * (best - 1)
    for first in range(2, best + 1):
        among = ranks < first
        shuffled = _shuffled_gaps(plane[among], ranks[among], chains[among], first)
        for rank in range(1, first):
            as_wide = int((shuffled[:, rank] >= observed[0] - observed[rank] - 1e-12).sum())
            found[rank - 1] = max(found[rank - 1], (as_wide + 1) / (SHUFFLES + 1))
    return found


def areas(plane: Floats, labels: Labels, values: int) -> Floats:
    """Hypervolume [labelling, value] of the networks that have each value in each labelling [labelling, network]."""
    inside = (plane > 0).all(axis=1)
    order = np.argsort(-plane[inside, 1], kind="stable")
    heights, far = plane[inside][order].T
    # From a network inwards to the next, the front is as high as the best network met so far.
    widths = far - np.append(far[1:], 0.0)
    mine = labels[:, inside][:, order]
    found = np.empty((len(labels), values))
    for value in range(values):
        found[:, value] = np.maximum.accumulate(np.where(mine == value, heights, 0.0), axis=1) @ widths
    return found


def _shuffled_gaps(plane: Floats, ranks: Labels, chains: Labels, values: int) -> Floats:
    """How far each front [shuffle, rank] lies below the best of its shuffle."""
    numbers, members = np.unique(chains, return_inverse=True)
    owned = np.empty(len(numbers), np.intp)
    owned[members] = ranks
    draw = np.random.default_rng(0)
    gaps: Sequence[Floats] = [
        np.sort(-areas(plane, draw.permuted(np.tile(owned, (size, 1)), axis=1)[:, members], values), axis=1)
        for size in _batches(len(plane))
    ]
    ordered = np.concatenate(gaps)
    return np.asarray(ordered - ordered[:, :1])


def _batches(networks: int) -> list[int]:
    size = max(1, min(SHUFFLES, AT_ONCE // max(networks, 1)))
    return [min(size, SHUFFLES - begun) for begun in range(0, SHUFFLES, size)]
