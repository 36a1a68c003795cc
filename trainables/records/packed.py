"""The records of many steps in one compressed file, a line each."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from typing import Any

from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import is_address, parse_json

LARGEST = 1 << 30
"""Bytes of records that a file may hold: of some hundred thousand steps."""


def unpacked(content: bytes, place: object) -> dict[str, bytes]:
    """Step id -> its record as JSON. InputError, naming the ``place`` where the file lies, if it is damaged."""
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = unzip.decompress(content, LARGEST)
        if not unzip.eof:
            raise ValueError("it is cut, or larger than records can be")
        found = {_address(parse_json(line)): line for line in text.splitlines()}
    except (zlib.error, ValueError) as error:
        raise InputError(f"{place}/{n.PACKED_FILE}: can't be read ({error}); restore it, or remove it") from None
    return found


def packed(records: Mapping[str, bytes]) -> bytes:
    """The file of these records, each one line of JSON; of the same records always the same bytes."""
    return gzip.compress(b"".join(records[step_id] for step_id in sorted(records)), mtime=0)


def _address(record: Any) -> str:
    step_id = record.get("id") if isinstance(record, dict) else None
    if not is_address(step_id):
        raise ValueError("a line is no step's record")
    return str(step_id)
