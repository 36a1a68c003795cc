"""What numbers depend on beside settings: the source of this program, and a version that is raised by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

NUMERICS_VERSION = 1
"""Raised by hand when code changes the numbers that a step gives; every address changes with it."""


def code_hash() -> str:
    """SHA-256 over the source of ``trainables``, which is all that makes numbers."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(here.rglob("*.py")):
        digest.update(str(file.relative_to(here)).encode() + file.read_bytes())
    return digest.hexdigest()
