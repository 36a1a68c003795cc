"""Walking a schedule through the tree of steps: each step is found in the store, or computed once and put there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainables import steps
from trainables.measuring import quiet, stored_forms
from trainables.measuring.context import Stored, judged, lacks
from trainables.measuring.footprint import Footprint, footprint
from trainables.methods import Need
from trainables.networks.network import Network, decode, encode
from trainables.node import Node, address
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.methods import MEASURE, described, measure_of
from trainables.records.names import InputError
from trainables.records.objectives import OBJECTIVES, Objective, Quality, columns_of, own_columns
from trainables.records.points import OF_EVERY_RECORD, SCHEMA, form_of, is_record, quality_problem, stored_format
from trainables.schedule import REMOVED, Schedule
from trainables.storage.store import ASKED, Record, Store
from trainables.training.loop import TrainingDivergedError, threads
from trainables.training.resuming import Resumable

Point = dict[str, Any]

OURS = tuple(one for one in OBJECTIVES.values() if not one.of_host)
MEASURED = tuple(dict.fromkeys((*OF_EVERY_RECORD, *(column for one in OURS for column in (one.column, *one.fills)))))


def walk(schedule: Schedule, tree: Tree) -> Iterator[Point]:
    """The points of a schedule, one a step, each computed when it is asked for and not known yet."""
    tree.problem.check(schedule)
    for number, node in enumerate(tree.chain(schedule), start=1):
        yield tree.point(node, schedule, number)


@dataclass
class Tree:
    """The steps of one problem, in one store.

    ``forms`` are the stored forms that a step has a point in. ``objectives`` are those that every point must have a value
    on. ``after_epoch`` is called after each epoch with how many the node at hand has trained so far. ``epochs`` tells what
    this process has trained, and ``computed`` what it put on record for the present point.
    """

    problem: Problem
    store: Store
    after_epoch: steps.AfterEpoch | None = None
    objectives: Sequence[Objective] = ()
    forms: Sequence[str] = (n.FP32,)
    epochs: int = field(default=0, init=False)
    computed: set[str] = field(default_factory=set, init=False)
    _asked: Record | None = field(default=None, init=False)
    _paused: float = field(default=0.0, init=False)

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
        self.record(node)
        record = self.filled(node)
        cost = self._cost(node, record)
        trained = self.problem.methods.trained(schedule, self.problem.taught)
        paid = dict(zip((n.EPOCHS, n.SECONDS, n.REUSED), cost, strict=True))
        return point_of(record, self._own) | schedule.columns_at(number) | trained | paid | {
            n.STEP: number, n.STEP_ID: node.id, n.PARENT_ID: node.step_parent.id if node.step_parent else None,
        }  # fmt: skip

    def points(self, node: Node, schedule: Schedule, number: int, trial: int | None = None) -> list[Point]:
        """What step ``number`` measures in each stored form; what it cost is told of the first alone."""
        point, names = self.point(node, schedule, number, trial), stored_forms.named(self.forms)
        return list(stored_forms.points(point, self.record_of(node), names)) if names else [point]

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

    def looks(self, schedule: Schedule) -> list[Node]:
        """The addresses of looks at the schedule's steps."""
        return self.problem.looks(schedule)

    def look(self, schedule: Schedule) -> None:
        """Put on record what the last cut of ``schedule`` measures, recalibrated and at no epochs.

        Nothing happens if that is on record, or the weights that are to be cut aren't there.
        """
        node = self.problem.looks(schedule)[-1]
        assert node.parent is not None
        if self.looked(node.id) is not None or not self.has_weights(node.parent.id):
            return
        with quiet.computing(), threads(self.problem.threads):
            value = steps.look(self.network(node.parent), node, self.problem)
        self.store.write_look(node.id, {self.measure.column: value, MEASURE: described(self.measure)})

    def looked(self, address: str) -> float | None:
        """What a look measured; NaN if that had no value, and None if none is on record."""
        record = self.store.look(address)
        if record is None or record.get(MEASURE) != described(self.measure):
            return None
        value = record.get(self.measure.column)
        return math.nan if quality_problem(self.measure, value) else value

    def dense_point(self, seed: int) -> Point:
        """The dense network as the point that every schedule of this seed starts from."""
        root = self.problem.root(seed)
        self.record(root)
        return dense_point(self.filled(root), self._own)

    def dense_points(self, seed: int) -> list[Point]:
        """The dense network's own file, which all are compared with, and the points of its stored forms."""
        point, names = self.dense_point(seed), stored_forms.named(self.forms)
        record = self.record_of(self.problem.root(seed))
        return [point, *(one | {n.EPOCHS: 0, n.SECONDS: 0.0} for one in stored_forms.points(point, record, names))]

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
        if record is None or not is_record(record) or not steps.can_be(record["settings"]):
            return None
        return record if address(record["parent"], record["settings"]) == step_id else None

    def has_weights(self, step_id: str) -> bool:
        """Whether a step is on record and its weights are there, undamaged."""
        record = self.known(step_id)
        return record is not None and self.store.weights(record) is not None

    def network(self, node: Node) -> Network:
        """The node's network as stored; it is computed again if its weights are missing or damaged."""
        return decode(self._weights(node, n.WEIGHTS_FILE), self.problem.build, self.problem.skeleton)

    def network_of(self, node: Node, point: Mapping[str, Any]) -> Network:
        """The node's network as the file that a point is of holds it."""
        network = self.network(node)
        return network if stored_format(point) == n.SAFETENSORS else self.in_form(network, form_of(point))

    def in_form(self, network: Network, form: str) -> Network:
        """A network as it is read back from its file in a stored form."""
        return stored_forms.read_back(network, form, self.problem)[1]

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
        # What it begins with may have to be waited for, and who waits doesn't keep a measurement waiting.
        parent = self.network(node.parent) if node.parent else None
        needs = steps.step_of(node).needs(node, self.problem)
        early = self._early(node) if Need.EARLY_WEIGHTS in needs else None
        dense = self.network(node.root) if Need.DENSE_NETWORK in needs else None
        with quiet.computing(), threads(self.problem.threads):
            resumable = Resumable(self.store.storage, f"{node.id}/{n.TRAINING_FILE}")
            try:
                record = self._complete(node, parent, early, dense, resumable)
            except TrainingDivergedError:  # as it would every time
                resumable.forget()
                raise
            resumable.forget()
            return record

    def _complete(
        self, node: Node, parent: Network | None, start: Network | None, teacher: Network | None, resumable: Resumable
    ) -> Record:
        started, self._paused = time.perf_counter(), 0.0
        bench = steps.Bench(self.problem, node, self._between_epochs, resumable, start, teacher)
        made = steps.step_of(node).make(parent, bench)
        epochs = self.epochs_of(node)
        self.epochs += epochs
        files = {n.WEIGHTS_FILE: encode(made.network)}
        if made.early is not None:
            files[n.REWIND_FILE] = encode(made.early)
        known = self.known(node.id)
        if known is not None and self.store.restore(known, files):
            return known
        measured = self._measure(node, files[n.WEIGHTS_FILE], made)
        seconds = resumable.seconds + time.perf_counter() - started - self._paused
        record = {
            "schema": SCHEMA, "id": node.id, "parent": node.parent.id if node.parent else None,
            "settings": dict(node.settings), n.EPOCHS: epochs, n.SECONDS: round(seconds, 3), **measured,
            n.TOTAL_EPOCHS: epochs + (self.record(node.parent)[n.TOTAL_EPOCHS] if node.parent else -epochs),
        }  # fmt: skip
        # Weights that come out different on this machine need a new record, but who paid for the first stays.
        asked = known.get(ASKED) if known else self._asked
        if known is None:
            self.computed.add(node.id)
        return self.store.write(record | ({ASKED: asked} if asked else {}), files)

    def _between_epochs(self, epoch: int) -> None:
        self._paused += quiet.pause()
        if self.after_epoch is not None:
            self.after_epoch(epoch)

    def _early(self, node: Node) -> Network:
        return decode(self._weights(node.root, n.REWIND_FILE), self.problem.build, self.problem.skeleton)

    def epochs_of(self, node: Node) -> int:
        """What computing a node costs: the epochs that it trains, itself alone."""
        return steps.step_of(node).epochs(node, self.problem)

    def _measure(self, node: Node, content: bytes, made: steps.Made) -> dict[str, Any]:
        """Measure the network as stored: read back, and in fp32."""
        stored, network = self._stored(node, content)
        counts, dense = stored.counts, stored.dense
        if steps.step_of(node).cuts and node.settings[REMOVED]:
            _check_removed(counts, self.record_of(node.parent) if node.parent else None)
        of_dense = dense["layers"] if dense else counts.layers  # which may have lost weights before, as a checkpoint's
        total = sum(whole for _, whole in of_dense.values())
        columns = {
            n.REQUESTED_SPARSITY: node.settings.get(REMOVED, 0) / 1e6,
            n.SPARSITY: 1 - counts.prunable_params / total,
            n.CHANNEL_SPARSITY: self.problem.skeleton.channel_sparsity(network.model),
            **self._of_measure(made), n.SHAPE_ID: counts.shape_id, n.EMPTY_LAYERS: counts.empty_layers,
            "layers": {name: list(kept) for name, kept in counts.layers.items()},
            **judged(self._judged, stored, {}),
        }  # fmt: skip
        return columns | self._forms(stored, network, {}, columns if dense is None else dense)

    def _stored(self, node: Node, content: bytes) -> tuple[Stored, Network]:
        problem = self.problem
        network = decode(content, problem.build, problem.skeleton)
        counts = footprint(network, problem.data.shape)
        dense = self.record_of(node.root) if node.parent else None
        return Stored(network.model, problem.data, problem.device, problem.threads, counts, content, dense), network

    @property
    def measure(self) -> Quality:
        """What the quality of networks is measured by."""
        return self.problem.data.task.quality

    def _of_measure(self, made: steps.Made) -> dict[str, Any]:
        """What a record says of its measure, beside the value; of others than accuracy all that tells which it is."""
        other: dict[str, Any] = {}
        if told := described(self.measure):
            other = {MEASURE: told, n.ACCURACY_BEFORE: None, n.ACCURACY_RECALIBRATED: None, n.ACCURACY: None}
        return {**other, self.measure.before: made.before, self.measure.recalibrated: made.recalibrated}

    @property
    def _judged(self) -> list[Objective]:
        """What is measured of every step: the study's measure, what is counted, and objectives of the user's own."""
        return [self.measure, *(one for one in OURS if not one.quality), *self._own]

    @property
    def _own(self) -> list[Objective]:
        """The objectives of the user's own."""
        return [one for one in self.objectives if one.source is not None]

    def filled(self, node: Node, *, cheaply: bool = False) -> Record:
        """The record of a complete step with what it lacks: columns newer than it, and objectives of the user's own.

        What every point must have is measured of the stored network, which is computed again if its weights are gone; the
        rest, or all (``cheaply``), only where they are there. What other code measured is no value.
        """
        record = self.record_of(node)
        lacking, forms = self._lacking(record), self._lacking_forms(record)
        if not lacking and not forms:
            return record
        needed = not cheaply and (bool(forms) or any(one in self.objectives for one in lacking))
        content = self.content(node) if needed else self.store.weights(record)
        if content is None:
            return record | {one.column: None for one in lacking}
        with self.store.claim(node.id):
            record = self.record_of(node)
            with quiet.computing(), threads(self.problem.threads):
                return self._amended(node, record, content)

    def _amended(self, node: Node, record: Record, content: bytes) -> Record:
        """The record with what it lacks measured of the network in ``content``."""
        lacking, forms = self._lacking(record), self._lacking_forms(record)
        if not lacking and not forms:
            return record
        stored, network = self._stored(node, content)
        columns = judged(lacking, stored, record)
        return self.store.amend(record, columns | self._forms(stored, network, record, stored.dense or record))

    def _forms(self, stored: Stored, network: Network, record: Record, dense: Mapping[str, Any]) -> dict[str, Any]:
        """What a record tells of stored forms, with those measured that it lacks, against the ``dense`` network's file."""
        names = self._lacking_forms(record)
        if not names:
            return {}
        found = stored_forms.measure(names, replace(stored, dense=dense), network, self.problem, self._judged)
        return {n.FORMS: {**record.get(n.FORMS, {}), **found}}

    def _lacking_forms(self, record: Record) -> list[str]:
        return stored_forms.lacking(record, stored_forms.named(self.forms), self._judged)

    def _lacking(self, record: Record) -> list[Objective]:
        return [one for one in self._judged if lacks(record, one)]


def _check_removed(counts: Footprint, parent: Record | None) -> None:
    if parent is not None and counts.prunable_params >= sum(kept for kept, _ in parent["layers"].values()):
        raise steps.NothingRemovedError("the step removed nothing; ask for more sparsity or for fewer steps")


def point_of(record: Record, own: Sequence[Objective] = ()) -> Point:
    """The columns of a point that its record knows, with those of the user's ``own`` objectives; the rest is None."""
    measure = measure_of(record.get(MEASURE, {}))
    columns = (*MEASURED, *own_columns(measure), *(one.column for one in own))
    found = dict.fromkeys(columns_of((measure, *own))) | {name: record.get(name) for name in columns}
    return found | {n.FORM: n.FP32, n.STORED_FORMAT: n.SAFETENSORS}


def dense_point(record: Record, own: Sequence[Objective] = ()) -> Point:
    """A dense network's record as a point: step 0, of no trial."""
    settings: Mapping[str, Any] = record["settings"]
    measure = measure_of(record.get(MEASURE, {}))
    return point_of(record, own) | {
        n.STEP: 0, n.STEP_ID: record["id"], n.FAMILY: n.DENSE, n.SEED: settings["seed"], n.SCHEDULE: None, n.STEPS: 0,
        n.EPOCHS: record[n.EPOCHS], n.SECONDS: record[n.SECONDS], n.REUSED: False, measure.before: record[measure.column],
    }  # fmt: skip
