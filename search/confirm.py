"""Opening the test split, once: for the front of a search, or for the schedules that a sweep names in advance.

Of recipes that compete for the final of a sweep only those in it are opened: validation data has told the others apart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import torch
from rich.console import Console
from rich.progress import track

from search.again import compute_again
from search.driving import only_driver
from search.finalists import dropped
from search.ledger import Ledger, Row, append, read_rows
from search.opened import open_study, opened_problem
from search.session import steps_of
from search.snapshots import Snapshots
from search.study import Study
from trainables import names as n
from trainables import test_split
from trainables.problem import Problem
from trainables.training import accuracy, tensors
from trainables.walk import Tree


def confirm(
    place: str, console: Console, overrides: Sequence[str] = (), *, stored_only: bool = False, trusted: bool = False
) -> int:
    """Measure test accuracies into ``confirmed.jsonl``; returns how many were new.

    What was confirmed before is not opened again. With ``stored_only``, networks whose weights aren't on disk are passed
    over; otherwise they are computed again. ``place`` is a study's folder, or its URL.
    """
    folder, study = open_study(place, overrides)
    problem, writable = opened_problem(study, overrides, trusted=trusted)
    tree = Tree(problem, steps_of(study, folder))
    there = study.place_of(folder)
    with only_driver(folder, there) as held, Snapshots(folder, there, held):
        rows, closed = _waiting(study, folder, tree)
        if closed:
            console.print(f"[dim]Left closed: {closed} networks of recipes that aren't among the finalists.[/dim]")
        if stored_only:
            rows = [row for row in rows if _stored(tree, row)]
        else:
            compute_again(tree, [row[n.STEP_ID] for row in rows], study.resources, console)
        images, labels = tensors(*test_split.load(study.data, problem.data, writable=writable), tree.problem.device)

        one_at_a_time = Lock()

        def open_split(row: Row) -> Row:
            with one_at_a_time:  # weights lost meanwhile are trained again, and torch has one random state
                model = tree.network(tree.node(row[n.STEP_ID])).model
            return {**row, n.TEST_ACCURACY: accuracy(model, images, labels, tree.problem.data, tree.problem.device)}

        quiet = not console.is_terminal
        # A network a core, as in the trials: threads that share one network wait for each other on a busy machine.
        with ThreadPoolExecutor(_at_once(tree.problem), "confirm", torch.set_num_threads, (tree.problem.threads,)) as pool:
            measured = pool.map(open_split, rows)
            for row in track(measured, "Opening the test split", len(rows), console=console, disable=quiet):
                append(folder / n.CONFIRMED_FILE, row)
    return len(rows)


def _at_once(problem: Problem) -> int:
    return max(1, (os.cpu_count() or 1) // problem.threads) if problem.device == "cpu" else 1


def _waiting(study: Study, folder: Path, tree: Tree) -> tuple[list[Row], int]:
    """(the points to be opened, one row a step, the dense networks among them; how many are left closed)."""
    ledger = Ledger(folder, study.objectives, study.reference.accuracy_drop)
    named = ledger.points if study.sweep is not None else [*ledger.dense.values(), *ledger.front_rows()]
    closed = dropped(study.finalists, study.schedules(), tree) if study.finalists else set[str]()
    done = {str(row.get(n.STEP_ID)) for row in read_rows(folder / n.CONFIRMED_FILE)}
    waiting = {row[n.STEP_ID]: row for row in named if row[n.STEP_ID] not in done}
    return [row for step_id, row in waiting.items() if step_id not in closed], len(closed & waiting.keys())


def _stored(tree: Tree, row: Row) -> bool:
    record = tree.known(row[n.STEP_ID])
    return record is not None and tree.store.weights(record) is not None
