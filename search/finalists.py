"""The best recipes of a sweep, by validation accuracy, to be run again on seeds that had no part in choosing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

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


def undecided(settings: FinalistSettings, schedules: Sequence[Schedule], tree: Tree, failed: Set[int]) -> bool:
    """Whether a schedule that competes has still to run: it is neither on record whole nor among the ``failed`` ones."""
    return any(
        number not in failed and any(tree.known(node.id) is None for node in tree.chain(schedule))
        for number, schedule in enumerate(schedules)
        if _competes(schedule, settings)
    )


def dropped(settings: FinalistSettings, schedules: Sequence[Schedule], tree: Tree, failed: Set[int]) -> set[str]:
    """The addresses of the steps that only such recipes have as competed and aren't to run again.

    The plain control is never dropped. As long as it is undecided who runs again, all others are: they may be dropped yet.
    """
    chosen = set[Schedule]() if undecided(settings, schedules, tree, failed) else {*_chosen(settings, schedules, tree)}
    out, kept = set[str](), set[str]()
    for schedule in schedules:
        recipe = _of_seed(schedule, 0)
        is_out = _competes(schedule, settings) and recipe not in chosen and not _is_control(recipe)
        (out if is_out else kept).update(node.id for node in tree.chain(schedule))
    return out - kept


def _chosen(settings: FinalistSettings, schedules: Iterable[Schedule], tree: Tree) -> list[Schedule]:
    """The recipes of the final, as schedules of seed 0: the best first, and then the control."""
    scores = {recipe: score for recipe, score in _scores(settings, schedules, tree).items() if np.isfinite(score)}
    ranked = sorted(scores, key=lambda recipe: -scores[recipe])
    best = [recipe for recipe in ranked if recipe.importance != CONTROL][: settings.top]
    return [*best, *[recipe for recipe in ranked if _is_control(recipe)][:1]]


def _is_control(recipe: Schedule) -> bool:
    return recipe.importance == CONTROL and getattr(recipe, "pruner", "base") == "base"


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
