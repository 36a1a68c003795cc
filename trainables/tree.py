"""Walking a schedule through the tree of steps: each step is found in the store, or computed once and put there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from trainables import steps
from trainables.measuring.footprint import Footprint, footprint
from trainables.networks.network import Network, decode, encode
from trainables.node import Node, address
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.points import is_record
from trainables.schedule import REMOVED, Schedule
from trainables.storage.store import Record, Store
from trainables.training.loop import TrainingDivergedError, evaluate, threads
from trainables.training.resuming import Resumable

Point = dict[str, Any]

ASKED = "asked"
"""The key of a record that tells the trial it was computed for, of which it is no property: number and schedule."""

MEASURED = (
    n.REQUESTED_SPARSITY, n.SPARSITY, n.CHANNEL_SPARSITY, n.ACCURACY_BEFORE, n.ACCURACY, n.PARAMS, n.MACS, n.EFFECTIVE_MACS,
    n.STORED_BYTES, n.COMPRESSION, n.SHAPE_ID, n.EMPTY_LAYERS, n.TOTAL_EPOCHS,
)  # fmt: skip


def walk(schedule: Schedule, tree: Tree) -> Iterator[Point]:
    """The points of a schedule, one a step, each computed when it is asked for and not known yet."""
    tree.problem.check(schedule)
    for number, node in enumerate(tree.chain(schedule), start=1):
        yield tree.point(node, schedule, number)


@dataclass
class Tree:
    """The steps of one problem, in one store.

    ``after_epoch`` is called after each epoch with how many the node at hand has trained so far. ``epochs`` tells what
    this process has trained, and ``computed`` what it put on record for the present point.
    """

    problem: Problem
    store: Store
    after_epoch: steps.AfterEpoch | None = None
    epochs: int = field(default=0, init=False)
    computed: set[str] = field(default_factory=set, init=False)
    _asked: Record | None = field(default=None, init=False)

    def chain(self, schedule: Schedule) -> list[Node]:
        """The nodes of the schedule's steps."""
        return self.problem.chain(schedule)

    def point(self, node: Node, schedule: Schedule, number: int, trial: int | None = None) -> Point:
        """What step ``number`` of the schedule, at ``node``, measures; with what it cost, which is 0 if it was found.

        A step that was computed for this very trial, whose report was lost, costs what it cost then.
        """
        fields = schedule.model_dump(mode="json", exclude_none=True)
        self._asked = None if trial is None else {n.TRIAL: trial, n.SCHEDULE: fields}
        self.computed.clear()
        record = self.record(node)
        cost = self._cost(node, record)
        trained = {n.FINE_TUNE_EPOCHS: self.problem.methods.retraining(schedule).epochs_trained(self.problem.dense)}
        paid = dict(zip((n.EPOCHS, n.SECONDS, n.REUSED), cost, strict=True))
        return point_of(record) | schedule.columns() | trained | paid | {
            n.STEP: number, n.STEP_ID: node.id, n.PARENT_ID: node.step_parent.id if node.step_parent else None,
        }  # fmt: skip

    def _cost(self, node: Node, record: Record) -> tuple[int, float, bool]:
        """(epochs, seconds, whether others paid them) of a step and the regularised training that it alone begins with."""
        if not self._paid(record):
            return 0, 0.0, True
        before = (self.known(one.id) for one in node.own_nodes[:-1])
        mine = [record, *(one for one in before if one and self._paid(one))]
        return sum(one[n.EPOCHS] for one in mine), round(sum(one[n.SECONDS] for one in mine), 3), False

    def _paid(self, record: Record) -> bool:
        """Whether it was computed for the present point, and not by another process while this one waited."""
        return record["id"] in self.computed or (self._asked is not None and record.get(ASKED) == self._asked)

    def dense_point(self, seed: int) -> Point:
        """The dense network as the point that every schedule of this seed starts from."""
        return dense_point(self.record(self.problem.root(seed)))

    def record(self, node: Node) -> Record:
        """What is on record of the node; it is computed first if it isn't there."""
        found = self.known(node.id)
        if found is not None:
            return found
        with self.store.claim(node.id):
            return self.known(node.id) or self._compute(node)

    def known(self, step_id: str) -> Record | None:
        """What is on record of a step, or None; a record that isn't of its own address, or not whole, counts as none."""
        record = self.store.record(step_id)
        if record is None or not is_record(record, MEASURED) or address(record["parent"], record["settings"]) != step_id:
            return None
        return record

    def has_weights(self, step_id: str) -> bool:
        """Whether a step is on record and its weights are there, undamaged."""
        record = self.known(step_id)
        return record is not None and self.store.weights(record) is not None

    def network(self, node: Node) -> Network:
        """The node's network as stored; it is computed again if its weights are missing or damaged."""
        return decode(self._weights(node, n.WEIGHTS_FILE), self.problem.build, self.problem.skeleton)

    def content(self, node: Node) -> bytes:
        """The node's weights file; it is computed again if it is missing or damaged."""
        return self._weights(node, n.WEIGHTS_FILE)

    def _weights(self, node: Node, file: str) -> bytes:
        content = self.store.weights(self.record(node), file)
        if content is not None:
            return content
        with self.store.claim(node.id):
            content = self.store.weights(self.record_of(node), file)
            if content is None:
                content = self.store.weights(self._compute(node), file)
        assert content is not None, "a step that was just computed has its weights"
        return content

    def node(self, step_id: str) -> Node:
        """The node of a step in the store, with its ancestors; InputError if one of them isn't there."""
        record = self.known(step_id)
        if record is None:
            raise InputError(f"{self.store.place}: has no whole record of step {step_id}; run the study again")
        return Node(self.node(record["parent"]) if record["parent"] else None, record["settings"])

    def record_of(self, node: Node) -> Record:
        """The record of a node that is known to be complete."""
        record = self.known(node.id)
        assert record is not None
        return record

    def _compute(self, node: Node) -> Record:
        """Make the node's network from its parent's, measure what was stored, and complete it in the store.

        Of a step on record only the weights are stored again, if they come out as they were.
        """
        with threads(self.problem.threads):
            parent = self.network(node.parent) if node.parent else None
            resumable = Resumable(self.store.storage, f"{node.id}/{n.TRAINING_FILE}")
            try:
                record = self._complete(node, parent, resumable)
            except TrainingDivergedError:  # as it would every time
                resumable.forget()
                raise
            resumable.forget()
            return record

    def _complete(self, node: Node, parent: Network | None, resumable: Resumable) -> Record:
        started = time.perf_counter()
        early_weights = partial(self._early, node)
        bench = steps.Bench(self.problem, node, self.after_epoch, resumable, early_weights)
        network, early, before = steps.step_of(node).make(parent, bench)
        epochs = self.epochs_of(node)
        self.epochs += epochs
        files = {n.WEIGHTS_FILE: encode(network)}
        if early is not None:
            files[n.REWIND_FILE] = encode(early)
        known = self.known(node.id)
        if known is not None and self.store.restore(known, files):
            return known
        measured = self._measure(node, files[n.WEIGHTS_FILE], before)
        seconds = resumable.seconds + time.perf_counter() - started
        record = {
            "id": node.id, "parent": node.parent.id if node.parent else None, "settings": dict(node.settings),
            n.EPOCHS: epochs, n.SECONDS: round(seconds, 3), **measured,
            n.TOTAL_EPOCHS: epochs + (self.record(node.parent)[n.TOTAL_EPOCHS] if node.parent else -epochs),
        }  # fmt: skip
        # Weights that come out different on this machine need a new record, but who paid for the first stays.
        asked = known.get(ASKED) if known else self._asked
        if known is None:
            self.computed.add(node.id)
        return self.store.write(record | ({ASKED: asked} if asked else {}), files)

    def _early(self, node: Node) -> Network:
        return decode(self._weights(node.root, n.REWIND_FILE), self.problem.build, self.problem.skeleton)

    def epochs_of(self, node: Node) -> int:
        """What computing a node costs: the epochs that it trains, itself alone."""
        return steps.step_of(node).epochs(node, self.problem)

    def _measure(self, node: Node, content: bytes, before: float | None) -> dict[str, Any]:
        """Measure the network as stored: read back, and in fp32."""
        problem = self.problem
        network = decode(content, problem.build, problem.skeleton)
        counts = footprint(network, problem.data.shape)
        if steps.step_of(node).cuts:
            _check_removed(counts, self.record_of(node.parent) if node.parent else None)
        dense = self.record_of(node.root) if node.parent else None
        total = sum(dense["layers"][name][0] for name in dense["layers"]) if dense else counts.prunable_params
        return {
            n.REQUESTED_SPARSITY: node.settings.get(REMOVED, 0) / 1e6,
            n.SPARSITY: 1 - counts.prunable_params / total,
            n.CHANNEL_SPARSITY: problem.skeleton.channel_sparsity(network.model),
            n.ACCURACY_BEFORE: before,
            n.ACCURACY: evaluate(network.model, problem.data, problem.device),
            n.PARAMS: counts.params, n.MACS: counts.macs, n.EFFECTIVE_MACS: counts.effective_macs,
            n.STORED_BYTES: len(content),
            n.COMPRESSION: dense[n.STORED_BYTES] / len(content) if dense else 1.0,
            n.SHAPE_ID: counts.shape_id, n.EMPTY_LAYERS: counts.empty_layers,
            "layers": {name: list(kept) for name, kept in counts.layers.items()},
        }  # fmt: skip


def _check_removed(counts: Footprint, parent: Record | None) -> None:
    if parent is not None and counts.prunable_params >= sum(kept for kept, _ in parent["layers"].values()):
        raise steps.NothingRemovedError("the step removed nothing; ask for more sparsity or for fewer steps")


def point_of(record: Record) -> Point:
    """The columns of a point that its record knows; the rest is None."""
    return dict.fromkeys(n.POINT_COLUMNS) | {name: record[name] for name in MEASURED}


def dense_point(record: Record) -> Point:
    """A dense network's record as a point: step 0, of no trial."""
    settings: Mapping[str, Any] = record["settings"]
    return point_of(record) | {
        n.STEP: 0, n.STEP_ID: record["id"], n.FAMILY: n.DENSE, n.SEED: settings["seed"], n.SCHEDULE: None, n.STEPS: 0,
        n.EPOCHS: record[n.EPOCHS], n.SECONDS: record[n.SECONDS], n.REUSED: False, n.ACCURACY_BEFORE: record[n.ACCURACY],
    }  # fmt: skip
