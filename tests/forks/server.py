"""The process that forks: ``python -m tests.forks.server NAME``; it prints a line when it is ready."""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from tests.forks.worker import LONGEST, SOCKET

IMPORTED = (
    "trainables.tree", "trainables.measuring.latency", "torch._dynamo", "sklearn.datasets", "sklearn.gaussian_process",
    "sklearn.model_selection", "pandas", "pyarrow.fs", "fsspec", "jsonschema", "moocore", "optuna.storages.journal",
    "requests", "rich.live", "scipy.stats",
)  # fmt: skip
"""What drivers and workers import that takes time, the first optimizer included. Ray no, which reads the environment."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # the collector would write to every page that a fork shares with this process
    with _listening(sys.argv[1]) as listening:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        _serve(listening, until=0)


def _listening(name: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"\0{name}")
    listening.listen(64)
    return listening


def _serve(listening: socket.socket, until: int | None = None) -> None:
    """Fork for all who ask until there is something to read from the file ``until``; in a fork, run what was asked for."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who watch over forks end as they like
    awaited = [listening, *([] if until is None else [until])]
    while listening in select.select(awaited, [], [])[0]:
        asked = listening.accept()[0]
        message, files, _, _ = socket.recv_fds(asked, LONGEST, 3)
        if os.fork() == 0:
            listening.close()
            _watched_over(asked, json.loads(message), files)
            return
        for file in (asked.detach(), *files):
            os.close(file)
    os._exit(0)


def _watched_over(asked: socket.socket, told: Any, files: Sequence[int]) -> None:
    """Run it in a fork, tell its number and its end, and end it when nobody waits for that any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    number = os.fork()
    if number == 0:
        asked.close()
        _become(told, files)
        return
    for file in files:
        os.close(file)
    asked.send(b"%d" % number)
    if asked in select.select([asked, os.pidfd_open(number)], [], [])[0]:
        os.kill(number, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    with suppress(OSError):
        asked.send(b"%d" % status)
    os._exit(0)


def _become(told: Any, files: Sequence[int]) -> None:
    """Run a script, or a module after ``-m``, as a process of its own would, with these files as its first three."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (open(i, mode, 1, closefd=False) for i, mode in enumerate("rww"))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    if not told["leads"]:
        os.setpgid(0, 0)  # as Ray's daemon does, which ends a worker with its group
    else:
        os.setsid()
        if _forks_workers():
            return
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.modules.pop("sitecustomize", None)
    with suppress(ImportError):
        importlib.import_module("sitecustomize")
    atexit.register(gc.unfreeze)  # what stays frozen can't be collected at the end, and nanobind tells that it leaks
    np.random.seed()  # else that of the process that forks
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    _run(*told["arguments"])


def _run(first: str, *arguments: str) -> None:
    if first == "-m":
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *arguments]
        runpy.run_path(first, run_name="__main__")


def _forks_workers() -> bool:
    """Fork once more, for what forks this session's workers and dies with this process; true in a worker, at its end."""
    leader = os.getpid()
    os.environ[SOCKET] = f"forks-{leader}"
    with _listening(os.environ[SOCKET]) as listening:
        if os.fork() == 0:
            os.setpgid(0, 0)  # a terminal's interrupt is not for those who watch over workers
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            if os.getppid() == leader:
                _serve(listening)
            return True
    importlib.import_module("tests.forks.ray_forks").ray_forks_workers()
    return False


if __name__ == "__main__":
    main()
