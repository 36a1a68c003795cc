"""The best recipes of a sweep, by validation accuracy, to be run again on seeds that had no part in choosing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from search.study import FinalistSettings
from trainables import names as n
from trainables.schedule import Schedule
from trainables.walk import Tree

CONTROL = "random"


def choose(settings: FinalistSettings, schedules: Iterable[Schedule], tree: Tree) -> list[Schedule]:
    """The recipes to run again, best first and then the control, each on every fresh seed.

    A recipe is a schedule but for its seed. Its score is the mean, over seeds and steps, of the accuracy that it loses
    against its own dense network; one that failed on any seed does not compete.
    """
    return [_of_seed(recipe, seed) for recipe in _chosen(settings, schedules, tree) for seed in settings.seeds]


def dropped(settings: FinalistSettings, schedules: Iterable[Schedule], tree: Tree) -> set[str]:
    """The addresses of the steps that only such recipes have as competed and aren't to run again."""
    schedules = list(schedules)
    chosen = set(_chosen(settings, schedules, tree))
    out, kept = set[str](), set[str]()
    for schedule in schedules:
        is_out = _competes(schedule, settings) and _of_seed(schedule, 0) not in chosen
        (out if is_out else kept).update(node.id for node in tree.chain(schedule))
    return out - kept


def _chosen(settings: FinalistSettings, schedules: Iterable[Schedule], tree: Tree) -> list[Schedule]:
    """The recipes of the final, as schedules of seed 0: the best first, and then the control."""
    scores = {recipe: score for recipe, score in _scores(settings, schedules, tree).items() if np.isfinite(score)}
    ranked = sorted(scores, key=lambda recipe: -scores[recipe])
    best = [recipe for recipe in ranked if recipe.importance != CONTROL][: settings.top]
    control = [recipe for recipe in ranked if recipe.importance == CONTROL and getattr(recipe, "pruner", "base") == "base"]
    return [*best, *control[:1]]


def _competes(schedule: Schedule, settings: FinalistSettings) -> bool:
    return schedule.family == settings.family and schedule.retrain != "scratch"


def _of_seed(schedule: Schedule, seed: int) -> Schedule:
    return schedule.model_copy(update={"seed": seed})


def _scores(settings: FinalistSettings, schedules: Iterable[Schedule], tree: Tree) -> Mapping[Schedule, float]:
    changes: dict[Schedule, list[float]] = defaultdict(list)
    for schedule in schedules:
        if _competes(schedule, settings):
            changes[_of_seed(schedule, 0)] += _changes(schedule, tree)
    return {recipe: float(np.mean(values)) for recipe, values in changes.items()}


def _changes(schedule: Schedule, tree: Tree) -> Sequence[float]:
    dense = tree.known(tree.problem.root(schedule.seed).id)
    records = [tree.known(node.id) for node in tree.chain(schedule)]
    return [record[n.ACCURACY] - dense[n.ACCURACY] if record and dense else np.nan for record in records]
