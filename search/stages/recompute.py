"""Weights that are gone, computed again: several networks at a time, and how far they are is shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import ray
from rich.console import Console

from search.cluster.connection import local
from search.cluster.nodes import alive, dense_cores
from search.stages import waiting
from search.stages.tasks import Chain, again_task
from search.study import ResourceSettings
from search.tune.trial import LOST_IN_A_ROW
from trainables.node import Node
from trainables.records.names import InputError
from trainables.tree import Tree


def compute_again(tree: Tree, step_ids: Iterable[str], resources: ResourceSettings, console: Console) -> None:
    """Store the weights of these steps again, where they are gone; Ray is started on this machine if any are."""
    lost = lost_nodes(tree, step_ids)
    if not lost:
        return
    before = {step_id: tree.record_of(node)["checksums"] for step_id, node in lost.items()}
    networks = "a network" if len(lost) == 1 else f"{len(lost)} networks"
    epochs = sum(tree.epochs_of(node) for node in lost.values())
    with local(), waiting.shown(console, f"Training {networks} again, whose weights are gone", epochs) as show:
        if not any(node.room(resources) for node in alive()):
            raise InputError(
                f"resources: {networks} must be trained again, with cpu {resources.cpu:g} and gpu {resources.gpu:g} each, "
                "and this machine has less; go on where there is as much"
            )
        shared, counter = ray.put(tree.problem), waiting.counter()
        cores = dense_cores(alive(), resources, tree.problem.dense.threads)
        for chains, cpus in zip(rounds(lost, tree.epochs_of), (cores, resources.cpu), strict=True):
            task = ray.remote(again_task).options(num_cpus=cpus, num_gpus=resources.gpu, max_retries=LOST_IN_A_ROW)
            tasks = [task.remote(shared, tree.store, chain, counter) for chain in chains]
            waiting.wait_for(tasks, counter, show, "a network whose weights are gone can't be trained again")
    changed = sum(tree.record_of(lost[step_id])["checksums"] != files for step_id, files in before.items())
    if changed:
        console.print(
            f"[yellow]Of {networks} that had to be trained again, {changed} came out different on this machine[/yellow] "
            "from what their points tell."
        )


def lost_nodes(tree: Tree, step_ids: Iterable[str]) -> dict[str, Node]:
    """The nodes of these steps whose weights are gone, and those before them that they need; parents first."""
    lost = dict[str, Node]()

    def add(node: Node) -> None:
        if node.id in lost or tree.store.weights(tree.record_of(node)) is not None:
            return
        if node.parent is not None:
            add(node.parent)
        lost[node.id] = node

    for step_id in step_ids:
        add(tree.node(step_id))
    return lost


def rounds(lost: Mapping[str, Node], epochs_of: Callable[[Node], int]) -> tuple[list[Chain], list[Chain]]:
    """The dense networks, and then the rest, with all that begins at one lost step in one chain, the longest first.

    So no worker waits for what another computes, nor for one that began last.
    """
    first, chains = dict[str, str](), defaultdict[str, list[str]](list)
    for step_id, node in lost.items():
        if node.parent is not None:
            first[step_id] = first.get(node.parent.id, step_id)
            chains[first[step_id]].append(step_id)
    longest: list[Chain] = sorted(chains.values(), key=lambda chain: -sum(epochs_of(lost[step_id]) for step_id in chain))
    return [[step_id] for step_id, node in lost.items() if node.parent is None], longest
