"""A script that Ray starts instead of a worker: it has the worker forked, and lives exactly as long."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence

SOCKET = "FORKS_SOCKET"
"""The environment variable with the name, an abstract one, at which the process listens that forks."""
LONGEST = 2**20
"""Bytes of a message."""


def ask(
    name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: str, files: Sequence[int], *, leads: bool
) -> socket.socket:
    """Have a fork run what Python would with these ``arguments``; it ends at the latest when what is returned is closed.

    Two messages come back, its number and its exit status; ``leads``: a session of its own, whose workers it forks.
    """
    told = {"arguments": list(arguments), "environment": dict(environment), "folder": folder, "leads": leads}
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asking.connect(f"\0{name}")
    socket.send_fds(asking, [json.dumps(told).encode()], files)
    return asking


def main() -> None:
    """Pass on the command line without what Ray's own script takes from it, and wait."""
    environment, arguments = dict(os.environ), []
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name == "--serialized-runtime-env-context":
            environment |= json.loads(value).get("env_vars") or {}
        elif name != "--language":
            arguments.append(word)
    with ask(environment[SOCKET], arguments, environment, os.getcwd(), [0, 1, 2], leads=False) as asking:  # noqa: PTH109 - pathlib takes its time
        while asking.recv(LONGEST):
            pass


if __name__ == "__main__":
    main()
