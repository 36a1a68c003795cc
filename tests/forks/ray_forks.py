"""Ray as the tests start it."""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import Any

from ray._private.parameter import RayParams

from tests.forks.worker import SOCKET

REAL = "REAL_PROCESSES"
"""The environment variable that has no process forked."""
GIVEN = {"setup_worker_path": str(Path(__file__).parent / "worker.py"), "no_monitor": True, "include_log_monitor": False}
"""Of Ray's parameters: the script that starts a worker; nothing that asks for more nodes, or copies logs to the driver."""


def ray_forks_workers() -> None:
    """Have every Ray that this process starts from now on fork its workers, unless ``REAL_PROCESSES`` is set."""
    make = RayParams.__init__

    @wraps(make)
    def made(self: RayParams, *arguments: Any, **given: Any) -> None:
        forked = REAL not in os.environ and SOCKET in os.environ
        make(self, *arguments, **((GIVEN | given) if forked else given))

    RayParams.__init__ = made
