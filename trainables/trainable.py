"""The Ray Tune trainables; all that they wrap is plain PyTorch (``trainables.tree``).

Each ``step()`` is one pruning step. A trial's config is a schedule's fields, flat, so the classes work in anybody's Tuner::

    trainable = tune.with_parameters(UnstructuredTrainable, problem=problem, folder=Path("steps").absolute())
    tune.Tuner(trainable, param_space={"step_ratio": tune.grid_search([0.3, 0.5]), "steps": 3}).fit()

Nothing lasting lives in Ray's state: a trial that starts again finds its finished steps in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ray import tune

from trainables.measuring.chosen import objective
from trainables.measuring.latency import tables
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.objectives import COMPRESSION, gains
from trainables.schedule import FAMILIES, Schedule
from trainables.settings import parse
from trainables.storage.base import Place, above
from trainables.storage.store import Store
from trainables.tree import Tree


def gain_metric(objective: str) -> str:
    """The metric in a trial's results that holds its gain on an objective; all gains are maximised."""
    return f"gain_{objective}"


def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a trial's schedule, from its config."""
    return {key: value for key, value in config.items() if key not in (n.TRIAL, n.LOOKS)}


def points_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The points of a step in all stored forms, from a trial's result."""
    return [result, *result.get(n.FORMS, ())]


class PruningTrainable(tune.Trainable):
    """One trial: a schedule of the family that its config names."""

    family: ClassVar[str | None] = None

    def setup(
        self,
        config: dict[str, Any],
        problem: Problem | None = None,
        folder: Place = "",
        dense: Mapping[str, bytes] | None = None,
        objectives: Sequence[str] | None = None,
        reuse: Sequence[Place] = (),
        run: int | None = None,
        forms: Sequence[str] = (n.FP32,),
    ) -> None:
        """All comes once, through ``tune.with_parameters``.

        ``folder`` (or a URL), ``dense`` weights, ``reuse`` and ``run`` are the store's. Without ``objectives`` they are the
        task's measure and compression.
        """
        assert problem is not None, "give the problem with tune.with_parameters(..., problem=...)"
        measure = problem.data.task.quality
        wanted = (measure.name, COMPRESSION.name) if objectives is None else objectives
        self._objectives = tuple(objective(name, measure, trusted=problem.trusted) for name in wanted)
        store = Store(folder, dense or {}, tuple(reuse), run)
        self._tree = Tree(problem, store, objectives=self._objectives, forms=forms)
        self._latencies = tables(above(folder), problem, self._objectives)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve another trial with the same data in memory."""
        self._begin(new_config)
        return True

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._trial = config.get(n.TRIAL)
        schedule = self._parsed(fields_of(config))
        self._tree.problem.check(schedule)
        self._schedule, self._nodes, self._done = schedule, self._tree.chain(schedule), 0
        self._to_look_at = [self._parsed(fields) for fields in config.get(n.LOOKS, ())]

    def _parsed(self, fields: Mapping[str, Any]) -> Schedule:
        family = self.family or fields.get("family", n.UNSTRUCTURED)
        trusted = self._tree.problem.trusted
        return parse(FAMILIES[family], {**fields, "family": family}, "the trial's config", trusted=trusted)

    def step(self) -> dict[str, Any]:
        """Take one pruning step; the result is its point, its gains on the objectives, and ``done`` at the last.

        The points of further stored forms, with their gains, are a list of their own in it (``points_of``).
        """
        while self._to_look_at:
            self._tree.look(self._to_look_at.pop())
        node = self._nodes[self._done]
        self._done += 1
        points = self._tree.points(node, self._schedule, self._done, self._trial)
        dense = self._tree.dense_point(self._schedule.seed)
        for table in self._latencies:
            times = table.beside(points[0], dense, self._tree)
            points = [{**point, **times} for point in points]
        first, *further = ({**point, **self._gains(point, dense), n.TRIAL: self._trial} for point in points)
        return {**first, **({n.FORMS: further} if further else {}), "done": self._done == len(self._nodes)}

    def _gains(self, point: Mapping[str, Any], dense: Mapping[str, Any]) -> dict[str, float]:
        values = gains(point, dense, self._objectives)
        return {gain_metric(one.name): value for one, value in zip(self._objectives, values, strict=True)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: every finished step is in the store already."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, for the same reason."""


class UnstructuredTrainable(PruningTrainable):
    """Iterative unstructured pruning as a trainable of its own."""

    family = "unstructured"


class MixedTrainable(PruningTrainable):
    """Channels first, then weights, as a trainable of its own."""

    family = "mixed"


class StructuredTrainable(PruningTrainable):
    """Iterative structured pruning as a trainable of its own."""

    family = "structured"
