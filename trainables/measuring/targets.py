"""What times a network: a class a target. PyTorch on this host is the one that every study has."""

from __future__ import annotations

import hashlib
import platform
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, ClassVar

import torch

from trainables.measuring.context import Stored, measured
from trainables.measuring.footprint import footprint
from trainables.measuring.timing import LARGE_BATCH
from trainables.methods import Method
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.objectives import LATENCY
from trainables.storage.store import to_json

Timings = dict[str, Any]
"""What is put on record of one network: a timing for each column, with its ``median_ms``."""


class Target(Method):
    """Where networks are timed, and by what."""

    by: ClassVar[str] = n.SHAPE_ID
    """The column of a point that says which networks take equally long: those of one shape, in a dense runtime."""

    def check(self) -> None:
        """InputError if it can't be used here."""

    @abstractmethod
    def conditions(self, problem: Problem) -> Mapping[str, Any]:
        """What a latency depends on beside the network: only latencies under the same conditions can be compared."""

    @abstractmethod
    def ready(self, network: Network, problem: Problem) -> Callable[[], Timings]:
        """What times a network once all that may disturb others is done: it is called with nothing else of ours running.

        InputError, in one line, if the network can't be timed there.
        """


class Torch(Target):
    """PyTorch on this host, on a trial's device and threads: the objective ``latency``."""

    name, label = "torch", "PyTorch"

    def conditions(self, problem: Problem) -> Mapping[str, Any]:
        """The host's, the device's and PyTorch's."""
        return {
            "processor": processor(), "features": features(), "device": device_name(problem.device),
            "threads": problem.threads, "input": list(problem.data.shape), "batches": [1, LARGE_BATCH],
            "torch": torch.__version__,
        }  # fmt: skip

    def ready(self, network: Network, problem: Problem) -> Callable[[], Timings]:
        """At batch 1 and at a large one."""
        counts = footprint(network, problem.data.shape)
        stored = Stored(network.model, problem.data, problem.device, problem.threads, counts, b"", None)

        def time() -> Timings:
            columns = measured(LATENCY, stored)
            return {column: asdict(timing) for column, timing in zip(columns, stored.timings, strict=True)}

        return time


def device_name(device: str) -> str:
    """The device, a GPU with its model, as torch reads it."""
    if device != "cuda":
        return device
    return f"cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cuda: none here"


def processor() -> str:
    """The processor's name, as torch reads it."""
    return str(torch.cpu.get_capabilities().get("cpu_name", platform.processor()))


@cache
def features() -> str:
    """A hash of what the processor can do and of its caches: models of one name differ in them."""
    found = torch.cpu.get_capabilities()
    kept = {name: value for name, value in found.items() if not name.startswith("num_")}  # a guest sees a part of its host
    return hashlib.sha256(to_json(dict(sorted(kept.items())))).hexdigest()[:16]
