"""The nodes that trials run on: how many trials fit, and whether what computes there is what was looked at here."""

from __future__ import annotations

import importlib.metadata
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ray
import torch

from trainables.identity import code_hash
from trainables.measuring.targets import processor
from trainables.own import source_hash
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.storage.base import Place, above
from trainables.storage.places import open_storage
from trainables.training.loop import fastest_precision
from trainables.training.stepping import Precision

if TYPE_CHECKING:
    # Workers import this module, and neither what a study file is read with nor Tune.
    from search.study import ResourceSettings

PACKAGES = ("torch", "torchvision", "torch-pruning", "numpy")
"""What makes numbers, beside this program's own code."""


@dataclass(frozen=True)
class Node:
    """A node as Ray sees it."""

    id: str
    host: str
    cpu: float
    gpu: float

    def room(self, resources: ResourceSettings) -> int:
        """How many trials it can run at once, with nothing else on it."""
        shares = [self.cpu / resources.cpu]
        if resources.gpu:
            shares.append(self.gpu / resources.gpu)
        return math.floor(min(shares) + 1e-6)  # 0.3 / 0.1 is a little less than 3


def alive() -> list[Node]:
    """The nodes of the Ray that this process is connected to."""
    found = [(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], have.get("CPU", 0.0), have.get("GPU", 0.0)) for node, have in found
    ]


def dense_cores(nodes: Sequence[Node], resources: ResourceSettings, threads: int) -> float:
    """Cores for training a dense network on so many threads: what there is on a node where a trial fits too.

    Nobody looked whether the others can be relied on. If none is left, one that joins is waited for, as trials do.
    """
    largest = max((node.cpu for node in nodes if node.room(resources)), default=0.0)
    return max(resources.cpu, min(largest, threads))


@dataclass(frozen=True)
class Machine:
    """What computes on a node. ``fastest`` is what ``precision: auto`` would choose there."""

    processor: str
    gpu: str | None
    fastest: Precision
    versions: Mapping[str, str]
    code: str


def this_machine(device: str) -> Machine:
    """The machine that this process runs on, for work on ``device``."""
    # A build's label (+cpu, +cu130) says what it can run on; the version is what must be the same.
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in PACKAGES}
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"} | versions
    there = device == "cpu" or torch.cuda.is_available()
    gpu = torch.cuda.get_device_name() if device == "cuda" and there else None
    return Machine(processor(), gpu, fastest_precision(device) if there else "fp32", versions, code_hash())


def difference(there: Machine, here: Machine) -> str | None:
    """What is not the same on a node as on the driver's machine, or None."""
    for name, version in here.versions.items():
        if there.versions[name] != version:
            return f"has {name} {there.versions[name]}, and this machine has {version}; install requirements.txt there"
    if there.code != here.code:
        return "runs another version of this program than this machine; put the same commit there"
    return None


@dataclass(frozen=True)
class Terms:
    """What a node must fulfil before a trial is computed on it. ``fastest`` is None where the precision was given.

    ``sources`` has the hash of the source of each network or method of the user's own.
    """

    here: Machine
    device: str
    fastest: Precision | None
    place: Place
    secret: str
    sources: Mapping[str, str] = field(default_factory=dict)
    reuse: tuple[Place, ...] = ()
    """Steps of other studies that are read."""


PROBE = ".probe"
"""The folder, in a study's, in which the driver and the nodes leave what shows that they see the same files."""
DRIVER = "driver"


def unfit(terms: Terms) -> str | None:
    """Why no trial may be computed on the node that this process runs on, or None; the remedy is in the reason."""
    machine = this_machine(terms.device)
    if terms.device == "cuda" and machine.gpu is None:
        return "torch finds no GPU there; check its driver, or the resources that it was started with"
    if terms.fastest is not None and machine.fastest != terms.fastest:
        return (
            f"is fastest in {machine.fastest}, and precision auto chose {terms.fastest} for the others; "
            "name a precision, or take the node out"
        )
    return difference(machine, terms.here) or _other_source(terms.sources) or _unshared(terms)


def _other_source(sources: Mapping[str, str]) -> str | None:
    other = next((name for name, digest in sources.items() if source_hash(name) != digest), None)
    return other and f"has another {other} than this machine; put the same code there, in the same folder"


def check_fit(terms: Terms | None) -> None:
    """InputError if nothing may be computed on the node that this process runs on, which may have joined late."""
    if terms is not None and (reason := unfit(terms)):
        raise InputError(f"--address: node {ray.util.get_node_ip_address()} {reason}")


def _unshared(terms: Terms) -> str | None:
    storage = open_storage(terms.place)
    try:
        storage.check()
        seen = storage.read(f"{PROBE}/{DRIVER}") == terms.secret.encode()
        if seen:
            storage.write(f"{PROBE}/{ray.get_runtime_context().get_node_id()}", terms.secret.encode())
    except InputError as error:
        return f"finds that {error}"
    except OSError:
        seen = False
    if not seen:
        return f"doesn't see the same files in {terms.place} as this machine; choose a `storage` that all nodes share"
    for place in map(above, terms.reuse):
        if open_storage(place).read(n.STUDY_FILE) is None:
            return f"doesn't see the study in {place}; `reuse` what all nodes share"
    return None
