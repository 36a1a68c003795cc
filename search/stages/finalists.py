"""The best recipes of a sweep, by validation accuracy, to be run again on seeds that had no part in choosing them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search.records.ledger import Ledger
from search.records.recovery import schedule_of
from search.study import FinalistSettings
from trainables.node import Node
from trainables.pruning.pruners import PRUNERS
from trainables.records import names as n
from trainables.schedule import FAMILIES, Schedule, StructuredSchedule
from trainables.tree import Tree

WHO = (n.IMPORTANCE, n.PRUNER)


@dataclass(frozen=True)
class Final:
    """Who runs again. A recipe is a schedule but for its seed, and stands here as the schedule of seed 0.

    Accuracies are those of the points: a record can change where lost weights are trained again on another machine, and the
    choice must not change with it.
    """

    settings: FinalistSettings
    schedules: Sequence[Schedule]
    tree: Tree
    ledger: Ledger

    @cached_property
    def recipes(self) -> list[Schedule]:
        """The recipes of the final, best first, and then the plain control.

        A recipe's score is the mean, over seeds and steps, of the accuracy that it loses against its own dense network.
        """
        scores = {recipe: score for recipe, score in self._scores.items() if np.isfinite(score)}
        ranked = sorted(scores, key=lambda recipe: -scores[recipe])
        best = [recipe for recipe in ranked if not _by_control(recipe)][: self.settings.top]
        return [*best, *[recipe for recipe in ranked if _is_control(recipe)][:1]]

    @property
    def fresh(self) -> list[Schedule]:
        """What is to run: each recipe of the final on every fresh seed."""
        return [_of_seed(recipe, seed) for recipe in self.recipes for seed in self.settings.seeds]

    @property
    def unscored(self) -> list[Schedule]:
        """The recipes that don't compete, because a schedule of theirs failed, or has yet to run."""
        return [recipe for recipe, score in self._scores.items() if not np.isfinite(score)]

    @property
    def undecided(self) -> bool:
        """Whether a schedule that competes has still to run: its points aren't all there, and none of its steps failed."""
        return any(
            not np.isfinite(self._changes(schedule)).all() and self._failed.isdisjoint(self._steps(schedule))
            for schedule in self.schedules
            if self.settings.compete(schedule)
        )

    def dropped(self) -> set[str]:
        """The addresses of the steps that only such recipes have as competed and aren't to run again.

        The plain control is never dropped, nor is anything unstructured, of which a comparison asks more than who is best.
        As long as it is undecided who runs again, all others are: they may be yet.
        """
        if not FAMILIES[self.settings.family].finalists_alone:
            return set()
        chosen = set[Schedule]() if self.undecided else {*self.recipes}
        out, kept = set[str](), set[str]()
        for schedule in self.schedules:
            recipe = _of_seed(schedule, 0)
            is_out = self.settings.compete(schedule) and recipe not in chosen and not _is_control(recipe)
            (out if is_out else kept).update(self._steps(schedule))
        return out - kept

    def told(self) -> Iterator[str]:
        """The final in words: who is in it, and who could not compete."""
        names = "; ".join(map(self._name, self.recipes))
        yield f"Again on seeds {', '.join(map(str, self.settings.seeds))}: {names or 'none'}."
        if self.unscored:
            yield f"Not among those that compete, because a schedule failed: {'; '.join(map(self._name, self.unscored))}."

    def _name(self, recipe: Schedule) -> str:
        """Importance and pruner, and whatever else differs among those that compete."""
        rows = [one.columns() for one in self._scores]
        varied = [name for name in rows[0] if name not in WHO and len({str(row[name]) for row in rows}) > 1]
        columns = recipe.columns()
        told = ", ".join(f"{name} {columns[name]}" for name in varied)
        return " + ".join(str(columns[name]) for name in WHO if columns[name]) + (f" ({told})" if told else "")

    @cached_property
    def _scores(self) -> Mapping[Schedule, float]:
        changes = dict[Schedule, list[float]]()
        for schedule in self.schedules:
            if self.settings.compete(schedule):
                changes.setdefault(_of_seed(schedule, 0), []).extend(self._changes(schedule))
        return {recipe: float(np.mean(values)) for recipe, values in changes.items()}

    def _changes(self, schedule: Schedule) -> list[float]:
        measure, nothing = self.ledger.measure, np.nan
        dense = self.ledger.dense.get(schedule.seed, {}).get(measure.column, nothing)
        values = [self._accuracies.get(step_id, nothing) for step_id in self._steps(schedule)]
        return [measure.gain(value, dense) - measure.gain(dense, dense) for value in values] or [nothing]

    def _steps(self, schedule: Schedule) -> list[str]:
        """The addresses of its steps; none where its dense network isn't on record."""
        root = self._roots.get(schedule.seed)
        return [node.id for node in self.tree.problem.chain(schedule, root)] if root else []

    @cached_property
    def _roots(self) -> Mapping[int, Node]:
        """The dense networks that were pruned: another machine, or other versions, would give them other addresses."""
        found = {seed: self.tree.known(row[n.STEP_ID]) for seed, row in self.ledger.dense.items()}
        return {seed: Node(None, record["settings"]) for seed, record in found.items() if record}

    @cached_property
    def _failed(self) -> set[str]:
        """The step at which each failed trial ended: another schedule that needs it is not tried."""
        trials = [schedule_of(row) for row in self.ledger.trials if row[n.STATE] == n.FAILED]
        steps = [self._steps(trial[1]) for trial in trials if trial]
        return {next((step_id for step_id in own if step_id not in self._accuracies), "") for own in steps}

    @cached_property
    def _accuracies(self) -> Mapping[str, float]:
        # Of a step that several trials report, the first point: later ones may tell of weights that were trained again.
        return {row[n.STEP_ID]: row[self.ledger.measure.column] for row in reversed(self.ledger.points)}


def _is_control(recipe: Schedule) -> bool:
    """Whether it is the plain control: cut by chance, and not prepared by a training."""
    return _by_control(recipe) and not (isinstance(recipe, StructuredSchedule) and PRUNERS[recipe.pruner].regularises)


def _by_control(recipe: Schedule) -> bool:
    return bool(recipe.importances[recipe.importance].control)


def _of_seed(schedule: Schedule, seed: int) -> Schedule:
    return schedule.model_copy(update={"seed": seed})
