"""Lines of JSON that a crash may have cut short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainables.records.names import InputError
from trainables.records.untrusted import parse_json, read


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line's number and object; a cut last line is left out, any other broken one is an InputError."""
    try:
        lines = read(path).split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore the file that the study wrote") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            # Every whole line ends with a newline, so one without was cut while it was written.
            if number == len(lines):
                return
            raise InputError(f"{path}, line {number}: no valid JSON ({error}); repair or remove the line") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}: no JSON object; repair or remove the line")
        yield number, record
