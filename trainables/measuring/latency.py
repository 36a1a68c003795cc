"""What belongs to a host: measured with nothing else of ours running, once for each shape under the same conditions.

Networks of one shape run equally fast in a dense runtime, masked or not; so an unstructured step has the latency of the
network that it was pruned from, and only structured steps need a measurement of their own.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from trainables.measuring.quiet import quiet
from trainables.measuring.runtimes import target_of
from trainables.measuring.targets import Timings
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.objectives import LATENCY, Objective
from trainables.records.points import fault_of
from trainables.records.untrusted import parse_json
from trainables.storage.base import Place
from trainables.storage.places import open_storage
from trainables.storage.store import to_json
from trainables.tree import Tree


class LatencyTable:
    """The latencies by one target that are stored with a study; those of other conditions are there, and never found."""

    def __init__(self, study: Place, problem: Problem, objective: Objective = LATENCY) -> None:
        self._storage, self._problem, self.objective = open_storage(study), problem, objective
        self._columns, self._target = (objective.column, *objective.fills), target_of(objective, problem)
        self.by = self._target.by

    def beside(self, point: Mapping[str, Any], dense: Mapping[str, Any], tree: Tree) -> dict[str, float]:
        """The latency columns of a point, and with them the dense network's under the same conditions."""
        return self.joined(self.of(point, tree), self.of(dense, tree))

    def joined(self, point: Mapping[str, float], dense: Mapping[str, float]) -> dict[str, float]:
        """Latencies of a network with the dense network's beside them, each in its column."""
        return {**point, **{beside: dense[column] for column, beside in self.objective.dense_columns.items()}}

    def of(self, point: Mapping[str, Any], tree: Tree) -> dict[str, float]:
        """The latencies of a network, measured now if its like hasn't been under these conditions."""
        found = self.find(point)
        if found is not None:
            return found
        # Its weights may be gone (keep: none); then it is computed again, which isn't done in quiet.
        time = self._target.ready(tree.network(tree.node(point[n.STEP_ID])), self._problem)
        with quiet():
            return self.find(point) or self._write(point, time())

    def find(self, point: Mapping[str, Any]) -> dict[str, float] | None:
        """The latencies of a network, if its like has been measured under these conditions."""
        content = self._storage.read(self._key(point))
        try:
            record = parse_json(content or b"")
            found = {column: record[column]["median_ms"] for column in self._columns}
        except (ValueError, KeyError, TypeError):
            return None
        return found if all(found.values()) and fault_of(found, (), (self.objective,), measure=None) is None else None

    def _write(self, point: Mapping[str, Any], timings: Timings) -> dict[str, float]:
        record = {"host": platform.node(), **self._conditions(point), **timings}
        self._storage.write(self._key(point), to_json(record, indent=1))
        return {column: timing["median_ms"] for column, timing in timings.items()}

    def _conditions(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._target.conditions(self._problem), self.by: point[self.by]}

    def _key(self, point: Mapping[str, Any]) -> str:
        return f"{n.LATENCY_FOLDER}/{hashlib.sha256(to_json(self._conditions(point))).hexdigest()[:16]}.json"


def tables(study: Place, problem: Problem, objectives: Iterable[Objective]) -> list[LatencyTable]:
    """A table for each objective that belongs to a host."""
    return [LatencyTable(study, problem, one) for one in objectives if one.of_host]
