"""Ray on this machine alone, or a cluster that is there already."""

from __future__ import annotations

import logging
import os
import site
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import ray
from ray._private import ray_constants
from ray._private.runtime_env.packaging import RAY_PKG_PREFIX

from search.cluster.daemon import watched
from search.cluster.interrupts import take_sigterm_back
from search.cluster.node_checks import Cluster, look
from search.cluster.reaper import reaper
from search.study import Study
from trainables.records.names import InputError
from trainables.settings import one_line
from trainables.storage.base import is_url

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0", "TUNE_PRINT_ALL_TRIAL_ERRORS": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's error is a result without metrics
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # Tune would write all trials to its own files again and again
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths, such as a checkpoint's, mean the same in a worker as here
}  # fmt: skip
REACH = 5.0
CONNECT = 60.0
"""Seconds to wait for a port that answers, and for a connection to Ray."""
ATTEMPT = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
PATIENCE = {"RAY_NUM_REDIS_GET_RETRIES": "3"}
"""So that a refused token is told after three seconds instead of twenty."""


@contextmanager
def local() -> Iterator[None]:
    """Ray on this machine alone, or the one that this process has already, which then stays.

    A bare ``init`` would attach to whatever cluster was last started here.
    """
    if ray.is_initialized():
        with _prepared():
            yield
        return
    if os.environ.get("RAY_TMPDIR") == "":  # Ray would take it for the current folder, and not start
        raise InputError("ray: RAY_TMPDIR is empty; unset it, or name a folder")
    with _prepared(), environment(_importable()), _loopback(), reaper(), ExitStack() as stack:
        stack.callback(ray.shutdown)
        stack.enter_context(watched())  # until before the shutdown
        try:
            ray.init(address="local", log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        except Exception as error:  # whatever keeps Ray from starting is told the same way
            raise InputError(
                f"ray: can't be started here ({one_line(error)}); check RAY_TMPDIR, and the room there and in /dev/shm"
            ) from None
        yield


class LazyRay:
    """Ray on this machine, begun when it is first needed and ended with the ``with`` block; one that is there is used."""

    def __init__(self) -> None:
        self._stack, self._started = ExitStack(), False

    def start(self) -> None:
        """Have a Ray to compute with."""
        if not self._started:
            self._stack.enter_context(local())
            self._started = True
        take_sigterm_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


@contextmanager
def connected(address: str, study: Study) -> Iterator[Cluster]:
    """The cluster at ``address``; InputError if it can't be reached, or can't run the study."""
    if Path.cwd().name.startswith(RAY_PKG_PREFIX) and not (is_url(study.storage) or Path(study.storage).is_absolute()):
        raise InputError(
            f"storage: {study.storage!r} would lie in this job's copy of the code, which Ray deletes; "
            "name s3://…, or a folder that all nodes share by its absolute path"
        )
    _attempt(address)
    with _prepared():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # whatever keeps Ray from connecting is told the same way
            raise _unreachable(address, one_line(error)) from None
        try:
            yield look(study)
        finally:
            ray.shutdown()


def _attempt(address: str) -> None:
    """InputError if Ray can't connect. It writes to the screen while it tries, for minutes, so another process tries."""
    host, _, port = address.rpartition(":")
    if address != "auto":
        if not (host and port.isdigit()) or "/" in address:
            raise InputError(f"--address: {address!r} is neither HOST:PORT nor auto; run this on a node of the cluster")
        try:
            socket.create_connection((host.strip("[]"), int(port)), REACH).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, one_line(error)) from None
    try:
        command = [sys.executable, "-c", ATTEMPT, address]
        done = subprocess.run(  # noqa: S603 - our own command
            command, env=os.environ | PATIENCE, capture_output=True, text=True, timeout=CONNECT, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no answer in {CONNECT:g} seconds") from None
    if "AuthToken" in done.stderr or "AuthenticationError" in done.stderr:
        raise InputError(
            f"--address: the cluster at {address} refuses the token; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on its nodes"
        )
    if done.returncode:
        raise _unreachable(address, one_line(Exception(done.stderr.strip().rpartition("\n")[2])))


def _unreachable(address: str, why: str) -> InputError:
    return InputError(
        f"--address: no Ray cluster can be reached at {address} ({why}); run this on one of its nodes, "
        "or leave --address out to use this machine alone"
    )


@contextmanager
def _prepared() -> Iterator[None]:
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with environment(ENVIRONMENT):
        yield


def _importable() -> dict[str, str]:
    """What has workers find this program where a notebook, say, found it by a ``sys.path`` of its own."""
    here = str(Path(__file__).parents[2])
    if here in site.getsitepackages():
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here]))}


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables inside, and what was there before afterwards: a Tuner of the caller's own is not to see them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _loopback() -> Iterator[None]:
    """All ports of a Ray that is started inside listen on the loopback address, as they do on macOS and Windows."""
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
