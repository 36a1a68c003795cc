"""What Ray's workers compute outside of trials; a module of its own, so that they import none of what leads a study."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from search.cluster.nodes import Terms, check_fit
from trainables.node import Node
from trainables.problem import Problem
from trainables.steps import NothingRemovedError
from trainables.storage.store import Store
from trainables.tree import Tree

Chain = Sequence[str]
"""Steps that one worker computes, each after its parent."""


def dense_task(problem: Problem, store: Store, seed: int, terms: Terms | None, counter: Any = None) -> None:
    """Train one in a worker, which tells ``counter``, an actor, of every epoch; that one may be gone."""
    check_fit(terms)
    told = None if counter is None else lambda epoch: counter.note.remote(seed, epoch)
    Tree(problem, store, after_epoch=told).content(problem.root(seed))


def probe_task(problem: Problem, store: Store, nodes: Sequence[Node], unit: str, counter: Any) -> None:
    """Measure what some nodes give, in a worker, and keep no weights; a cut that removes nothing is passed over."""
    for done, node in enumerate(nodes, start=1):
        with suppress(NothingRemovedError):
            Tree(problem, store).record(node)
            store.discard_weights(node.id)
        if counter is not None:
            counter.note.remote(unit, done)


def again_task(problem: Problem, store: Store, chain: Chain, counter: Any) -> None:
    """Compute some steps in a worker, which tells ``counter``, an actor, of the epochs; that one may be gone."""
    for step_id in chain:
        tree = Tree(problem, store, after_epoch=partial(counter.note.remote, step_id))
        node = tree.node(step_id)
        tree.content(node)
        counter.note.remote(step_id, tree.epochs_of(node))
