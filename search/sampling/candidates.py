"""The schedules of a space as candidates of the sampler that knows the tree."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Iterator

from optuna.trial import FixedTrial
from pydantic import ValidationError

from search.sampling.space import Params, Space
from search.sampling.step_tree import Candidate, StepTree
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.schedule import Schedule
from trainables.tree import Tree

MOST_RECIPES = 8000
"""Of a space with more recipes so many are taken, always the same: those of its starting points, and others at random."""


def step_tree(space: Space, tree: Tree, *, looks: bool = False) -> StepTree:
    """Every schedule of the space that the network allows, with what each of its steps costs in epochs.

    With ``looks``, each has the address of the look at its last step.
    """
    recipes = list(space.longest())
    if len(recipes) > MOST_RECIPES:
        begun = [_recipe(params) for params in space.starting_points()]
        first = [params for params in recipes if _recipe(params) in begun]
        rest = [params for params in recipes if _recipe(params) not in begun]
        recipes = first + random.Random(0).sample(rest, MOST_RECIPES - len(first))
    costs: dict[Hashable, float] = {}
    found = (candidate for params in recipes for candidate in _prefixes(params, space, tree, costs, looks=looks))
    return StepTree(found, costs)


def _recipe(params: Params) -> Params:
    """All but how many steps it has."""
    return {name: value for name, value in params.items() if name.rpartition(".")[2] != n.STEPS}


def _prefixes(
    params: Params, space: Space, tree: Tree, costs: dict[Hashable, float], *, looks: bool
) -> Iterator[Candidate]:
    try:
        schedule = space.schedule(FixedTrial(params))
        tree.problem.check(schedule)
    except (InputError, ValidationError):
        return
    chain: list[Hashable] = []
    before = 0.0
    nodes = tree.chain(schedule)
    looked = [node.id for node in tree.looks(schedule)] if looks else [None] * len(nodes)
    for number, (node, halvings, look) in enumerate(zip(nodes, schedule.halvings(), looked, strict=True), start=1):
        for one in node.own_nodes:
            costs[one.id] = tree.epochs_of(one)
            chain.append(one.id)
        # Halvings of what is left, so far and by this step: the nearest that is known beforehand to the compression.
        yield Candidate(space.prefix(params, number), tuple(chain), (halvings, halvings - before), look)
        before = halvings


def epochs_ahead(schedules: Iterable[Schedule], tree: Tree) -> dict[str, int]:
    """The steps of these schedules that the store doesn't have, with what each costs in epochs.

    A regularised training before several steps is counted with the first of them.
    """
    counted, ahead = set(tree.store.ids()), dict[str, int]()
    for schedule in schedules:
        for node in tree.chain(schedule):
            new = {one.id: one for one in node.own_nodes if one.id not in counted}
            counted |= new.keys()
            if node.id in new:
                ahead[node.id] = sum(map(tree.epochs_of, new.values()))
    return ahead
