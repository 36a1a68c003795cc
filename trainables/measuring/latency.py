"""What belongs to a host: measured with nothing else of ours running, once for each shape under the same conditions.

Networks of one shape run equally fast in a dense runtime, masked or not; so an unstructured step has the latency of the
network that it was pruned from, and only structured steps need a measurement of their own.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import torch

from trainables.measuring.context import Stored, measured
from trainables.measuring.footprint import footprint
from trainables.measuring.quiet import quiet
from trainables.measuring.timing import LARGE_BATCH
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.objectives import OBJECTIVES
from trainables.records.points import fault_of
from trainables.records.untrusted import parse_json
from trainables.storage.base import Place
from trainables.storage.places import open_storage
from trainables.storage.store import to_json
from trainables.tree import Tree

OF_HOST = tuple(one for one in OBJECTIVES.values() if one.of_host)
COLUMNS = tuple(column for one in OF_HOST for column in (one.column, *one.fills))


class LatencyTable:
    """The latencies that are stored with a study; those of other conditions are there beside ours, and never found."""

    def __init__(self, study: Place, problem: Problem) -> None:
        self._storage, self._problem = open_storage(study), problem

    def beside(self, point: Mapping[str, Any], dense: Mapping[str, Any], tree: Tree) -> dict[str, float]:
        """The latency columns of a point, and with them the dense network's under the same conditions."""
        return joined(self.of(point, tree), self.of(dense, tree))

    def of(self, point: Mapping[str, Any], tree: Tree) -> dict[str, float]:
        """The latencies of a network, measured now if its shape hasn't been under these conditions."""
        found = self.find(point)
        if found is not None:
            return found
        # Its weights may be gone (keep: none); then it is computed again, which isn't done in quiet.
        stored = self._stored(point, tree)
        with quiet():
            return self.find(point) or self._measure(point, stored)

    def find(self, point: Mapping[str, Any]) -> dict[str, float] | None:
        """The latencies of a network, if its shape has been measured under these conditions."""
        content = self._storage.read(self._key(point))
        try:
            record = parse_json(content or b"")
            found = {column: record[column]["median_ms"] for column in COLUMNS}
        except (ValueError, KeyError, TypeError):
            return None
        return found if all(found.values()) and fault_of(found, (), measure=None) is None else None

    def _stored(self, point: Mapping[str, Any], tree: Tree) -> Stored:
        problem, network = self._problem, tree.network(tree.node(point[n.STEP_ID]))
        counts = footprint(network, problem.data.shape)
        return Stored(network.model, problem.data, problem.device, problem.threads, counts, b"", None)

    def _measure(self, point: Mapping[str, Any], stored: Stored) -> dict[str, float]:
        values = {column: value for one in OF_HOST for column, value in measured(one, stored).items()}
        timings = {column: asdict(timing) for column, timing in zip(values, stored.timings, strict=True)}
        record = {"host": platform.node(), **conditions(self._problem), n.SHAPE_ID: point[n.SHAPE_ID], **timings}
        self._storage.write(self._key(point), to_json(record, indent=1))
        return values

    def _key(self, point: Mapping[str, Any]) -> str:
        told = to_json({**conditions(self._problem), n.SHAPE_ID: point[n.SHAPE_ID]})
        return f"{n.LATENCY_FOLDER}/{hashlib.sha256(told).hexdigest()[:16]}.json"


def joined(point: Mapping[str, float], dense: Mapping[str, float]) -> dict[str, float]:
    """Latencies of a network with the dense network's beside them, each in its column."""
    return {**point, **{beside: dense[column] for one in OF_HOST for column, beside in one.dense_columns.items()}}


def conditions(problem: Problem) -> dict[str, Any]:
    """What a latency depends on beside the network: only latencies under the same conditions can be compared."""
    return {
        "processor": processor(), "features": _features(), "device": device_name(problem.device),
        "threads": problem.threads, "input": list(problem.data.shape), "batches": [1, LARGE_BATCH],
        "torch": torch.__version__,
    }  # fmt: skip


def device_name(device: str) -> str:
    """The device, a GPU with its model, as torch reads it."""
    if device != "cuda":
        return device
    return f"cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cuda: none here"


def processor() -> str:
    """The processor's name, as torch reads it."""
    return str(torch.cpu.get_capabilities().get("cpu_name", platform.processor()))


@cache
def _features() -> str:
    """A hash of what the processor can do and of its caches: models of one name differ in them."""
    found = torch.cpu.get_capabilities()
    kept = {name: value for name, value in found.items() if not name.startswith("num_")}  # a guest sees a part of its host
    return hashlib.sha256(to_json(dict(sorted(kept.items())))).hexdigest()[:16]
