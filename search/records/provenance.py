"""Where numbers come from: versions, hardware, and fingerprints of the data, of the dense weights and of the code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from search.records.ledger import Ledger
from trainables.identity import NUMERICS_VERSION, code_hash
from trainables.measuring.latency import processor
from trainables.records import names as n

if TYPE_CHECKING:
    from search.session import Session

PACKAGES = ("torch", "torchvision", "torch-pruning", "ray", "optuna", "numpy", "moocore")


def provenance(session: Session, ledger: Ledger, before: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The provenance of a study after one more run of ``seconds``; ``before`` is what the last run wrote."""
    problem = session.tree.problem
    data = problem.data
    return {
        "first_run": before.get("first_run", _now()),
        "last_run": _now(),
        "runs": int(before.get("runs", 0)) + 1,
        "hours": round(float(before.get("hours", 0.0)) + seconds / 3600, 4),
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES},
        "hardware": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "nodes": {**_whole(before.get("nodes")), **session.nodes},
        "training": {"precision": problem.precision, "threads": problem.threads, "device": problem.device},
        "data": {
            "fingerprint": data.fingerprint,
            "training_images": len(data.train_labels),
            "validation_images": len(data.validation_labels),
            "classes": list(data.classes),
        },
        "dense": {str(row[n.SEED]): _dense(session, row) for row in ledger.dense.values()},
        "code": {"sha256": code_hash(), "numerics_version": NUMERICS_VERSION},
        "left_out": session.refused,
        "protected": session.protected,
    }


def _whole(nodes: Any) -> dict[str, Any]:
    """The hardware that earlier runs saw; nothing if it is damaged."""
    return nodes if isinstance(nodes, dict) else {}


def _dense(session: Session, row: Mapping[str, Any]) -> dict[str, Any]:
    record = session.tree.known(row[n.STEP_ID]) or {}
    return {
        "step_id": row[n.STEP_ID],
        "sha256": record.get("checksums", {}).get(n.WEIGHTS_FILE),
        n.ACCURACY: row[n.ACCURACY],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
