"""Where numbers come from: of every run its versions, hardware and code; fingerprints of the data and of dense weights.

The file is written as a run starts and again as it ends, so that a run which was killed is known too. What it says at its
top is of the last run; ``history`` holds every run, consecutive ones under the same conditions as one entry.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.records.ledger import Ledger
from trainables.identity import NUMERICS_VERSION, code_hash
from trainables.measuring.memory import peak_memory
from trainables.measuring.targets import processor
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.records.names import printable
from trainables.records.untrusted import parse_json, read
from trainables.storage.store import to_json
from trainables.tree import Tree

PACKAGES = ("torch", "torchvision", "torch-pruning", "ray", "optuna", "numpy", "moocore")
NODES = "nodes"
PEAKS = "peak_memory_mb"
"""Of the last run: the most that the driver, and any worker that ran trials, had in memory."""
LONGEST = 80
"""Characters of a value that are told: the file may come from anyone."""
COUNTS = {"first": int, "runs": int, "completed": int, "hours": int | float}
"""What each entry of the history must have: the number of its first run, how many there were, and how many ended."""

Told = dict[str, Any]


class Run:
    """A run that computes for a study, on record from its start; the steps that it computes tell its ``number``.

    ``nodes`` is the hardware of a cluster by host, to which late ones come; ``left_out`` what the study can't do,
    and ``protected`` what its cuts leave whole.
    """

    def __init__(
        self, folder: Path, tree: Tree, ledger: Ledger, nodes: Mapping[str, Any] | None = None, left_out: Any = None,
        protected: Any = None,
    ) -> None:  # fmt: skip
        self._file = folder / n.PROVENANCE_FILE
        self._ledger, self._left_out, self._protected = ledger, left_out, protected
        self._nodes = {} if nodes is None else nodes
        self._peaks = dict[str, int]()
        self._before = read_before(self._file)
        self._started, self._began = _now(), time.monotonic()
        self._at_start = {"at": self._started, "trials": len(ledger.trials), "epochs": ledger.epochs_computed}
        self.number = self._before["runs"] + 1
        self.tree = replace(tree, store=tree.store.of_run(self.number))
        self.changed = changes(self._before[n.HISTORY][-1], self._conditions()) if self._before[n.HISTORY] else None
        """What is not as it was in the run before, in one line; None if all is."""
        self._write(ended=False)

    def note_worker(self, peak: int) -> None:
        """Keep the largest ``peak`` of a worker's memory, in MB."""
        self._peaks["worker"] = max(peak, self._peaks.get("worker", 0))

    def end(self) -> None:
        """Put on record that the run has come to its end, and how long it took."""
        self._write(ended=True)

    def _write(self, *, ended: bool) -> None:
        write_atomically(self._file, to_json(self._told(ended=ended), indent=1))

    def _told(self, *, ended: bool) -> Told:
        before, conditions = self._before, self._conditions()
        hours = (time.monotonic() - self._began) / 3600 if ended else 0.0
        entry = {
            "first": self.number, "runs": 1, "completed": int(ended), "hours": round(hours, 4), "started": self._started,
            "ended": _now() if ended else None, **conditions,
        }  # fmt: skip
        return {
            "first_run": before.get("first_run", self._started),
            "last_run": _now(),
            n.BEGAN: self._at_start,
            "runs": self.number,
            "hours": round(before["hours"] + hours, 4),
            **conditions,
            NODES: {**before[NODES], **self._nodes},
            PEAKS: {"driver": peak_memory(), **self._peaks},
            "data": _data(self.tree.problem),
            "dense": {str(row[n.SEED]): _dense(self.tree, row) for row in self._ledger.dense.values()},
            "left_out": before.get("left_out") if self._left_out is None else self._left_out,
            n.PROTECTED: before.get(n.PROTECTED) if self._protected is None else self._protected,
            n.HISTORY: _with(before[n.HISTORY], entry, conditions),
        }

    def _conditions(self) -> Told:
        """What numbers depend on, beside the study itself."""
        problem = self.tree.problem
        return {
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in PACKAGES},
            "hardware": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
            NODES: dict(self._nodes),
            "training": {"precision": problem.precision, "threads": problem.threads, "device": problem.device},
            "code": {"sha256": code_hash(), "numerics_version": NUMERICS_VERSION},
        }


def read_before(path: Path) -> Told:
    """What earlier runs wrote; of what is damaged nothing, because it is about to be written anew."""
    try:
        found = parse_json(read(path))
    except (FileNotFoundError, ValueError):
        found = None
    kinds = {"first_run": str, "runs": int, "hours": int | float}
    whole = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in kinds.items())
    before = found if whole else {"runs": 0, "hours": 0.0}
    nodes = before.get(NODES)
    return {**before, NODES: nodes if isinstance(nodes, dict) else {}, n.HISTORY: _history(before)}


def _history(before: Told) -> list[Told]:
    """The entries of every run; of a file that kept the last one's conditions alone, one entry for them all."""
    entries = before.get(n.HISTORY)
    if isinstance(entries, list):
        return [entry for entry in entries if _is_entry(entry)]
    if not before["runs"]:
        return []
    kept = {name: before[name] for name in ("versions", "hardware", NODES, "training", "code") if name in before}
    counts = {"first": 1, "runs": before["runs"], "completed": before["runs"], "hours": before["hours"]}
    return [{**counts, "started": before["first_run"], "ended": before.get("last_run"), **kept}]


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in COUNTS.items())


def _with(history: list[Told], entry: Told, conditions: Told) -> list[Told]:
    """The history with one more run: part of the last entry if nothing has changed since."""
    if not history or any(history[-1].get(name) != value for name, value in conditions.items()):
        return [*history, entry]
    last = history[-1]
    counted = {name: round(last[name] + entry[name], 4) for name in ("runs", "completed", "hours")}
    return [*history[:-1], {**last, **counted, "ended": entry["ended"] or last.get("ended")}]


def changes(before: Told, now: Told) -> str | None:
    """The versions, hardware and code that are not what they were, in one line; None if all are."""
    told = dict(_flat(before))
    found = [f"{name} {told[name]}, now {value}" for name, value in _flat(now) if told.get(name, value) != value]
    return printable("; ".join(found)) or None


def _flat(conditions: Told) -> Iterator[tuple[str, str]]:
    for part in ("versions", "hardware"):
        section = conditions.get(part)
        told = section.items() if isinstance(section, dict) else ()
        yield from ((name, str(value)[:LONGEST]) for name, value in told)
    nodes, code = conditions.get(NODES), conditions.get("code")
    if isinstance(nodes, dict) and nodes:
        yield "nodes", " and ".join(sorted({str(node)[:LONGEST] for node in nodes.values()}))
    if isinstance(code, dict):
        yield "code", str(code.get("sha256"))[:8]


def _data(problem: Problem) -> Told:
    data = problem.data
    return {
        "fingerprint": data.fingerprint,
        "training_images": len(data.train_labels),
        "validation_images": len(data.validation_labels),
        "classes": list(data.classes),
        "preparation": data.preparation,
    }


def _dense(tree: Tree, row: Mapping[str, Any]) -> Told:
    record = tree.known(row[n.STEP_ID]) or {}
    return {
        "step_id": row[n.STEP_ID],
        "sha256": record.get("checksums", {}).get(n.WEIGHTS_FILE),
        tree.measure.column: row[tree.measure.column],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
