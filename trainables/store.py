"""The tree of steps on disk: each step written once, complete when its ``step.json`` is there, never changed.

A step that two trials want at the same time is computed by one of them: the claim is an advisory file lock, which the
operating system gives back when its holder dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainables import names as n
from trainables.untrusted import is_address, parse_json, read

Record = dict[str, Any]

CHECKSUM = "checksum"
"""The key of a record's checksum of itself."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``path`` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """JSON with a line feed at its end; NaN and infinity, which JSON doesn't have, are an error."""
    return (json.dumps(value, allow_nan=False, indent=indent) + "\n").encode()


def _checksum(record: Record) -> str:
    return hashlib.sha256(to_json({key: value for key, value in record.items() if key != CHECKSUM})).hexdigest()


@dataclass(frozen=True)
class Store:
    """The folder ``steps/`` of one study. ``memory`` holds weights files that every worker was handed at its start."""

    folder: Path
    memory: Mapping[str, bytes] = field(default_factory=dict)

    def record(self, step_id: str) -> Record | None:
        """What is on record of a step, or None if it isn't complete (a damaged record counts as none)."""
        try:
            if not is_address(step_id):
                return None
            record = parse_json(read(self.folder / step_id / n.STEP_FILE))
            whole = isinstance(record, dict) and record.get("id") == step_id and record.get(CHECKSUM) == _checksum(record)
        except (FileNotFoundError, ValueError):  # no JSON is a ValueError, and so is JSON with NaN in it
            return None
        return record if whole and isinstance(record.get("checksums"), dict) else None

    def weights(self, record: Record, file: str = n.WEIGHTS_FILE) -> bytes | None:
        """The content of a step's weights file, or None if it is missing or differs from its checksum."""
        step_id = record["id"]
        if file == n.WEIGHTS_FILE and step_id in self.memory:
            return self.memory[step_id]
        try:
            content = read(self.folder / step_id / file)
        except FileNotFoundError:
            return None
        return content if hashlib.sha256(content).hexdigest() == record["checksums"].get(file) else None

    def write(self, record: Record, files: Mapping[str, bytes]) -> Record:
        """Store a step: its files first, then the record with their checksums, which completes it."""
        folder = self.folder / record["id"]
        for name, content in files.items():
            write_atomically(folder / name, content)
        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        complete = {**record, "checksums": checksums}
        complete[CHECKSUM] = _checksum(complete)
        write_atomically(folder / n.STEP_FILE, to_json(complete, indent=1))
        return complete

    def discard_weights(self, step_id: str) -> None:
        """Give back the disk that a step's weights take; it still counts as measured."""
        for name in (n.WEIGHTS_FILE, n.REWIND_FILE):
            (self.folder / step_id / name).unlink(missing_ok=True)

    @contextmanager
    def claim(self, step_id: str) -> Iterator[None]:
        """Hold the right to compute a step, waiting while another process holds it."""
        folder = self.folder / step_id
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / n.CLAIM_FILE):
            yield

    def ids(self) -> list[str]:
        """The addresses of all complete steps."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{n.STEP_FILE}"))
