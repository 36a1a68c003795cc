"""What a process takes of a machine's memory."""

from __future__ import annotations

import resource
import sys


def peak_memory() -> int:
    """The most memory that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))  # bytes there, and kilobytes elsewhere
