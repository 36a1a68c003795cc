"""Ray as the tests start it."""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams

from tests.forks.worker import SOCKET

REAL = "REAL_PROCESSES"
"""The environment variable that has no process forked."""
GIVEN = {"setup_worker_path": str(Path(__file__).parent / "worker.py"), "no_monitor": True, "include_log_monitor": False}
"""Of Ray's parameters: the script that starts a worker; nothing that asks for more nodes, or copies logs to the driver."""


def forks() -> bool:
    """Whether processes are forked now."""
    return SOCKET in os.environ and REAL not in os.environ


def ray_forks_workers() -> None:
    """Have every Ray that this process starts fork its workers, and leave out what nobody asks here; while ``forks()``."""
    make, serve = RayParams.__init__, Node.start_api_server

    @wraps(make)
    def made(self: RayParams, *arguments: Any, **given: Any) -> None:
        make(self, *arguments, **((GIVEN | given) if forks() else given))

    @wraps(serve)
    def served(self: Node, **given: Any) -> None:
        if forks():
            self._webui_url = ""  # as it is without a dashboard, which has a process all the same
        else:
            serve(self, **given)

    RayParams.__init__, Node.start_api_server = made, served
