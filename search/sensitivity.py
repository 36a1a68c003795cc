"""How much each layer can lose: the dense network with one layer's weights, or one group's channels, cut and nothing else.

Each cut is a step of the study's tree, so what was measured before is read from the store. Nothing is retrained, and only
validation data is looked at. BatchNorm statistics are estimated anew after a cut: what is lost then is several times
nearer to what two epochs of retraining leave, though layers aren't ranked better (docs/questions.md has the numbers).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from torch import nn

from search.cluster.connection import local
from search.cluster.nodes import alive
from search.records.driver import only_driver
from search.records.ledger import Ledger
from search.records.opened import Opened
from search.records.provenance import Run
from search.records.snapshots import Snapshots
from search.session import check_roots, steps_of
from search.stages import waiting
from search.stages.dense import dense_networks
from search.stages.ready import ready
from search.stages.recompute import compute_again
from search.stages.tasks import probe_task
from search.study import ResourceSettings, Study
from search.tune.display import clock
from search.tune.trial import LOST_IN_A_ROW
from trainables.networks.alone import Unit, channel_units, weight_units
from trainables.node import Node
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.records.jsonl import Row
from trainables.records.names import InputError
from trainables.records.objectives import own_columns
from trainables.schedule import REMOVED, Schedule, StructuredSchedule, UnstructuredSchedule
from trainables.storage.store import to_json
from trainables.training.loop import evaluate
from trainables.tree import Tree

SHARES: Mapping[str, tuple[float, ...]] = {
    n.UNSTRUCTURED: (0.5, 0.8, 0.9, 0.95, 0.98),
    n.STRUCTURED: (0.1, 0.3, 0.5, 0.7, 0.9),
}
"""What of a layer goes: more weights can be spared than channels, which weights of two layers hang on."""
EVALUATIONS = 4
"""What a cut takes, in evaluations of the validation set: two, and about as much for the rest."""
KEPT = (n.FAMILY, n.IMPORTANCE, n.SCOPE, n.RETRAIN)
"""The columns that tell how a layer was cut."""


@dataclass(frozen=True)
class Probe:
    """One cut of one unit of the network: its address, and what of the unit is to go."""

    family: str
    name: str
    unit: Unit
    share: float
    node: Node
    how: Mapping[str, Any]


def dense_network(study: Study, console: Console) -> Opened:
    """The study with its dense network trained, and put on record, as a run would begin."""
    with ready(study, console) as driver:
        with driver.ray:
            dense_networks(driver)
        driver.run.end()
    return Opened(study.folder, study)


def sensitivity(opened: Opened, console: Console, shares: Sequence[float] = ()) -> list[Row]:
    """Measure every layer and group of a study's dense network, write ``sensitivity.jsonl``, and return its rows.

    ``shares`` of a layer are cut, or the usual ones of each family. InputError if there is no dense network, or it can't be
    cut.
    """
    folder, study, problem = opened.folder, opened.study, opened.problem()
    tree = Tree(problem, steps_of(study, folder))
    there = study.place_of(folder)
    with only_driver(folder, there) as held, Snapshots(folder, there, held):
        ledger = Ledger(folder, study.goals, study.drop, study.storage_forms, measure=study.measure)
        if not ledger.dense:
            raise InputError(f"folder: {folder} has no dense network yet; run the study, or give its study file")
        root = ledger.dense[min(ledger.dense)]
        lost = not tree.has_weights(root[n.STEP_ID])
        check_roots(tree, ledger, "give what it was made with", trains=lost)
        run = Run(folder, tree, ledger)
        if lost:
            compute_again(run.tree, [root[n.STEP_ID]], study.resources, console)
        dense = tree.node(root[n.STEP_ID])
        found = list(probes(run.tree.problem, tree.network(dense).model, dense, shares))
        _measure(run.tree, found, study.resources, console)
        rows = [row for probe in found if (row := _row(probe, run.tree)) is not None]
        write_atomically(folder / n.SENSITIVITY_FILE, b"".join(to_json(row) for row in rows))
        run.end()
    return rows


def probes(problem: Problem, model: nn.Module, dense: Node, shares: Sequence[float] = ()) -> Iterator[Probe]:
    """Every cut of every unit of the ``dense`` network, families in which nothing can be cut left out."""
    units: dict[str, Callable[[], dict[str, Unit]]] = {
        n.UNSTRUCTURED: lambda: weight_units(model, problem.spared),
        n.STRUCTURED: lambda: channel_units(model, problem.anatomy),
    }
    refused = {family: problem.refuse(family) for family in units}
    if all(refused.values()):
        raise InputError(f"model.name: nothing of {problem.model.name!r} can be pruned; {refused[n.UNSTRUCTURED]}")
    for family in (family for family, reason in refused.items() if not reason):
        for name, unit in units[family]().items():
            for share in (one for one in shares or SHARES[family] if round(unit.width * one)):  # or nothing would go
                schedule = _schedule(problem, family, share, dense.settings[n.SEED])
                node = problem.chain(schedule, dense)[0].only(name)
                yield Probe(family, name, unit, share, node, {key: schedule.columns()[key] for key in KEPT})


def _schedule(problem: Problem, family: str, share: float, seed: int) -> Schedule:
    """One cut by magnitude, as much of every layer that it is of, and BatchNorm recalibrated where there is any."""
    told: dict[str, Any] = {"step_ratio": share, "fine_tune_epochs": 0, "seed": seed}
    kind: type[Schedule] = UnstructuredSchedule
    if family == n.STRUCTURED:
        kind, told = StructuredSchedule, {**told, n.IMPORTANCE: "magnitude_l2", n.SCOPE: "local"}
    else:
        told |= {n.IMPORTANCE: "magnitude", n.SCOPE: "layerwise"}
    schedule = kind(**told, retrain="recalibrate")
    try:
        problem.check(schedule)
    except InputError:  # there is nothing to recalibrate
        return kind(**told)
    return schedule


def _measure(tree: Tree, found: Sequence[Probe], resources: ResourceSettings, console: Console) -> None:
    """Measure what isn't on record, a unit a worker, as many at once as fit."""
    missing = defaultdict[str, list[Node]](list)
    for probe in found:
        if tree.known(probe.node.id) is None:
            missing[f"{probe.family} {probe.name}"].append(probe.node)
    count = sum(map(len, missing.values()))
    units = len({(probe.family, probe.name) for probe in found})
    console.print(f"Sensitivity of {units} layers and groups: {len(found)} cuts, of which {len(found) - count} are cached.")
    if not count:
        return
    with local(), waiting.shown(console, "Cutting layers", count, "cuts") as show:
        at_once = sum(int(node.cpu // resources.cpu) for node in alive() if node.room(resources))
        if not at_once:
            asked = f"cpu {resources.cpu:g} and gpu {resources.gpu:g}"
            raise InputError(f"resources: a cut takes {asked}, and this machine has less; lower them")
        console.print(
            f"No epochs; about {clock(count * EVALUATIONS * _evaluation(tree, found[0]) / at_once)} of computing."
        )
        shared, counter = ray.put(tree.problem), waiting.counter()
        task = ray.remote(probe_task).options(num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=LOST_IN_A_ROW)
        tasks = [task.remote(shared, tree.store, nodes, unit, counter) for unit, nodes in missing.items()]
        waiting.wait_for(tasks, counter, show, "a layer can't be cut")


def _evaluation(tree: Tree, probe: Probe) -> float:
    """Seconds that the dense network takes for the validation set."""
    began = time.monotonic()
    assert probe.node.parent is not None
    evaluate(tree.network(probe.node.parent).model, tree.problem.data, tree.problem.device)
    return time.monotonic() - began


def _noise(tree: Tree, dense: Row) -> float:
    """The standard error of the dense network's measure; 0 where none is known."""
    measure, images = tree.measure, len(tree.problem.data.validation_labels)
    return measure.noise_beside([dense], images)


def _row(probe: Probe, tree: Tree) -> Row | None:
    """What a cut measured; None of one that removed nothing, because the layer is too narrow."""
    record, measure = tree.known(probe.node.id), tree.measure
    if record is None:
        return None
    dense = tree.record_of(probe.node.root)
    if probe.family == n.STRUCTURED:
        total, _ = tree.problem.skeleton.channels(tree.problem.build())
        gone = record[n.CHANNEL_SPARSITY] * total / probe.unit.size
    else:
        gone = 1 - record[n.LAYERS][probe.name][0] / probe.unit.size
    return {
        **probe.how, n.LAYER: probe.name, n.LAYERS: list(probe.unit.layers), n.STEP_ID: probe.node.id,
        n.REQUESTED_SPARSITY: probe.node.settings[REMOVED] / 1e6, n.SHARE: round(gone, 6),
        n.DENSE_VALUE: dense[measure.column], n.NOISE: _noise(tree, dense),
        **{column: record.get(column) for column in own_columns(measure)},
        **{column: record[column] for column in (n.SPARSITY, n.MACS, n.COMPRESSION)},
    }  # fmt: skip
