"""What a rule that stops trials would take away, were everything known already: the hardest front to come up to.

Every longest schedule of a table is walked by a rule that has seen all of the table's points. What is left is scored as
searches are: its epochs, and its front, as shares of the whole table's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FixedTrial

from benchmarks.contestants import AtTheFront, Stops, TwoPointsBelow
from benchmarks.replay import ReplayTree, Score
from benchmarks.step_table import StepTable

RULES: Mapping[str, Callable[[StepTable, Sequence[float]], Stops]] = {
    "at the front": AtTheFront,
    "2 points below": TwoPointsBelow,
}


def left_by(table: StepTable) -> dict[str, Any]:
    """For each rule and each seed of the table: the shares of epochs and of the front's hypervolume that it leaves."""
    walks = [_walk(table, params) for params in table.space.longest()]
    return {name: [_left(table, seed, rule, walks) for seed in range(len(table.dense))] for name, rule in RULES.items()}


Walk = tuple[Any, list[int], list[int]]
"""A schedule, the rows of its steps, and what each costs in epochs."""


def _walk(table: StepTable, params: Mapping[str, Any]) -> Walk:
    tree = ReplayTree(table)
    schedule = table.space.schedule(FixedTrial(dict(params)))
    nodes = table.chain(schedule)
    costs = [sum(tree.epochs_of(one) for one in node.own_nodes) for node in nodes]
    return schedule, [table.ids[node.id] for node in nodes], costs


def _left(
    table: StepTable, seed: int, rule: Callable[[StepTable, Sequence[float]], Stops], walks: Sequence[Walk]
) -> dict[str, float]:
    above = table.gains[seed] - table.reference(seed)
    works = np.isfinite(table.gains).all(axis=(0, 2, 3))
    stops = rule(table, table.reference(seed).tolist())
    for schedule, rows, _ in walks:
        for step, row in enumerate(rows, start=1):
            if works[row]:
                stops(schedule, step, above[row].tolist())
    score, worth, spent = Score(table, seed), 0.0, 0
    for schedule, rows, costs in walks:
        for step, (row, cost) in enumerate(zip(rows, costs, strict=True), start=1):
            spent += cost
            if not works[row]:
                break
            worth = score.add(row)
            if stops(schedule, step, above[row].tolist()):
                break
    total = sum(cost for _, _, costs in walks for cost in costs)
    return {"epochs": round(spent / total, 4), "hypervolume": round(worth, 4)}
