"""A trial of a study. What goes wrong in a step is its result; what Tune sees fail, and runs again, is a lost worker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import ray
import torch

from search.cluster.nodes import Terms, this_machine, unfit
from trainables.measuring.memory import peak_memory
from trainables.records import names as n
from trainables.settings import one_line
from trainables.storage.base import REMEDY, STORAGE_ERRORS, UnreachableError
from trainables.trainable import PruningTrainable

LOST_IN_A_ROW = 5
"""So often may a trial lose its worker, or the node under it, before it has finished one more step, and run again."""

# What a result carries instead of a point, because the study has to stop, or beside it.
STOPS = "stops"
UNFIT = "unfit"
NODE = "node"
PEAK = "worker_peak_memory_mb"


class StudyTrainable(PruningTrainable):
    """One trial of a study; ``terms`` are looked at again, because a node may have joined late."""

    def setup(self, config: dict[str, Any], *args: Any, terms: Terms | None = None, **shared: Any) -> None:
        """``terms`` are None where all runs on the driver's own machine."""
        self._unfit, self._node = None, {}
        if terms is not None:
            host = ray.util.get_node_ip_address()
            reason = unfit(terms)
            self._unfit = f"node {host} {reason}" if reason else None
            self._node = {NODE: {"host": host, **describe(this_machine(terms.device))}}
        super().setup(config, *args, **shared)

    def step(self) -> dict[str, Any]:
        """One pruning step; its error is told as a result, because the next worker would run into it again.

        So is memory that was refused: of a network too large for its worker, every attempt would be, and the study with it.
        """
        if self._unfit:
            return {UNFIT: self._unfit, "done": True}
        try:
            return super().step() | self._node | {PEAK: peak_memory()}
        except torch.AcceleratorError:
            raise  # the GPU is of no use to this process any more, so another one tries
        except Exception as error:
            if isinstance(error, UnreachableError):
                return {STOPS: str(error), "done": True}
            told = f"{type(error).__name__}: {one_line(error)}"
            if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                return {STOPS: f"storage: a step can't be read or written ({told}); {REMEDY}", "done": True}
            return {n.REASON: told, "done": True}


def describe(machine: Any) -> dict[str, Any]:
    """A machine's hardware, as provenance keeps it."""
    return {name: value for name, value in asdict(machine).items() if name in ("processor", "gpu")}
