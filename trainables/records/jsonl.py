"""Lines of JSON, of which a crash may have cut the last one short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainables.records.names import InputError
from trainables.records.untrusted import parse_json, read

Row = dict[str, Any]
REMEDY = "repair or remove the line"


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
