"""Lines of JSON, of which a crash may have cut the last one short; and the records of many steps, packed into one file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.untrusted import is_address, parse_json, read

Row = dict[str, Any]
REMEDY = "repair or remove the line"
LARGEST = 1 << 30
"""Bytes of records that a file may hold: of some hundred thousand steps."""


def read_rows(
    path: Path, fault_of: Callable[[Row], str | None] = lambda _: None, remedy: str = REMEDY
) -> Iterator[tuple[int, Row]]:
    """Each line's number and object, of a file that may not be there yet; a last line that was cut is left out.

    InputError naming the line if it isn't a JSON object, or ``fault_of`` finds something wrong with it.
    """
    try:
        lines = read(path).split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore the file that the study wrote") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            fault = fault_of(row) if isinstance(row, dict) else "is no JSON object"
        except ValueError as error:
            # Every whole line ends with a line feed, so one without was cut while it was written.
            if number == len(lines):
                return
            fault = f"is no valid JSON ({error})"
        if fault:
            raise InputError(f"{path}, line {number}: {fault}; {remedy}")
        yield number, row


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
