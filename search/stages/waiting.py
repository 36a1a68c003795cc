"""Trainings outside of trials: several at a time in Ray's workers, and how far they are is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from search.stages.epoch_counter import Epochs
from search.tune.display import PLAIN_INTERVAL, clock
from trainables.records.names import InputError, StoppedError
from trainables.settings import one_line

LOOK = 1.0
"""Seconds between two looks at how far the networks are."""


def wait_for(tasks: Sequence[Any], counter: Any, show: Callable[[int], None], failure: str) -> None:
    """Wait for Ray's tasks, showing the epochs that ``counter`` was told of.

    InputError with ``failure`` and the reason if one fails, StoppedError if its worker dies again and again.
    """
    waiting, done = list(tasks), dict[Hashable, int]()
    try:
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=LOOK)
            ray.get(ready)
            if waiting:
                done |= _told(counter)
                show(sum(done.values()))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError | InputError):
            raise error.cause from None
        raise InputError(f"{failure}: {one_line(error.cause)}") from None
    except ray.exceptions.RayError as error:  # Ray has started the task several times more
        raise StoppedError(f"a training's worker died again and again: {one_line(error)}") from None


def counter() -> Any:
    """An actor beside the driver, which no lost node takes with it, and which comes again if it is killed."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Epochs).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()


def _told(counter: Any) -> dict[Hashable, int]:
    """What the counter says; nothing if it is not there yet, or not any more: no training depends on it."""
    try:
        return dict(ray.get(counter.done.remote(), timeout=LOOK))
    except ray.exceptions.RayError:
        return {}


@contextmanager
def shown(console: Console, what: str, total: int, unit: str = "epochs") -> Iterator[Callable[[int], None]]:
    """Show how many of the total are done, and the time left; where there is no terminal, now and then in a line."""
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
            line = f"{what}: {done} of {total} {unit}"
            if done > first[1]:
                line += f", about {clock((now - first[0]) / (done - first[1]) * (total - done))} left"
            status.update(f"{line} …")
            if not console.is_terminal and now - printed > PLAIN_INTERVAL:
                console.print(line, style="dim")
                printed = now

        yield show
