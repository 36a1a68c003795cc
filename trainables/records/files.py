"""Writing that a crash cannot leave half done."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

TEMPORARY = ".tmp"
"""The ending of what is being written, which a process that is killed leaves behind."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``path``, text in UTF-8: a reader, or a crash, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_temporaries(*folders: Path) -> None:
    """Remove from these folders, not from those in them, what processes left that were killed in the middle of writing."""
    for folder in folders:
        for left in folder.glob(f".*{TEMPORARY}"):
            left.unlink(missing_ok=True)
