"""From a point of a study to a file of its own."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from search.records.driver import only_driver
from search.records.ledger import Ledger
from search.records.opened import Opened
from search.records.provenance import Run
from search.records.snapshots import Snapshots
from search.session import check_roots, steps_of
from search.stages.recompute import compute_again
from trainables.exporting.formats import FORMATS
from trainables.forms.forms import FORMS
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.points import point_id
from trainables.storage.store import Store
from trainables.tree import Tree


def export_point(opened: Opened, point: str, target: Path, console: Console, file_format: str | None = None) -> str:
    """Write the network of a point, computed again if its weights weren't kept; returns the point's id.

    A ``point`` is ``step_id[:form]``, and fp32 without a form; any form can be written, measured or not. Without a format,
    fp32 is written as safetensors and any other form as compact.
    """
    folder, study = opened.folder, opened.study
    step, _, form = point.partition(":")
    form = form or n.FP32
    _check_form(form, trusted=study.trusted)
    file_format = file_format or (n.SAFETENSORS if form == n.FP32 else n.COMPACT)
    FORMATS.load(file_format, trusted=study.trusted)
    exporter = FORMATS.make(file_format, {n.FORM: form})
    _check_target(target)
    store = steps_of(study, folder)
    step_id = find_point(store, step, folder)
    tree = Tree(opened.problem(), store)
    lost = not tree.has_weights(step_id)
    ledger = Ledger(folder, study.goals, study.drop, measure=study.measure)
    check_roots(tree, ledger, "give what it was made with", trains=lost)
    if lost:
        there = study.place_of(folder)
        with only_driver(folder, there) as held, Snapshots(folder, there, held):
            run = Run(folder, tree, ledger)
            compute_again(run.tree, [step_id], study.resources, console)
            run.end()
    network = tree.network(tree.node(step_id))
    if form != n.FP32:
        network = tree.in_form(network, form)
    exporter.write(network, tree.problem, target)
    return point_id({n.STEP_ID: step_id, n.FORM: form})


def _check_form(form: str, *, trusted: bool) -> None:
    try:
        FORMS.load(form, trusted=trusted)
    except InputError as error:
        raise InputError(f"--point: {error}") from None


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise InputError(f"--to: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise InputError(f"--to: {target} is a folder; name a file in it")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"--to: {target} can't be written; choose another file")


def find_point(store: Store, point: str, folder: Path) -> str:
    """The one step id that begins with ``point``."""
    matching = [step_id for step_id in store.ids() if point and step_id.startswith(point)]
    if len(matching) != 1:
        found = "no point" if not matching else f"{len(matching)} points"
        raise InputError(f"--point: {point!r} names {found} in {folder}; give a step_id of points.jsonl")
    return matching[0]
