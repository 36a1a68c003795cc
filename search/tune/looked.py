"""What a study knows from looks: read from the store, where workers put them, and from the points on record."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping

from search.records.ledger import Ledger
from trainables.records import names as n
from trainables.schedule import Schedule
from trainables.tree import Tree


class Looked:
    """The looks of a study, of which ``addresses`` are those that there can be.

    What was looked at in an earlier run is found at the start; later, what trials were asked to look at.
    """

    def __init__(self, tree: Tree, ledger: Ledger, addresses: Iterable[Hashable]) -> None:
        self._tree, self._ledger = tree, ledger
        self._waited_for: set[str] = set(tree.store.looks()).intersection(map(str, addresses))
        self._found: dict[Hashable, float] = {}
        self._rows = 0

    def wait_for(self, schedules: Iterable[Schedule]) -> None:
        """The last steps of these are being looked at."""
        asked = {self._tree.looks(schedule)[-1].id for schedule in schedules}
        self._waited_for |= asked - self._found.keys()

    def found(self) -> Mapping[Hashable, float]:
        """What is known so far: the measure by the address of a look, and of a computed step of its own cut's look."""
        for address in sorted(self._waited_for):
            if (value := self._tree.looked(address)) is not None:
                self._waited_for.discard(address)
                self._found[address] = value
        column = self._ledger.measure.recalibrated
        for row in self._ledger.points[self._rows :]:
            if (value := row.get(column)) is not None and not math.isnan(value):
                self._found[row[n.STEP_ID]] = value
        self._rows = len(self._ledger.points)
        return self._found
