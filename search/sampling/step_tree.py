"""Candidates that share their beginnings, as the arrays that a sampler counts with. Nothing here knows of pruning.

A candidate is a setting of an Optuna study's parameters whose evaluation is a chain of steps. Each step has an address
and a cost, and a step that is done is never paid for again. The last step of a chain is the candidate's own point.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """What can be asked for. ``hints`` are numbers known beforehand that its values may depend on."""

    params: Mapping[str, Any]
    chain: tuple[Hashable, ...]
    """Addresses of its steps in order; the last is its own, the others may be other candidates' or nobody's."""
    hints: tuple[float, ...] = ()
    look: Hashable | None = None
    """Address of the look at its last step, which others may share; None where there can be none."""


class StepTree:
    """All steps of some candidates, parents before children, with the candidate (or -1) whose point each step is."""

    def __init__(self, candidates: Iterable[Candidate], costs: Mapping[Hashable, float]) -> None:
        self.candidates: list[Candidate] = []
        self._number: dict[Hashable, int] = {}
        own: dict[Hashable, int] = {}
        for candidate in candidates:  # those that differ in settings without an effect are one
            number = own.setdefault(candidate.chain[-1], len(self.candidates))
            if number == len(self.candidates):
                self.candidates.append(candidate)
            self._number[key_of(candidate.params)] = number
        nodes: dict[Hashable, int] = {}
        parent, depth = [], []
        for candidate in self.candidates:
            before = -1
            for level, address in enumerate(candidate.chain):
                if address not in nodes:
                    nodes[address] = len(nodes)
                    parent.append(before)
                    depth.append(level)
                before = nodes[address]
        self.parent: Integers = np.array(parent, np.int64)
        self.depth: Integers = np.array(depth, np.int64)
        self.cost: Floats = np.array([costs[address] for address in nodes], np.float64)
        self.node: Integers = np.array([nodes[candidate.chain[-1]] for candidate in self.candidates], np.int64)
        """The node of each candidate's point."""
        self.point: Integers = np.full(len(nodes), -1, np.int64)
        self.point[self.node] = np.arange(len(self.candidates))
        self.looks = list(dict.fromkeys(one.look for one in self.candidates if one.look is not None))
        """The addresses of looks."""
        numbers = {address: number for number, address in enumerate(self.looks)}
        self.look: Integers = np.array([numbers.get(one.look, -1) for one in self.candidates], np.int64)
        """The number of the look at each candidate's last step, or -1."""
        self.levels = [np.flatnonzero(self.depth == level) for level in range(int(self.depth.max(initial=-1)) + 1)]
        self.features = _standardised(np.hstack([encode([one.params for one in self.candidates]), self._shape()]))

    def number(self, params: Mapping[str, Any]) -> int | None:
        """Which candidate has these parameters."""
        return self._number.get(key_of(params))

    def path(self, candidate: int) -> list[int]:
        """The nodes of a candidate's chain, the first step first."""
        node, path = int(self.node[candidate]), []
        while node >= 0:
            path.append(node)
            node = int(self.parent[node])
        return path[::-1]

    def down(self, flags: Flags) -> Flags:
        """The nodes that are flagged, and all below them."""
        flags = flags.copy()
        for nodes in self.levels[1:]:
            flags[nodes] |= flags[self.parent[nodes]]
        return flags

    def up(self, flags: Flags) -> Flags:
        """The nodes that are flagged, and all above them."""
        flags = flags.copy()
        for nodes in self.levels[:0:-1]:
            flags[self.parent[nodes[flags[nodes]]]] = True
        return flags

    def new_cost(self, known: Flags) -> Floats:
        """What it costs to reach each node when the known ones cost nothing any more."""
        cost = np.where(known, 0.0, self.cost)
        for nodes in self.levels[1:]:
            cost[nodes] += cost[self.parent[nodes]] * ~known[nodes]
        return cost

    def _shape(self) -> Floats:
        """For each candidate: points on its chain, logarithms of what the chain and its last step cost, and its hints."""
        points = (self.point >= 0).astype(np.float64)
        total = self.new_cost(np.zeros(len(self.cost), bool))
        for nodes in self.levels[1:]:
            points[nodes] += points[self.parent[nodes]]
        hints = [np.array(column, np.float64) for column in zip(*(one.hints for one in self.candidates), strict=True)]
        costs = np.log2(1 + np.column_stack([total[self.node], self.cost[self.node]]))
        return np.column_stack([points[self.node], costs, *hints])


def key_of(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The same for equal parameters in any order."""
    return tuple(sorted(params.items()))


def encode(params: Sequence[Mapping[str, Any]]) -> Floats:
    """Numbers as they are (0 where a candidate doesn't have the parameter), anything else one column a value.

    Parameters of the same name after the last dot share columns, so that what is learnt of ``a.x`` serves for ``b.x``.
    """
    shared = [{name.rpartition(".")[2]: value for name, value in one.items() if value is not None} for one in params]
    columns = []
    for name in dict.fromkeys(name for one in shared for name in one):
        values = [one.get(name) for one in shared]
        given = [value for value in values if value is not None]
        if all(isinstance(value, int | float) for value in given):
            columns.append([0.0 if value is None else float(value) for value in values])
        else:
            columns += [[float(value == choice) for value in values] for choice in dict.fromkeys(given)]
    return np.array(columns, np.float64).reshape(len(columns), len(params)).T


def _standardised(features: Floats) -> Floats:
    """Columns of mean 0 and variance 1, without those that are the same everywhere."""
    if not len(features):
        return features
    spread = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0))[:, spread > 0] / spread[spread > 0])
