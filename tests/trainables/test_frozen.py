"""Results that were committed long ago stay known: each step by its address, and every folder to who reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.load import load_study as read_study
from analysis.pareto import front, hypervolume
from search.study import load_study
from tests import ROOT
from trainables.chain import MethodSettings
from trainables.node import Node, address
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.points import OF_EVERY_RECORD, SCHEMA
from trainables.schedule import FAMILIES, Schedule
from trainables.storage.store import Store, to_json
from trainables.tree import Tree, point_of

FROZEN = ROOT / "tests" / "frozen"
STUDIES = {"comparison_short_budgets": 900, "cifar10_subset": 140}
"""The committed studies, and steps that each has at least."""


def frozen(study: str) -> list[dict[str, Any]]:
    """Records as they were written, one of each kind of step with those before it."""
    return [json.loads(line) for line in (FROZEN / study / "steps.jsonl").read_text().splitlines()]


def tree_of(folder: Path, records: list[dict[str, Any]]) -> Tree:
    """A tree that finds these records; what it finds them by is in them alone."""
    for record in records:
        file = folder / record["id"] / n.STEP_FILE
        file.parent.mkdir(parents=True)
        file.write_bytes(to_json(record, indent=1))
    nothing: Any = None
    return Tree(nothing, Store(folder))


@pytest.mark.parametrize("study", STUDIES)
def test_frozen_records_are_known(study: str, tmp_path: Path) -> None:
    records = frozen(study)
    kinds = {record["settings"]["kind"] for record in records}
    families = {record["settings"].get(n.FAMILY) for record in records}
    assert (kinds, families) == ({"dense", "sparse", "prune"}, {None, n.UNSTRUCTURED, n.STRUCTURED})
    tree = tree_of(tmp_path, records)
    for record in records:
        assert address(record["parent"], record["settings"]) == record["id"]
        assert tree.known(record["id"]) == record
        assert {point_of(record)[column] for column in (n.ACCURACY,)} == {record[n.ACCURACY]}


def test_a_record_without_a_column_that_is_newer_is_known_and_one_of_a_newer_program_is_told(tmp_path: Path) -> None:
    store = tree_of(tmp_path, []).store
    written = frozen("comparison_short_budgets")[0]
    record = {key: value for key, value in written.items() if key not in ("checksum", "checksums")}
    nothing: Any = None
    tree, step_id = Tree(nothing, store), record["id"]
    store.write({**record, "schema": SCHEMA, "column_of_tomorrow": 1.5}, {})
    assert tree.known(step_id) is not None
    for column in OF_EVERY_RECORD:
        store.write({key: value for key, value in record.items() if key != column}, {})
        assert tree.known(step_id) is None
    store.write({**record, "schema": SCHEMA + 1}, {})
    with pytest.raises(InputError, match=f"{step_id}: its record has version {SCHEMA + 1}, .*; update the program"):
        tree.known(step_id)


@pytest.mark.parametrize("study", STUDIES)
def test_frozen_folders_are_read(study: str, tmp_path: Path) -> None:
    folder = shutil.copytree(FROZEN / study, tmp_path / study)
    read = read_study(folder)
    best = front(read.pruned, read.objectives, read.dense)
    assert [one.name for one in read.objectives] == ["accuracy", "compression"] and len(best) > 2
    assert hypervolume(read.pruned, read.objectives, read.dense, read.accuracy_drop) > 0
    lines = [json.loads(line) for line in (folder / n.POINTS_FILE).read_text().splitlines()]
    assert list(read.points[n.STEP_ID]) == [line[n.STEP_ID] for line in lines]
    assert read.points[n.LATENCY].notna().any() and read.points[n.LATENCY_DENSE].isna().all()


def committed(study: str) -> dict[str, dict[str, Any]]:
    """Every record of a committed study."""
    store = Store(ROOT / "results" / study / n.STEPS_FOLDER)
    return {step_id: record for step_id in store.ids() if (record := store.record(step_id)) is not None}


def schedules_of(study: str) -> Iterator[Schedule]:
    """Those that the study ran, its finalists among them."""
    for line in (ROOT / "results" / study / n.TRIALS_FILE).read_text().splitlines():
        fields = json.loads(line)[n.SCHEDULE]
        yield FAMILIES[fields["family"]](**fields)


@pytest.mark.parametrize("study", STUDIES)
def test_the_schedules_of_committed_studies_lead_to_the_committed_steps(study: str) -> None:
    records, settings = committed(study), load_study(ROOT / "results" / study / n.STUDY_FILE)
    roots = {r["settings"]["seed"]: Node(None, r["settings"]) for r in records.values() if r["parent"] is None}
    nothing: Any = None
    tree = Tree(nothing, Store(ROOT / "results" / study / n.STEPS_FOLDER))
    assert len(records) > STUDIES[study] and all(tree.known(step_id) for step_id in records)
    methods = MethodSettings(settings.retraining, settings.regularisation)
    met = {root.id for root in roots.values()}
    for schedule in {*schedules_of(study), *settings.schedules()}:
        for node in methods.chain(roots[schedule.seed], schedule):
            met |= {node.id, node.parent.id if node.parent else node.id}
    # Of a trial that was stopped the last steps weren't computed; of a sweep every one was.
    assert met >= records.keys() and (settings.sweep is None or met == records.keys())
