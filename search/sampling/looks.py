"""What looks at cuts tell a sampler: the measure of a cut with BatchNorm recalibrated, before any epoch is paid for it.

A look is of a cut and of what it is cut from, so all candidates that differ in their retraining alone share it. A step that
was computed has looked at its own cut.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np

from search.sampling.step_tree import Flags, Floats, Integers, StepTree


@dataclass(frozen=True)
class Looks:
    """How many looks a trial may have, and what is known from looks already."""

    budget: int = 0
    found: Mapping[Hashable, float] = field(default_factory=dict)
    """The measure by the address of a look, and by that of a step that was computed."""

    def seen(self, tree: StepTree, told: Integers) -> Floats:
        """What is known of the cut of each candidate; NaN where nothing is. Of those ``told`` it is their own cut's.

        What lies far out is brought to Tukey's outer fences: a measure may have no bounds, and how bad a bad cut is must
        not hide what tells the others apart.
        """
        by_look = np.array([self.found.get(address, np.nan) for address in tree.looks] + [np.nan])
        own = np.array([self.found.get(tree.candidates[number].chain[-1], np.nan) for number in told])
        for number in np.flatnonzero(np.isfinite(own)):  # a sibling's cut is a look at one's own
            look = tree.look[told[number]]
            by_look[look] = own[number] if np.isnan(by_look[look]) else by_look[look]
        by_look[-1] = np.nan
        found = by_look[tree.look]
        found[told] = np.where(np.isnan(own), found[told], own)
        if (finite := found[np.isfinite(found)]).size:
            low, high = np.quantile(finite, [0.25, 0.75])
            found = found.clip(low - 3 * (high - low), high + 3 * (high - low))
        return found

    def wanted(self, tree: StepTree, rates: Floats, seen: Floats, told: Integers, busy: Integers) -> list[int]:
        """The candidates that are worth a look, at most the budget: the next steps of the chains that promise most.

        What they are cut from must be there. ``busy`` are candidates that are computed anyway.
        """
        done = np.zeros(len(tree.parent), bool)
        done[tree.node[told]] = True
        done = tree.up(done)
        known = np.array([address in self.found for address in tree.looks] + [False])
        ready = self._ready(tree, done) & np.isnan(seen) & ~known[tree.look]
        taken = set(tree.look[busy].tolist())
        found: list[int] = []
        for node in np.argsort(-rates, kind="stable"):
            if len(found) >= self.budget or rates[node] <= 0:
                break
            first = next((one for one in tree.path(int(tree.point[node])) if not done[one]), None)
            number = -1 if first is None else int(tree.point[first])
            if number >= 0 and ready[number] and tree.look[number] not in taken:
                taken.add(int(tree.look[number]))
                found.append(number)
        return found

    def _ready(self, tree: StepTree, done: Flags) -> Flags:
        parent = tree.parent[tree.node]
        return np.asarray((tree.look >= 0) & ((parent < 0) | done[parent]))
