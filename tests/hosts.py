"""Hosts for Ray nodes on one machine: network namespaces with addresses of their own, joined by a bridge.

Where namespaces can't be made (not root, or a container without the right), all hosts are this machine, and none can be cut
off. Every process on a host is killed at the end by its id; no other Ray on the machine is touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

from tests import ROOT

IP = shutil.which("ip") or "/usr/sbin/ip"
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
T = TypeVar("T")
DEADLINE = 180.0
RAY_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "4",
    "RAY_memory_monitor_refresh_ms": "0",
}  # fmt: skip
"""A node that can't be reached is given up after about ten seconds instead of more than half a minute.

And no worker is killed because other programs on this machine take its memory.
"""


def ip(*words: str) -> str:
    return subprocess.run([IP, *words], check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own command


def unused_name() -> str:
    """A name for a link, a namespace or a folder; process ids aren't unique where several containers share a network."""
    return f"pf{secrets.token_hex(3)}"


def unused_network() -> str:
    """The first three numbers of addresses that nothing here has: other tests may run, or have been killed."""
    taken = ip("-4", "-oneline", "address")
    networks = (f"10.213.{number}" for number in range(256))
    return secrets.choice([network for network in networks if f" {network}." not in taken])


def can_isolate() -> bool:
    """Whether network namespaces can be made here."""
    probe = unused_name()
    try:
        ip("netns", "add", probe)
        ip("netns", "del", probe)
        ip("link", "add", probe, "type", "bridge")
        ip("link", "del", probe)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def until(what: str, happened: Callable[[], T | None], seconds: float = DEADLINE) -> T:
    """Wait until something has happened, and return what is true of it."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"waited {seconds:g} seconds for {what}"
        time.sleep(0.5)  # to look takes time of the cores that are waited for
    return found


class Host:
    """One host. ``link`` is its end of the cable, in the machine's own namespace."""

    def __init__(self, hosts: Hosts, number: int) -> None:
        self.hosts, self.name, self.link = hosts, f"{hosts.name}-{number}", f"{hosts.name}v{number}"
        self.address = f"{hosts.network}.{number}" if hosts.isolated else hosts.own_address
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, before: str = "", cwd: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
        """Start a command in a folder, after the shell command ``before``; its output goes to a file of its own."""
        inside = ["sh", "-c", f'{before}\nexec "$@"', "sh", *words] if before else list(words)
        command = [IP, "netns", "exec", self.name, *inside] if self.hosts.isolated else inside
        log = (self.hosts.folder / f"{self.name}-{len(self._started)}.log").open("w")
        started = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=cwd, env=self.hosts.environment | environment, stdout=log, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._started.append(started)
        return started

    def output(self, process: subprocess.Popen[str]) -> str:
        """What a command that was started here has written so far."""
        return (self.hosts.folder / f"{self.name}-{self._started.index(process)}.log").read_text()

    def search(self, *words: str, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
        """Start ``python -m search`` here."""
        return self.start(sys.executable, "-m", "search", *words, cwd=cwd, **environment)

    def start_head(self, port: int, dashboard: int | None = None) -> None:
        """Start Ray's head here; no trial fits on it. With a ``dashboard``'s port it takes jobs."""
        shown = f"--dashboard-port={dashboard}" if dashboard else "--include-dashboard=false"
        listening = (f"--dashboard-host={self.address}",) if dashboard else ()
        self._start_ray("--head", f"--port={port}", "--num-cpus=0", shown, *listening)

    def start_node(self, before: str = "") -> None:
        """Start a node of the cluster here, with one core."""
        self._start_ray(f"--address={self.hosts.ray_address}", "--num-cpus=1", before=before)

    def _start_ray(self, *words: str, before: str = "") -> None:
        # One after the other: two that start at once in one temporary folder get into each other's way.
        own = [f"--node-ip-address={self.address}", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
        own.append("--include-log-monitor=false")  # the hosts are one machine, and nobody reads what it would send
        node = self.start(*RAY, "start", *words, *own, before=before)
        until("a node", lambda: "Ray runtime started" in self.output(node) or node.poll() is not None)
        assert node.poll() is None, self.output(node)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on this host."""
        if self.hosts.isolated:
            numbers = [int(line) for line in ip("netns", "pids", self.name).split()]
            return [psutil.Process(number) for number in numbers if psutil.pid_exists(number)]
        alive = [psutil.Process(p.pid) for p in self._started if p.poll() is None]
        return [*alive, *(child for process in alive for child in process.children(recursive=True))]

    def runs(self, word: str) -> bool:
        """Whether a process here has the word in its command line."""
        for process in self.processes():
            try:
                if any(word in part for part in process.cmdline()):
                    return True
            except psutil.Error:
                continue
        return False

    def kill(self) -> None:
        """Kill all that runs here at once, as a power cut would."""
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        for started in self._started:
            started.wait()

    def cut_off(self) -> None:
        """Pull the cable."""
        ip("link", "set", self.link, "down")

    def bring_back(self) -> None:
        """Put the cable in again."""
        ip("link", "set", self.link, "up")


class Hosts:
    """Some hosts and the cluster on them; token authentication is on."""

    def __init__(self, folder: Path) -> None:
        self.isolated, self.folder, self.name = can_isolate(), folder, unused_name()
        self.network = unused_network() if self.isolated else ""
        self.own_address = f"{self.network}.254" if self.isolated else _outward_address()
        self._hosts: list[Host] = []
        # Sockets live in it, and their paths may have about a hundred characters.
        self.temporary = Path(f"/tmp/{self.name}")  # noqa: S108
        token = secrets.token_hex(32)
        self.environment: dict[str, str] = os.environ | RAY_SETTINGS | {
            "RAY_TMPDIR": str(self.temporary), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self._port = 6379 if self.isolated else _free_port()

    @property
    def head(self) -> Host:
        """The first host."""
        return self._hosts[0]

    @property
    def ray_address(self) -> str:
        """HOST:PORT of the cluster, whose head is the first host."""
        return f"{self.head.address}:{self._port}"

    def add(self) -> Host:
        """One more host, with nothing running on it."""
        host = Host(self, len(self._hosts) + 1)
        self._hosts.append(host)
        if self.isolated:
            ip("netns", "add", host.name)
            ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", host.link, "master", self.name, "up")
            ip("-n", host.name, "link", "set", "lo", "up")
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
        return host

    def add_head(self, dashboard: int | None = None) -> Host:
        """The first host, with the head on it."""
        head = self.add()
        head.start_head(self._port, dashboard)
        return head

    def make(self) -> None:
        self.temporary.mkdir(mode=0o700)
        if self.isolated:
            ip("link", "add", self.name, "type", "bridge")
            ip("address", "add", f"{self.own_address}/24", "dev", self.name)
            ip("link", "set", self.name, "up")

    def remove(self) -> None:
        for host in self._hosts:
            host.kill()
        for host in self._hosts if self.isolated else ():
            ip("netns", "del", host.name)
        if self.isolated:
            ip("link", "del", self.name)
        shutil.rmtree(self.temporary, ignore_errors=True)


@contextmanager
def hosts(folder: Path) -> Iterator[Hosts]:
    """Hosts that are gone at the end, whatever happens."""
    found = Hosts(folder)
    try:
        found.make()
        yield found
    finally:
        found.remove()


def _outward_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 1))  # sends nothing
        return str(probe.getsockname()[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
