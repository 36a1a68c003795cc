"""The stored tree of steps: each step written once, complete when its ``step.json`` is there; to that what is measured
later is added, and nothing else is ever changed.

A step that two trials want at the same time is computed by one of them, which claims it; the claim of a process that dies
passes on. Should two compute a step all the same, both write the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from trainables.records import names as n
from trainables.records.jsonl import packed, unpacked
from trainables.records.untrusted import is_address, parse_json
from trainables.storage.base import Held, Place, Storage
from trainables.storage.places import open_storage

Record = dict[str, Any]

CHECKSUM = "checksum"
"""The key of a record's checksum of itself."""
ASKED = "asked"
"""The key of a record that tells the trial it was computed for, of which it is no property: number and schedule."""
BESIDE_RECORDS = (n.WEIGHTS_FILE, n.REWIND_FILE, n.TRAINING_FILE)
"""Files of a step that its record doesn't need."""
RUN = "run"
"""The key of a record that tells the run it was computed in, by its number in the study's provenance."""


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """JSON with a line feed at its end; NaN and infinity, which JSON doesn't have, are an error."""
    return (json.dumps(value, allow_nan=False, indent=indent) + "\n").encode()


def _checksum(record: Record) -> str:
    return hashlib.sha256(to_json({key: value for key, value in record.items() if key != CHECKSUM})).hexdigest()


def _checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


@dataclass(frozen=True)
class Store:
    """The steps of one study, in a folder or at a URL.

    ``memory`` holds weights that workers were handed at their start. ``reuse`` are the steps of other studies, which are
    read where this one has none, and never written, claimed or locked. Each record written tells the ``run``.
    """

    place: Place
    memory: Mapping[str, bytes] = field(default_factory=dict)
    reuse: tuple[Place, ...] = ()
    run: int | None = None

    @cached_property
    def storage(self) -> Storage:
        """Where the files are read and written; a file's key is ``<step id>/<name>``."""
        return open_storage(self.place)

    @cached_property
    def _others(self) -> tuple[Storage, ...]:
        return tuple(open_storage(place) for place in self.reuse)

    @cached_property
    def _packed(self) -> dict[Place, dict[str, bytes]]:
        """The records of each place that are packed; they are read when the first record isn't where it would be."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}  # workers read what is packed themselves

    def _packed_in(self, storage: Storage, place: Place) -> dict[str, bytes]:
        if place not in self._packed:
            content = storage.read(n.PACKED_FILE)
            self._packed[place] = {} if content is None else unpacked(content, place)
        return self._packed[place]

    def of_run(self, run: int) -> Store:
        """The same steps, for a run that writes."""
        return replace(self, run=run)

    def record(self, step_id: str) -> Record | None:
        """What is on record of a step, or None if it isn't complete (a damaged record counts as none)."""
        if (own := self._own(step_id)) is not None:
            return own
        others = zip(self._others, self.reuse, strict=True)
        found = next((record for other in others if (record := self._read(*other, step_id)) is not None), None)
        # Trials and runs of another study mean nothing here.
        return found and {key: value for key, value in found.items() if key not in (ASKED, RUN)}

    def _own(self, step_id: str) -> Record | None:
        return self._read(self.storage, self.place, step_id)

    def _read(self, storage: Storage, place: Place, step_id: str) -> Record | None:
        """A step's record in one storage, or None if it isn't there and whole."""
        if not is_address(step_id):
            return None
        found = _whole(storage.read(f"{step_id}/{n.STEP_FILE}"), step_id)
        return found or _whole(self._packed_in(storage, place).get(step_id), step_id)

    def weights(self, record: Record, file: str = n.WEIGHTS_FILE) -> bytes | None:
        """The content of a step's weights file, or None if it is missing or differs from its checksum."""
        step_id = record["id"]
        if file == n.WEIGHTS_FILE and step_id in self.memory:
            return self.memory[step_id]
        contents = (storage.read(f"{step_id}/{file}") for storage in (self.storage, *self._others))
        return next((content for content in contents if _is(content, record, file)), None)

    def write(self, record: Record, files: Mapping[str, bytes]) -> Record:
        """Store a step: its files first, then the record with their checksums, which completes it."""
        self._write_files(record, files)
        complete = {**record, "checksums": _checksums(files)} | ({} if self.run is None else {RUN: self.run})
        complete[CHECKSUM] = _checksum(complete)
        self.storage.write(f"{record['id']}/{n.STEP_FILE}", to_json(complete, indent=1))
        return complete

    def amend(self, record: Record, columns: Mapping[str, Any]) -> Record:
        """Put on record what was measured of a complete step later."""
        complete = {**record, **columns}
        complete[CHECKSUM] = _checksum(complete)
        self.storage.write(f"{record['id']}/{n.STEP_FILE}", to_json(complete, indent=1))
        return complete

    def restore(self, record: Record, files: Mapping[str, bytes]) -> bool:
        """Store the files of a complete step again; False, and nothing is stored, if they aren't those on record.

        Those of another study's step are stored here, and its record with them.
        """
        if _checksums(files) != record["checksums"]:
            return False
        if self._own(record["id"]) is None:
            self.write(record, files)
        else:
            self._write_files(record, files)
        return True

    def _write_files(self, record: Record, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            self.storage.write(f"{record['id']}/{name}", content)

    def discard_weights(self, step_id: str) -> None:
        """Give back the room that a step's weights take here; it still counts as measured."""
        for name in BESIDE_RECORDS:
            self.storage.delete(f"{step_id}/{name}")

    def look(self, address: str) -> Record | None:
        """What a look measured at this address, or None if none is on record (a damaged one counts as none)."""
        found = self.storage.read(f"{address}/{n.LOOK_FILE}") if is_address(address) else None
        return None if found is None else _whole(found, address)

    def write_look(self, address: str, columns: Mapping[str, Any]) -> None:
        """Put a look on record."""
        record = {"id": address, **columns, "checksums": {}}
        self.storage.write(f"{address}/{n.LOOK_FILE}", to_json({**record, CHECKSUM: _checksum(record)}, indent=1))

    def looks(self) -> list[str]:
        """The addresses of all looks on record here."""
        return self.storage.folders_with(n.LOOK_FILE)

    def claim(self, step_id: str) -> AbstractContextManager[Held]:
        """Hold the right to compute a step, waiting while another process holds it."""
        return self.storage.claim(f"{step_id}/{n.CLAIM_FILE}")

    def ids(self) -> list[str]:
        """The addresses of all complete steps, those of other studies included."""
        others = zip(self._others, self.reuse, strict=True)
        return sorted({*self.own_ids(), *(step_id for other in others for step_id in self._ids_in(*other))})

    def own_ids(self) -> list[str]:
        """The addresses of the complete steps that are stored here."""
        return self._ids_in(self.storage, self.place)

    def _ids_in(self, storage: Storage, place: Place) -> list[str]:
        return sorted({*storage.folders_with(n.STEP_FILE), *self._packed_in(storage, place)})

    def pack(self) -> int:
        """Have the records of all complete steps here in one file, and remove their own; how many there are then.

        Nobody else may write meanwhile. A file of its own that isn't whole stays where it is.
        """
        records = {step_id: record for step_id in self.own_ids() if (record := self._own(step_id)) is not None}
        content = packed({step_id: to_json(record) for step_id, record in records.items()})
        if content != self.storage.read(n.PACKED_FILE) and records:
            self.storage.write(n.PACKED_FILE, content)
        self._packed.clear()
        more = {step_id for file in BESIDE_RECORDS for step_id in self.storage.folders_with(file)}
        for step_id in self.storage.folders_with(n.STEP_FILE):
            if _whole(self._packed_in(self.storage, self.place).get(step_id), step_id) is None:
                continue
            if step_id in more:
                self.storage.delete(f"{step_id}/{n.STEP_FILE}")
            else:
                self.storage.clear(step_id)
        return len(records)


def _whole(content: bytes | None, step_id: str) -> Record | None:
    """The record of a step that a file holds, or None if it doesn't hold it whole."""
    try:
        record = parse_json(content or b"")
        whole = isinstance(record, dict) and record.get("id") == step_id and record.get(CHECKSUM) == _checksum(record)
    except ValueError:  # no JSON is a ValueError, and so is JSON with NaN in it
        return None
    return record if whole and isinstance(record.get("checksums"), dict) else None


def _is(content: bytes | None, record: Record, file: str) -> bool:
    """Whether this is the content that the record tells of."""
    return content is not None and hashlib.sha256(content).hexdigest() == record["checksums"].get(file)
