"""What is looked at on a cluster's nodes before anything is trained there."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from search.cluster.daemon import daemon_watched
from search.cluster.nodes import DRIVER, PROBE, Machine, Node, Terms, alive, difference, this_machine, unfit
from search.session import Session
from search.study import ResourceSettings, Study
from trainables.own import source_hash
from trainables.problem import Problem
from trainables.records.names import InputError
from trainables.settings import one_line
from trainables.storage.base import Storage, above
from trainables.storage.places import open_storage
from trainables.training.stepping import Precision

ANSWER = 180.0
"""Seconds to wait for a first task on each node, which imports torch."""


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster on which a trial fits, and what computes on each."""

    machines: Mapping[Node, Machine]

    @property
    def fastest(self) -> Precision:
        """What ``precision: auto`` means here: what is fast on every node."""
        return "bf16" if all(machine.fastest == "bf16" for machine in self.machines.values()) else "fp32"

    @property
    def kinds(self) -> Mapping[tuple[str, str | None], str]:
        """A host of each kind of hardware."""
        return {(machine.processor, machine.gpu): node.host for node, machine in self.machines.items()}


def look(study: Study) -> Cluster:
    """The nodes that a trial fits on; InputError if there is none, or if one runs other versions than this machine."""
    resources, nodes = study.resources, alive()
    fitting = [node for node in nodes if node.room(resources)]
    if not fitting:
        largest = max(nodes, key=lambda node: (node.gpu if resources.gpu else 0, node.cpu))
        raise InputError(
            f"resources: a trial takes {resources.cpu:g} cpu and {resources.gpu:g} gpu, and the cluster's largest node, "
            f"{largest.host}, has {largest.cpu:g} and {largest.gpu:g}; lower them, or add nodes"
        )
    device = "cuda" if resources.gpu else "cpu"
    machines = on_each(fitting, resources, this_machine, device)
    here = this_machine("cpu")
    for node, machine in machines.items():
        if reason := difference(machine, here):
            raise InputError(f"--address: node {node.host} {reason}")
    cluster = Cluster(machines)
    if (timed := next((one for one in study.goals if one.of_host), None)) and len(cluster.kinds) > 1:
        hosts = " and ".join(list(cluster.kinds.values())[:2])
        raise InputError(f"objectives: {timed.name} of unlike nodes ({hosts}) can't be compared; leave {timed.name} out")
    return cluster


def on_each(
    nodes: Sequence[Node], resources: ResourceSettings, function: Callable[..., Any], *args: Any
) -> dict[Node, Any]:
    """What ``function`` returns on each node, less those that die meanwhile.

    InputError that names a node on which it can't run, or if no node is left.
    """
    task = ray.remote(function)
    some = 0.001 if resources.gpu else 0  # without a share, Ray hides the GPUs
    results = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        # A worker that dies may be the first that is heard of its node's death: it is asked once more, and if the node is
        # gone, Ray then says so.
        options = task.options(num_cpus=0, num_gpus=some, max_retries=1, scheduling_strategy=there)
        results[node] = options.remote(*args)
    found = {}
    for node, result in results.items():
        try:
            found[node] = ray.get(result, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            if node.id not in {other.id for other in alive()}:
                continue
            reason = one_line(getattr(error, "cause", None) or error) or f"no answer in {ANSWER:g} seconds"
            raise InputError(
                f"--address: node {node.host} can't run this program ({reason}); put the same clone there, in the same "
                "folder, and install requirements.txt"
            ) from None
    if not found:
        gone = " and ".join(node.host for node in nodes)
        raise InputError(f"--address: every node that a trial fits on died meanwhile ({gone}); start them again")
    return found


@contextmanager
def agreed(session: Session, cluster: Cluster, console: Console) -> Iterator[Terms]:
    """Terms that every node fulfils now, and a late one can be held to; InputError that names a node which doesn't."""
    study, problem = session.study, session.tree.problem
    place = above(session.tree.store.place)
    storage = open_storage(place)
    auto = problem.precision if study.precision == "auto" else None
    # A trial in fp32 is as good on a node that would be faster in bf16.
    fastest, sources = auto if auto == "bf16" else None, {name: source_hash(name) for name in study.own_code()}
    reuse = session.tree.store.reuse
    terms = Terms(this_machine("cpu"), problem.device, fastest, place, secrets.token_hex(16), sources, reuse)
    try:
        storage.write(f"{PROBE}/{DRIVER}", terms.secret.encode())
        told = on_each(list(cluster.machines), study.resources, _prove, terms, ray.put(problem))
        for node, reason in told.items():
            if wrong := reason or _elsewhere(storage, node, terms):
                raise InputError(f"--address: node {node.host} {wrong}")
        if (kinds := len(cluster.kinds)) > 1:
            console.print(
                f"[yellow]{kinds} kinds of hardware:[/yellow] a step is the same to the last bit only on one kind."
            )
        with daemon_watched(lambda: storage.clear(PROBE)):
            yield terms
    finally:
        storage.clear(PROBE)


def _prove(terms: Terms, problem: Problem) -> str | None:
    """On a node: why the study can't run there, or None."""
    reason = unfit(terms)
    if reason is None:
        try:
            problem.check_network()  # its checkpoint, or the code of a network of the user's own, may be missing there
        except Exception as error:
            reason = f"can't build the network ({one_line(error)}); put there what it needs"
    return reason


def _elsewhere(storage: Storage, node: Node, terms: Terms) -> str | None:
    if storage.read(f"{PROBE}/{node.id}") == terms.secret.encode():
        return None
    return f"writes to another {terms.place} than this machine's; choose a `storage` that all nodes share"
