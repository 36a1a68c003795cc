"""How many trials run at once; apart from what looks at the nodes, which workers import that need none of Tune."""

from __future__ import annotations

import time
from typing import Any

from ray.tune.search import ConcurrencyLimiter, Searcher

from search.cluster.nodes import alive
from search.study import ResourceSettings

LOOK_AGAIN = 2.0
"""Seconds between two looks at which nodes there are."""


class AsManyAsFit(ConcurrencyLimiter):
    """No more trials at once than fit on the nodes, which are looked up again: one may join late, and one may die.

    What is asked for in advance is asked for without the results that are under way, so nothing is.
    """

    def __init__(self, searcher: Searcher, resources: ResourceSettings) -> None:
        self._resources = resources
        self._looked = time.monotonic()
        super().__init__(searcher, max_concurrent=self._fitting())

    def _fitting(self) -> int:
        return max(1, sum(node.room(self._resources) for node in alive()))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The searcher's next proposal, or None while no more trials fit."""
        if time.monotonic() - self._looked > LOOK_AGAIN:
            self._looked, self.max_concurrent = time.monotonic(), self._fitting()
        found: dict[str, Any] | None = super().suggest(trial_id)
        return found
