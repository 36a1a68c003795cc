"""Milliseconds of inference, measured with nothing else of ours running on the host, once for each host and shape.

Networks of one shape run equally fast in a dense runtime, masked or not; so an unstructured step has the latency of the
network that it was pruned from, and only structured steps need a measurement of their own.
"""

from __future__ import annotations

import getpass
import logging
import os
import platform
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, ReadWriteLock
from torch import nn

from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.points import fault_of
from trainables.records.untrusted import parse_json
from trainables.storage.base import Place
from trainables.storage.places import open_storage
from trainables.storage.store import to_json
from trainables.training.loop import threads
from trainables.tree import Tree

LARGE_BATCH = 64
MIN_SECONDS, MAX_SECONDS = 0.3, 1.0
SPREAD = 0.1
"""A measurement goes on until its interquartile range is within this share of its median, or too long."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass of a batch: median and interquartile range over blocks of runs."""

    batch: int
    median_ms: float
    iqr_ms: float
    threads: int


def measure(model: nn.Module, shape: tuple[int, int, int], batch: int, thread_count: int) -> Latency:
    """Time fp32 inference of ``batch`` inputs of ``shape`` [C, H, W] with ``torch.utils.benchmark``."""
    # The import looks for a CUDA compiler, and warns where there is one and no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import benchmark  # noqa: PLC0415

    device = next(model.parameters()).device
    inputs = torch.zeros(batch, *shape, device=device).to(memory_format=torch.channels_last)
    model.to(memory_format=torch.channels_last).eval()
    names = {"model": model, "inputs": inputs}
    timer = benchmark.Timer("model(inputs)", globals=names, num_threads=thread_count)
    with torch.inference_mode(), threads(thread_count):
        measured = timer.adaptive_autorange(threshold=SPREAD, min_run_time=MIN_SECONDS, max_run_time=MAX_SECONDS)
    return Latency(batch, measured.median * 1e3, measured.iqr * 1e3, thread_count)


class LatencyTable:
    """The latencies of this host where a study is stored, and the lock that keeps the host quiet while one is measured."""

    def __init__(self, study: Place, thread_count: int) -> None:
        self._storage = open_storage(study)
        self._threads = thread_count
        # A lock for the whole host, not for the study: another study's training disturbs just as much.
        folder = _own_folder()
        self._lock = ReadWriteLock(folder / "quiet.db")
        # Who waits for quiet stands in the door: the lock alone lets new readers pass a writer that has other threads, so
        # that a study with two trials of another beside it would never measure.
        self._door = FileLock(folder / "door.lock")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Hold this while computing; a measurement waits for it to end, and it for a measurement that waits or goes on."""
        with self._door:
            self._lock.acquire_read()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Hold this while measuring, around several measurements too: what computes has ended, and nothing begins."""
        with self._door, self._lock.write_lock():
            yield

    def of(self, point: Mapping[str, Any], tree: Tree) -> dict[str, float]:
        """The latency columns of a point, measured now if this host hasn't measured its shape yet."""
        found = self.find(point)
        if found is not None:
            return found
        with self.quiet():
            return self.find(point) or self._measure(point, tree)

    def find(self, point: Mapping[str, Any]) -> dict[str, float] | None:
        """The latency columns of a point, if this host has measured its shape."""
        content = self._storage.read(self._key(point))
        try:
            record = parse_json(content or b"")
            found = {column: record[column]["median_ms"] for column in (n.LATENCY, n.LATENCY_LARGE)}
        except (ValueError, KeyError, TypeError):
            return None
        return found if all(found.values()) and fault_of(found, ()) is None else None

    def _measure(self, point: Mapping[str, Any], tree: Tree) -> dict[str, float]:
        # Its weights may be gone (keep: none), where another host measured it; then it is computed again.
        model = tree.network(tree.node(point[n.STEP_ID])).model.to(tree.problem.device)
        shape = tree.problem.data.shape
        measured = {
            n.LATENCY: measure(model, shape, 1, self._threads),
            n.LATENCY_LARGE: measure(model, shape, LARGE_BATCH, self._threads),
        }
        record = {"host": platform.node(), "processor": processor(), n.SHAPE_ID: point[n.SHAPE_ID]}
        columns = {name: asdict(latency) for name, latency in measured.items()}
        self._storage.write(self._key(point), to_json({**record, **columns}, indent=1))
        return {name: latency.median_ms for name, latency in measured.items()}

    @staticmethod
    def _key(point: Mapping[str, Any]) -> str:
        return f"{n.LATENCY_FOLDER}/{platform.node()}-{point[n.SHAPE_ID]}.json"


def _own_folder() -> Path:
    """This user's folder for locks on this host; InputError if another user has, or may write, what has its name."""
    own = Path(tempfile.gettempdir()) / f"pruning-front-{getpass.getuser()}"
    with suppress(FileExistsError):
        own.mkdir(mode=0o700)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(f"latency: {own} can be written by others; remove it, or name another folder with TMPDIR")
    return own


def processor() -> str:
    """The processor's name, as torch reads it."""
    return str(torch.cpu.get_capabilities().get("cpu_name", platform.processor()))
