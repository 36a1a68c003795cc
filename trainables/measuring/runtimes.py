"""Targets that run a network's ONNX file, and the registry of all targets."""

from __future__ import annotations

import importlib.metadata
import math
import os
import signal
import subprocess
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from trainables import own
from trainables.exporting import onnx_file
from trainables.exporting.onnx_file import Onnx, serialised
from trainables.exporting.programs import IMAGES, refused
from trainables.measuring.quiet import computing
from trainables.measuring.targets import Target, Timings, Torch, features, processor
from trainables.measuring.timing import time_calls
from trainables.methods import Registry, section
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.records import names as n
from trainables.records.names import InputError
from trainables.records.objectives import LATENCY, LatencyOn, Objective
from trainables.records.points import SMALLEST
from trainables.settings import Settings, nearest, one_line

MARK = "pruning-front milliseconds:"
"""What comes before the answer among all that a function of the user's own prints."""
CHILD = """\
import importlib, sys
module, _, name = sys.argv[1].partition(":")
print("\\n" + sys.argv[3], float(getattr(importlib.import_module(module), name)(sys.argv[2])))
"""


class _OfFile(Target):
    """A target that is given the network as an ONNX file: of fp32, with images normalised, for batches of any size."""

    def check(self) -> None:
        """InputError if what writes ONNX files isn't installed."""
        try:
            Onnx.check_installed()
        except InputError as error:
            told = str(error).removeprefix(f"format: {Onnx.name} ")
            raise InputError(f"objectives: {self.objective.name} {told} (the extra onnx)") from None

    @property
    def objective(self) -> Objective:
        """What it measures."""
        return LatencyOn(self.name)

    def conditions(self, problem: Problem) -> Mapping[str, Any]:
        """The host's, and of what the file is made with."""
        packages = {name: importlib.metadata.version(name) for name in ("onnx", "onnxscript")}
        return {
            "target": self.objective.name, "processor": processor(), "features": features(),
            "input": list(problem.data.shape), "batches": [1], "torch": torch.__version__, **packages,
        }  # fmt: skip

    def ready(self, network: Network, problem: Problem) -> Callable[[], Timings]:
        """The file is written while others compute, and timed while nothing does."""
        self.check()
        try:
            with computing():
                content = serialised(Onnx().translated(network, problem, {})[0], Onnx.name)
                run = self.loaded(content, problem)
        except InputError as error:
            raise InputError(f"objectives: {self.objective.name}: {str(error).removeprefix('format: ')}") from None
        return lambda: {self.objective.column: run()}

    @abstractmethod
    def loaded(self, content: bytes, problem: Problem) -> Callable[[], dict[str, Any]]:
        """What times the file's content."""


class OnnxRuntime(_OfFile):
    """onnxruntime on this host's CPU: the objective ``latency.onnx``."""

    name, label = "onnx", "onnxruntime"
    threads: int | None = Field(None, ge=1, description="threads of onnxruntime for latency.onnx; null: a trial's cores")

    def conditions(self, problem: Problem) -> Mapping[str, Any]:
        """With its version and its threads."""
        threads, version = self.threads or problem.threads, importlib.metadata.version("onnxruntime")
        return {**super().conditions(problem), "threads": threads, "onnxruntime": version}

    def loaded(self, content: bytes, problem: Problem) -> Callable[[], dict[str, Any]]:
        """An image of zeros, again and again."""
        threads = self.threads or problem.threads
        with refused(Onnx.name):
            session = onnx_file.session(content, threads, flushing=True)
        names = {"session": session, "fed": {IMAGES: np.zeros((1, *problem.data.shape), np.float32)}}
        return lambda: asdict(time_calls("session.run(None, fed)", names, 1, threads))


class Own(_OfFile):
    """A function of your own, given the path of an ONNX file: it returns milliseconds, of a board, a phone, a simulator.

    It is called in a process of its own, which is ended after the time limit, with all that it has started.
    """

    name = "package.module:measure"
    by: ClassVar[str] = n.STEP_ID
    """Each network by itself: what it runs on may save what others multiply by zero."""
    seconds: float = Field(60.0, gt=0, description="time limit of a measurement by latency.package.module:measure")
    function: str = Field("", description="its name")

    @property
    def objective(self) -> Objective:
        """What it measures."""
        return LatencyOn(self.function)

    def conditions(self, problem: Problem) -> Mapping[str, Any]:
        """With the function's source."""
        return {**super().conditions(problem), "source": own.source_hash(self.function)}

    def loaded(self, content: bytes, problem: Problem) -> Callable[[], dict[str, Any]]:  # noqa: ARG002
        """A call in a process of its own."""
        return lambda: {"batch": 1, "median_ms": self._answer(content)}

    def _answer(self, content: bytes) -> float:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            file.write_bytes(content)
            code, out, err = _in_child([self.function, str(file), MARK], self.seconds)
        if code is None:
            raise self._refusal(f"gave no answer within {self.seconds:g} s; correct it, or raise latency.seconds")
        told = [line.removeprefix(MARK) for line in out.splitlines() if line.startswith(MARK)]
        if code or not told:
            lines = err.strip().splitlines() or [f"exit status {code}"]
            raise self._refusal(f"failed ({one_line(RuntimeError(lines[-1]))}); correct it")
        value = float(told[-1])
        if not SMALLEST <= value < math.inf:
            raise self._refusal(f"returned {value:g}, which is no time in milliseconds; correct it")
        return value

    def _refusal(self, told: str) -> InputError:
        return InputError(f"objectives: {self.objective.name!r} {told}")


def _in_child(arguments: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Exit status, None after the time limit, and what was printed; the process is gone with all that it has started."""
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(  # noqa: S603 - the user's own function, which --allow-code trusts
        [sys.executable, "-c", CHILD, *arguments], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True,
        env=environment, start_new_session=True,
    ) as child:  # fmt: skip
        try:
            out, err = child.communicate(timeout=seconds)
            return child.returncode, out, err
        except subprocess.TimeoutExpired:
            return None, "", ""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


TARGETS = Registry[Target]("latency", Target, (Torch, OnnxRuntime, Own))

if TYPE_CHECKING:

    class LatencySettings(Settings):
        """The fields of the targets."""

else:
    LatencySettings = section(
        "LatencySettings", __name__, "How targets other than PyTorch are timed.", TARGETS.values(), leave_out={"function"}
    )


def target_of(objective: Objective, problem: Problem) -> Target:
    """What measures a latency, with the study's settings."""
    if not isinstance(objective, LatencyOn):
        return Torch()
    if objective.target in TARGETS:
        return TARGETS.make(objective.target, problem.latency)
    return TARGETS.make(Own.name, {"function": objective.target}, problem.latency)


def chosen(name: str, field: str, *, trusted: bool) -> LatencyOn:
    """The latency that ``latency.TARGET`` names; InputError if there is no such target, or it can't be trusted."""
    target = name.removeprefix(f"{LATENCY.name}.")
    if target == Torch.name:
        raise InputError(f"{field}: {name!r} is called {LATENCY.name!r}; name it so")
    if target not in TARGETS:
        if not own.is_own(target):
            known = [LATENCY.name, LatencyOn(OnnxRuntime.name).name]
            raise InputError(f"{field}: {name!r} is no latency; {nearest(name, known)}, latency.{Own.name}")
        own.load(target, field, "function", trusted=trusted)
    return LatencyOn(target)
