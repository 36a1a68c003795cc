"""From a point of a study to a file of its own, with its model card beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from search.model_card import Exported, about, card, of_other_seeds
from search.records.driver import only_driver
from search.records.ledger import Ledger
from search.records.opened import Opened
from search.records.provenance import Run
from search.records.snapshots import Snapshots
from search.session import check_roots, steps_of
from search.stages.recompute import compute_again
from trainables.exporting.base import Format
from trainables.exporting.formats import FORMATS
from trainables.forms.forms import FORMS
from trainables.records import names as n
from trainables.records.confirmation import Terms, members_again
from trainables.records.files import write_atomically
from trainables.records.jsonl import Row, read_rows
from trainables.records.names import InputError
from trainables.records.points import form_of, point_id
from trainables.settings import nearest
from trainables.storage.store import Store
from trainables.tree import Tree, dense_point, point_of

CARD = ".md"
"""What a file's name is followed by in that of its model card."""
OF_FORM = (n.STORED_BYTES, n.COMPRESSION, n.LATENCY)
"""What one stored form measures differently from another, beside the task's measure."""


@dataclass(frozen=True)
class Request:
    """What is to be exported, and how: ``options`` are settings of the format, which may be left to the point's form."""

    point: str
    target: Path
    file_format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False


def export_point(opened: Opened, request: Request, console: Console) -> str:
    """Write the network of a point, computed again if its weights weren't kept; returns the point's id.

    A point is ``step_id[:form]``, and fp32 without a form; any form can be written, measured or not. Without a format,
    fp32 is written as safetensors and any other form as compact.
    """
    folder, study, target = opened.folder, opened.study, request.target
    step, _, form = request.point.partition(":")
    form = form or n.FP32
    _check_form(form, trusted=study.trusted)
    exporter = _exporter(request, form, trusted=study.trusted)
    _check_target(target, force=request.force)
    store = steps_of(study, folder)
    step_id = find_point(store, step, folder)
    tree = Tree(opened.problem(), store)
    lost = not tree.has_weights(step_id)
    ledger = Ledger(folder, study.goals, study.drop, study.storage_forms, mend=False, measure=study.measure)
    check_roots(tree, ledger, "give what it was made with", trains=lost)
    if lost:
        there = study.place_of(folder)
        with only_driver(folder, there) as held, Snapshots(folder, there, held):
            run = Run(folder, tree, Ledger(folder, study.goals, study.drop, measure=study.measure))
            compute_again(run.tree, [step_id], study.resources, console)
            run.end()
    network = tree.network(tree.node(step_id))
    if form != n.FP32:
        network = tree.in_form(network, form)
    point, dense = _row(tree, ledger, folder, step_id, form)
    file = exporter.write(network, tree.problem, target, about(point, folder, study.measure))
    for note in file.notes:
        console.print(note, markup=False, highlight=False)
    members = members_again(folder, ledger.members(), Terms(study.goals, study.measure, study.drop))
    again = next((one for one in members if one.point == point_id(point)), None)
    exported = Exported(point, dense, study, folder, tree.problem, exporter, target, again)
    told = card(exported, file.notes, len(file.content), of_other_seeds(point, ledger.points))
    write_atomically(_card_of(target), told)
    return point_id(point)


def _exporter(request: Request, form: str, *, trusted: bool) -> Format:
    """The format with its settings; InputError if it hasn't one that is given, or needs what isn't installed."""
    name = request.file_format or (n.SAFETENSORS if form == n.FP32 else n.COMPACT)
    kind = FORMATS.load(name, trusted=trusted)
    known = [key for key in kind.model_fields if key != n.FORM]
    for key in request.options:
        if key not in known:
            valid = nearest(key, known) if known else "it has none"
            raise InputError(f"--option {key}: no setting of format {name}; {valid}")
    exporter = FORMATS.make(name, {n.FORM: form}, request.options)
    exporter.check_installed()
    return exporter


def _row(tree: Tree, ledger: Ledger, folder: Path, step_id: str, form: str) -> tuple[Row, Row]:
    """The point as it was measured, with its test accuracy if it was opened; and the dense network that it came from."""
    rows = [row for row in ledger.points if row[n.STEP_ID] == step_id]
    of_form = [row for row in rows if form_of(row) == form]
    node = tree.node(step_id)
    root = dense_point(tree.record_of(node.root))
    if node.parent is None:
        found: Row = dict(root)
    else:
        found = dict((of_form or rows or [point_of(tree.record_of(node)) | {n.SEED: root[n.SEED], n.STEP_ID: step_id}])[0])
    if not of_form and form != n.FP32:
        found |= dict.fromkeys((*OF_FORM, tree.measure.column))
    found[n.FORM] = form
    opened = {point_id(row): row.get(tree.measure.test) for _, row in read_rows(folder / n.CONFIRMED_FILE)}
    test = tree.measure.test
    return found | {test: opened.get(point_id(found))}, root | {test: opened.get(node.root.id)}


def _check_form(form: str, *, trusted: bool) -> None:
    try:
        FORMS.load(form, trusted=trusted)
    except InputError as error:
        raise InputError(f"--point: {error}") from None


def _check_target(target: Path, *, force: bool) -> None:
    if not target.parent.is_dir():
        raise InputError(f"--to: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise InputError(f"--to: {target} is a folder; name a file in it")
    for file in (target, _card_of(target)):
        if file.exists() and not force:
            raise InputError(f"--to: {file} exists; name another file, or replace it with --force")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"--to: {target} can't be written; choose another file")


def _card_of(target: Path) -> Path:
    return target.with_name(target.name + CARD)


def find_point(store: Store, point: str, folder: Path) -> str:
    """The one step id that begins with ``point``."""
    matching = [step_id for step_id in store.ids() if point and step_id.startswith(point)]
    if len(matching) != 1:
        found = "no point" if not matching else f"{len(matching)} points"
        raise InputError(f"--point: {point!r} names {found} in {folder}; give a step_id of points.jsonl")
    return matching[0]
