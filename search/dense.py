"""The dense networks, trained before all trials: one a seed, several at a time, and how far they are is shown.

Those whose weights are gone (results travel without them) are trained again before the trials that begin there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from search.epochs import Epochs
from search.healing import with_latency
from search.ledger import Ledger
from search.nodes import Terms, alive, check_fit, dense_cores
from search.progress import PLAIN_INTERVAL, clock
from search.session import Session
from search.space import Sweep
from search.study_trainable import LOST_IN_A_ROW
from trainables import names as n
from trainables.names import InputError, StoppedError
from trainables.problem import Problem
from trainables.settings import one_line
from trainables.storage import Place
from trainables.store import Store
from trainables.walk import Tree

LOOK = 1.0
"""Seconds between two looks at how far the networks are."""


def missing_seeds(session: Session) -> list[int]:
    """The seeds whose dense network isn't in the store."""
    tree = session.tree
    return [seed for seed in session.seeds if tree.known(tree.problem.root(seed).id) is None]


def lost_seeds(session: Session) -> list[int]:
    """The seeds whose dense network is on record without its weights, though there are steps ahead that need them."""
    tree, space, seeds = session.tree, session.space, set(session.seeds)
    if isinstance(space, Sweep):
        there = set(tree.store.ids())
        ahead = (one for one in space.schedules if not there.issuperset(node.id for node in tree.chain(one)))
        seeds = {schedule.seed for schedule in ahead}
    return [seed for seed in sorted(seeds) if tree.store.weights(tree.record_of(tree.problem.root(seed))) is None]


def train_dense(session: Session, seeds: Sequence[int], console: Console) -> None:
    """Train the dense networks of these seeds; with a checkpoint, measure it. Ray has been started."""
    tree, resources = session.tree, session.study.resources
    before = {seed: tree.known(tree.problem.root(seed).id) for seed in seeds}
    shared, counter = ray.put(tree.problem), _counter()
    cores = dense_cores(alive(), resources, tree.problem.dense.threads)
    task = ray.remote(dense_task).options(num_cpus=cores, num_gpus=resources.gpu, max_retries=LOST_IN_A_ROW)
    epochs = sum(tree.epochs_of(tree.problem.root(seed)) for seed in seeds)
    try:
        waiting = [task.remote(shared, tree.store.place, seed, session.terms, counter) for seed in seeds]
        with shown(console, len(seeds), epochs) as show:
            done: dict[int, int] = {}
            while waiting:
                ready, waiting = ray.wait(waiting, timeout=LOOK)
                ray.get(ready)
                if waiting:
                    done |= _told(counter)
                    show(sum(done.values()))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError | InputError):
            raise error.cause from None
        raise InputError(f"dense: the dense network can't be trained: {one_line(error.cause)}") from None
    except ray.exceptions.RayError as error:  # Ray has started the task several times more
        raise StoppedError(f"the dense network's worker died again and again: {one_line(error)}") from None
    for seed, record in before.items():
        now = tree.record_of(tree.problem.root(seed))
        if record is not None and record != now:
            console.print(
                f"[yellow]Seed {seed}: trained again, the dense network came out different on this machine[/yellow] "
                f"({record[n.ACCURACY]:.2%}, now {now[n.ACCURACY]:.2%}); its points so far began from other weights."
            )


def record_dense(session: Session, ledger: Ledger, console: Console) -> None:
    """Put the dense networks on record."""
    for seed in session.seeds:
        if seed in ledger.dense:
            continue
        point = with_latency(session.tree.dense_point(seed), session)
        ledger.add_dense(point)
        console.print(
            f"Dense network, seed {seed}: {point['accuracy']:.2%} validation accuracy, {point['params']:,} parameters"
        )


def dense_task(problem: Problem, place: Place, seed: int, terms: Terms | None, counter: Any = None) -> None:
    """Train one in a worker, which tells ``counter``, an actor, of every epoch; that one may be gone."""
    check_fit(terms)
    told = None if counter is None else lambda epoch: counter.note.remote(seed, epoch)
    Tree(problem, Store(place), told).content(problem.root(seed))


def _counter() -> Any:
    """An actor beside the driver, which no lost node takes with it, and which comes again if it is killed."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Epochs).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()


def _told(counter: Any) -> dict[int, int]:
    """What the counter says; nothing if it is not there yet, or not any more: no training depends on it."""
    try:
        return dict(ray.get(counter.done.remote(), timeout=LOOK))
    except ray.exceptions.RayError:
        return {}


@contextmanager
def shown(console: Console, networks: int, epochs: int) -> Iterator[Callable[[int], None]]:
    """Show how many of the ``epochs`` are done, and the time left; where there is no terminal, now and then in a line."""
    which = "the dense network" if networks == 1 else f"{networks} dense networks"
    what = f"Training {which}" if epochs else f"Measuring {which}"
    printed = time.monotonic()
    last, first = 0, (0.0, 0)
    with console.status(f"{what} …") as status:

        def show(done: int) -> None:
            nonlocal printed, last, first
            now = time.monotonic()
            if done == last:
                return
            if not last:
                first = now, done  # the pace is taken from here, because before it the workers were starting
            last = done
            line = f"{what}: {done} of {epochs} epochs"
            if done > first[1]:
                line += f", about {clock((now - first[0]) / (done - first[1]) * (epochs - done))} left"
            status.update(f"{line} …")
            if not console.is_terminal and now - printed > PLAIN_INTERVAL:
                console.print(line, style="dim")
                printed = now

        yield show
