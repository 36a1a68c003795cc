"""Opening the test split, once: for the front of a search, or for the schedules that a sweep names in advance.

Of recipes that compete for the final of a sweep only those in it are opened: validation data has told the others apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from rich.console import Console
from torch import nn

from search.records.driver import only_driver
from search.records.ledger import Ledger, append, rows_of
from search.records.opened import Opened
from search.records.openings import record_opening
from search.records.provenance import Run
from search.records.snapshots import Snapshots
from search.session import check_roots, steps_of
from search.stages import waiting
from search.stages.again import Again
from search.stages.finalists import Final
from search.stages.recompute import compute_again
from search.study import Study
from trainables.data import test_split
from trainables.data.mapped import Pixels
from trainables.measuring import quiet, stored_forms
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.confirmation import AGAIN, CONTROL
from trainables.records.jsonl import Row
from trainables.records.names import InputError
from trainables.records.objectives import Quality
from trainables.records.points import point_id
from trainables.training.feeding import tensors
from trainables.training.loop import difference_error, judge_outputs, kept_outputs
from trainables.tree import Tree

OF_WEIGHTS = (n.SPARSITY, n.EFFECTIVE_MACS, n.STORED_BYTES, n.SHAPE_ID)
"""What tells, beside its measure, a network from one that was trained in the same way on another machine."""


MOST_DENSE = 4
"""Dense networks whose outputs for the test images are kept while others are compared with them."""


@dataclass(frozen=True)
class Closed:
    """The networks of a study that wait to be opened: those whose weights are there, and those whose weights are gone."""

    folder: Path
    tree: Tree
    ledger: Ledger
    stored: list[Row]
    lost: list[Row]


def confirm(
    opened: Opened, console: Console, *, stored_only: bool = False, seeds: int | None = None, address: str | None = None
) -> int:
    """Measure networks on the test images into ``confirmed.jsonl``; returns how many were new.

    What was confirmed before is not opened again, and each opening is on record before it begins. With ``stored_only``,
    networks whose weights aren't on disk are passed over; otherwise they are computed again. With ``seeds`` the front's
    members are pruned and retrained on so many fresh ones before anything is opened (on the Ray cluster at ``address``).
    """
    searched = None if seeds is None else _front_of(opened, seeds)
    problem, both = opened.problem(), [opened]
    if searched is not None and seeds is not None:
        both.append(Again(opened, problem, searched, seeds).run(console, address))
    with ExitStack() as stack:
        closed = [_closed(one, problem, console, stack, stored_only=stored_only) for one in both]
        count = sum(len(one.stored) + len(one.lost) for one in closed)
        if not count:
            return 0
        split = tensors(*test_split.load(opened.study.data, problem.data, writable=opened.writable), problem.device)
        if before := record_opening(opened.folder, count):
            console.print(f"[dim]{before}[/dim]")
        for one in closed:
            _open(one, one.tree, one.stored, split, console)
        for one in closed:  # after the others: what can't be computed again keeps none of them closed
            _open_lost(one, split, opened.study, console)
        if opened.study.keep != "all":
            _give_back(closed[1:])
    return count


def _front_of(opened: Opened, seeds: int) -> Ledger:
    """What was searched, with a front that can run on fresh seeds; InputError where there is none."""
    if seeds < 2:
        raise InputError(f"--seeds: {seeds} cannot be used: a spread needs at least 2; give 2 or more")
    if opened.study.sweep is not None:
        raise InputError("--seeds: a sweep names the seeds of its schedules itself; add some there, and run it")
    study, folder = opened.study, opened.folder
    ledger = Ledger(folder, study.goals, study.drop, study.storage_forms, measure=study.measure, mend=False)
    if not ledger.members():
        raise InputError(f"--seeds: {folder} has no front to be confirmed; run the study first")
    return ledger


def _closed(opened: Opened, problem: Problem, console: Console, stack: ExitStack, *, stored_only: bool) -> Closed:
    """What waits in a study's folder, which is held until the ``stack`` ends."""
    folder, study = opened.folder, opened.study
    there = study.place_of(folder)
    held = stack.enter_context(only_driver(folder, there))
    stack.enter_context(Snapshots(folder, there, held))
    tree = Tree(problem, steps_of(study, folder), forms=study.storage_forms)
    ledger = Ledger(folder, study.goals, study.drop, study.storage_forms, measure=study.measure)
    check_roots(tree, ledger, "give the data and the network that it was made with", trains=False)
    stored, lost = _parted(tree, _waiting(opened, ledger, tree, console))
    lost = [] if stored_only else lost
    if lost:
        check_roots(tree, ledger, "pass over what has to be trained again (--stored-only)")
    return Closed(folder, tree, ledger, stored, lost)


def _open_lost(closed: Closed, split: tuple[Pixels, Pixels], study: Study, console: Console) -> None:
    """Compute again the networks whose weights are gone, and measure them."""
    if not closed.lost:
        return
    run = Run(closed.folder, closed.tree, closed.ledger)
    compute_again(run.tree, [row[n.STEP_ID] for row in closed.lost], study.resources, console)
    _open(closed, run.tree, closed.lost, split, console)
    run.end()


def _give_back(confirmations: Sequence[Closed]) -> None:
    """The disk of what ran on fresh seeds, which nothing else needs; dense networks stay."""
    for one in confirmations:
        for row in one.ledger.points:
            if row[n.STEP]:
                one.tree.store.discard_weights(row[n.STEP_ID])


def _parted(tree: Tree, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The points whose weights are there, and those whose weights are gone."""
    whole = {row[n.STEP_ID] for row in rows if tree.has_weights(row[n.STEP_ID])}
    return [row for row in rows if row[n.STEP_ID] in whole], [row for row in rows if row[n.STEP_ID] not in whole]


def _open(closed: Closed, tree: Tree, rows: Sequence[Row], split: tuple[Pixels, Pixels], console: Console) -> None:
    """Measure these networks, a network a core, and append each as it is measured."""
    problem, one_at_a_time = tree.problem, Lock()
    images, truth = split[0], split[1].cpu()

    def outputs_of(model: nn.Module) -> torch.Tensor:
        with quiet.computing():
            return kept_outputs(model, images, problem.data, problem.device)

    @lru_cache(MOST_DENSE)
    def of_dense(seed: int) -> torch.Tensor | None:
        """What the dense network says, if its weights are there."""
        node = tree.node(closed.ledger.dense[seed][n.STEP_ID])
        return outputs_of(tree.network(node).model) if tree.has_weights(node.id) else None

    def measured(row: Row) -> Row:
        with one_at_a_time:  # weights lost meanwhile are trained again, and torch has one random state
            node = tree.node(row[n.STEP_ID])
            model = tree.network_of(node, row).model
            beside = of_dense(row[n.SEED]) if row[n.STEP] else None
        outputs = outputs_of(model)
        found = {tree.measure.test: judge_outputs(outputs, truth, problem.data).value}
        if beside is not None:
            found[tree.measure.test_paired] = difference_error(outputs, beside, truth, problem.data)
        record = stored_forms.columns_of(tree.filled(node), row)
        return {**row, **found} | _retrained(row, record, tree.measure)

    # As in the trials: threads that share one network wait for each other on a busy machine.
    with (
        waiting.shown(console, "Opening the test split", len(rows), "networks") as show,
        ThreadPoolExecutor(_at_once(problem), "confirm", torch.set_num_threads, (problem.threads,)) as pool,
    ):
        try:
            for done, row in enumerate(pool.map(measured, rows), start=1):
                append(closed.folder / n.CONFIRMED_FILE, row)
                show(done)
        finally:
            pool.shutdown(cancel_futures=True)  # or what is left would be measured before an error is told


def _retrained(row: Row, record: Mapping[str, Any], measure: Quality) -> Row:
    """The column that tells of a network that isn't the point's; none where it is."""
    same = all(row[name] in (None, record[name]) for name in (measure.column, *OF_WEIGHTS))
    return {} if same else {measure.retrained: record[measure.column]}


def _at_once(problem: Problem) -> int:
    return max(1, (os.cpu_count() or 1) // problem.threads) if problem.device == "cpu" else 1


def _waiting(opened: Opened, ledger: Ledger, tree: Tree, console: Console) -> list[Row]:
    """The points to be opened, one row a step and stored form, the dense networks among them."""
    study, folder = opened.study, opened.folder
    done = {point_id(row) for row in rows_of(folder / n.CONFIRMED_FILE) if n.STEP_ID in row}
    wanted, waiting = _wanted(folder), dict[str, Row]()
    for row in ledger.looked_at(search=study.sweep is None):
        if wanted is not None and row[n.STEP] and row[n.STEP_ID] not in wanted:
            continue
        if point_id(row) not in done:  # of equal points the first, as everywhere
            waiting.setdefault(point_id(row), row)
    if study.finalists is None:
        return list(waiting.values())
    final = Final(study.finalists, study.schedules(), tree, ledger)
    dropped = final.dropped()
    closed = {point for point, row in waiting.items() if row[n.STEP_ID] in dropped}
    if closed:
        networks = "1 network" if len(closed) == 1 else f"{len(closed)} networks"
        why = (
            "that may not reach the final; what competes for it hasn't all run"
            if final.undecided
            else "of recipes that aren't among the finalists"
        )
        console.print(f"[dim]Left closed: {networks} {why}.[/dim]")
    return [row for point, row in waiting.items() if point not in closed]


def _wanted(folder: Path) -> set[str] | None:
    """Of a confirmation on fresh seeds the steps that stand for members, or for their controls; None of other studies."""
    rows = list(rows_of(folder / n.AGAIN_FILE))
    return {row[name] for row in rows for name in (AGAIN, CONTROL) if row.get(name)} if rows else None
