"""One run of a study in a process of its own, as ``benchmarks.scaling`` measures it from outside.

    python -m benchmarks.scaling_run STUDY.yaml {measured|sleeping} WORKERS NODES

The study runs through ``search.algorithm.run`` on a Ray that is already there: WORKERS cores, spread over so many nodes of
this machine. Only the trainable differs from what ``python -m search run`` starts: it also notes the core time of its
steps, or sleeps instead of computing them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from search import algorithm as runner
from search.cluster.connection import ENVIRONMENT, environment
from search.session import prepare
from search.stages import ready, trials
from search.study import load_study
from search.tune.trial import StudyTrainable
from trainables.node import Node
from trainables.records import names as n
from trainables.storage.store import Record

MEMORY = 256 * 2**20
"""Bytes of a node's object store."""
SLEEP = 0.005
CPU_FOLDER = "core_seconds"
"""Beside a study's folder: a file for each worker, a line for each step: seconds and core seconds at its begin and end."""


class Measured(StudyTrainable):
    """Notes the core time that a step takes to prune, train and measure."""

    def setup(self, config: dict[str, Any], **given: Any) -> None:
        """As ever, with a clock around what computes a step."""
        super().setup(config, **given)
        compute, notes = self._tree._compute, Path(given["folder"]).parent.parent / CPU_FOLDER / f"{os.getpid()}"

        def timed(node: Node) -> Record:
            begin, started = time.time(), time.process_time()
            notes.touch()
            record = compute(node)
            with notes.open("a") as file:
                file.write(f"{begin} {time.time()} {started} {time.process_time()}\n")
            return record

        self._tree._compute = timed  # type: ignore[method-assign]


class Sleeping(StudyTrainable):
    """Sleeps instead of computing a step, and makes up what it measured; nothing is stored."""

    def setup(self, config: dict[str, Any], **given: Any) -> None:
        """As ever, but for what computes a step."""
        super().setup(config, **given)
        tree = self._tree

        def sleep(node: Node) -> Record:
            time.sleep(SLEEP)
            tree.computed.add(node.id)
            tree.epochs += 1
            return _made_up(node, tree.record_of(node.root))

        tree.record = lambda node: sleep(node) if node.parent else tree.record_of(node)  # type: ignore[method-assign]


def _made_up(node: Node, dense: Record) -> Record:
    """What a step could have measured: the more is removed the less accurate, with noise that its address decides."""
    removed, noise = node.settings["removed_ppm"] / 1e6, node.seed % 1000 / 1e4
    bytes_left = int(dense[n.STORED_BYTES] * (1.02 - removed))
    return {
        **dense, "id": node.id, n.REQUESTED_SPARSITY: removed, n.SPARSITY: removed, n.STORED_BYTES: bytes_left,
        n.ACCURACY: max(0.0, dense[n.ACCURACY] - 0.2 * removed**4 - noise), n.EPOCHS: 1, n.TOTAL_EPOCHS: 1,
        n.COMPRESSION: dense[n.STORED_BYTES] / bytes_left,
    }  # fmt: skip


TRAINABLES = {"measured": Measured, "sleeping": Sleeping}


@contextmanager
def cores(workers: int, nodes: int) -> Iterator[None]:
    """A Ray of so many cores on this machine, spread over so many nodes."""
    logging = {"log_to_driver": False, "logging_level": "ERROR"}
    each = {"num_cpus": workers // nodes, "object_store_memory": MEMORY, "include_dashboard": False}
    with environment(ENVIRONMENT), ExitStack() as stack:
        where = {"address": "local", **each}
        if nodes > 1:
            cluster = Cluster(initialize_head=True, head_node_args=each)
            stack.callback(cluster.shutdown)
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=each["num_cpus"], object_store_memory=MEMORY)
            where = {"address": cluster.address}
        stack.callback(ray.shutdown)
        ray.init(**where, **logging)
        yield


def main(file: str, trainable: str, workers: int, nodes: int) -> None:
    """Train the dense network, which is not measured, and run the study."""
    study = load_study(file)
    (study.folder.parent / CPU_FOLDER).mkdir(parents=True)
    session = prepare(study)
    ready.begin(session)
    session.tree.record(session.tree.problem.root(0))
    with cores(workers, nodes), patch.object(trials, "StudyTrainable", TRAINABLES[trainable]):
        runner.run(study, Console())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
