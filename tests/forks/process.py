"""A process that is forked, as ``subprocess`` would have it, and the process that forks, which is started when needed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import IO, Any

from tests import ROOT
from tests.forks.ray_forks import REAL, forks, ray_forks_workers
from tests.forks.worker import LONGEST, SOCKET, ask
from trainables.pruning import gates


class Fork:
    """What Python runs with these arguments, and input, output and errors; the parts of ``Popen`` that tests use.

    One that ``leads`` has a session of its own, and may start Ray.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, files: Sequence[IO[bytes]],
        *, leads: bool = True,
    ) -> None:  # fmt: skip
        self.returncode: int | None = None
        numbers = [file.fileno() for file in files]
        self._asking = ask(os.environ[SOCKET], arguments, environment, str(folder), numbers, leads=leads)
        self.pid = int(self._asking.recv(LONGEST))

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        if self.returncode is None and select.select([self._asking], [], [], 0)[0]:
            self.returncode = int(self._asking.recv(LONGEST))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; TimeoutExpired if there is none after so many seconds."""
        if self.poll() is None:
            select.select([self._asking], [], [], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Nothing if it has ended."""
        self.send_signal(signal.SIGKILL)


@cache
def start_forking() -> None:
    """From now on fork drivers, and the workers of every Ray that is started here; where that can't be, do nothing."""
    if sys.platform != "linux" or REAL in os.environ:
        return
    name = f"forks-of-{os.getpid()}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads don't outlive a fork
    command, pipe = [sys.executable, "-m", "tests.forks.server", name], subprocess.PIPE
    server = subprocess.Popen(  # noqa: S603 - it ends when this process does, and with it the pipe
        command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, start_new_session=True
    )
    assert server.stdout
    assert server.stdout.readline(), "the process that forks has ended"
    os.environ[SOCKET] = name
    SERVERS.append(server)
    ray_forks_workers()
    gates_fork()


def gates_fork() -> None:
    """Have the gate's processes forked while ``forks()``."""
    gates.subprocess = SimpleNamespace(run=_run, TimeoutExpired=subprocess.TimeoutExpired)  # type: ignore[assignment]


def _run(command: Sequence[str], **given: Any) -> subprocess.CompletedProcess[bytes]:
    """``subprocess.run`` as the gate calls it."""
    if not forks():
        return subprocess.run(command, **given)  # noqa: PLW1510, S603 - as it is given
    with TemporaryFile() as asked, TemporaryFile() as told, TemporaryFile() as said:
        asked.write(given["input"])
        asked.seek(0)
        fork = Fork(command[1:], given["env"], Path.cwd(), (asked, told, said), leads=False)
        try:
            status = fork.wait(given["timeout"])
        finally:
            fork.kill()
        outputs = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in (told, said)]
    return subprocess.CompletedProcess(command, status, *outputs)


SERVERS: list[subprocess.Popen[bytes]] = []
"""Kept, and so are their pipes."""


def python(
    *arguments: str, said: Path, environment: Mapping[str, str], folder: Path = ROOT
) -> Fork | subprocess.Popen[bytes]:
    """Python with these arguments, run in ``folder``, leading a session of its own; it writes its errors to ``said``."""
    with said.open("wb") as output:
        if forks():
            with open(os.devnull, "r+b") as nothing:  # noqa: PTH123
                return Fork(arguments, environment, folder, (nothing, nothing, output))
        nothing = subprocess.DEVNULL
        return subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, *arguments], cwd=folder, env=environment, stdin=nothing, stdout=nothing, stderr=output,
            start_new_session=True,
        )  # fmt: skip
