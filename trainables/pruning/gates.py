"""The gate's answers: looked for in the user's cache, and found in a process of its own, with bounds on memory and time.

torch-pruning's grouping can take all memory for networks that it doesn't know. Run as a program, this module reads a
question from its input and writes the answer.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainables import own
from trainables.identity import code_hash
from trainables.networks.anatomy import survey
from trainables.networks.architectures import MODELS
from trainables.networks.factory import ModelSettings, build, is_own
from trainables.networks.limits import spared_weights
from trainables.networks.running import lives_elsewhere
from trainables.own.in_memory import is_in_memory
from trainables.pruning.gate import ELSEWHERE, Gate, gate, is_want_of_memory, refuse_weights
from trainables.records import names as n
from trainables.records.files import write_atomically
from trainables.records.names import InputError
from trainables.records.untrusted import machine_memory
from trainables.settings import one_line
from trainables.training.loop import threads

MOST_MEMORY, MOST_SHARE = 8 * 10**9, 0.6
"""Bytes that the gate may take, and the share of the machine's memory."""
MOST_CPU_SECONDS, MOST_SECONDS = 2400, 3600
IDLE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Where other programs run, threads that wait by spinning take ten times the processor time."""
PACKAGES = ("torch", "torchvision", "torch-pruning")
CACHE = "pruning-front"
OF_WEIGHTS = {"checkpoint", "weights", "auxiliary", "auxiliary_in_retraining"}
"""Settings of the network that say nothing of its shapes."""


def of(
    settings: ModelSettings, classes: int, shape: tuple[int, int, int], *, trusted: bool, family: str = n.STRUCTURED
) -> Gate:
    """What of the network can be pruned in a family, for images of ``shape`` [C, H, W].

    Of single weights it is told whether they can be removed. InputError if the network can't be looked at.
    """
    source = own.source_hash(settings.name) if is_own(settings.name) and own.is_own(settings.name) else ""
    return _of(settings, classes, shape, trusted, family, source)


@lru_cache(maxsize=64)
def _of(
    settings: ModelSettings, classes: int, shape: tuple[int, int, int], trusted: bool, family: str, source: str
) -> Gate:
    if settings.name in MODELS:  # known to the tests, and so within any bounds
        return _here(settings, classes, shape, trusted, family)
    if is_in_memory(settings.name):  # no other process has it
        try:
            return _here(settings, classes, shape, trusted, family)
        except InputError:
            raise
        except Exception as error:  # networks raise anything
            raise InputError(f"model: the network can't be looked at ({one_line(error)})") from error
    question = {
        "settings": settings.model_dump(mode="json", exclude=OF_WEIGHTS), "classes": classes, "shape": list(shape),
        "trusted": trusted, "family": family,
    }  # fmt: skip
    file = _cache_folder() / f"{_key(question, source)}.json"
    answer = _read(file)
    if answer is None:
        answer = _ask(question, settings.name)
        if answer.pop("lasting", True):
            with suppress(OSError):  # it will be found again
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, json.dumps(answer).encode())
    if "error" in answer:
        raise InputError(answer["error"])
    lists = {name: tuple(answer.get(name, ())) for name in ("outputs", "folded")}
    return Gate(**answer | lists)


def _here(settings: ModelSettings, classes: int, shape: tuple[int, int, int], trusted: bool, family: str) -> Gate:
    with threads(1):  # faster for small ones, and far faster on a busy machine
        return _look(settings, classes, shape, trusted, family)


def _look(settings: ModelSettings, classes: int, shape: tuple[int, int, int], trusted: bool, family: str) -> Gate:
    def make() -> nn.Module:
        return build(settings, classes, shape, trusted=trusted, check=False)

    if family == n.STRUCTURED:
        return gate(make, shape, classes, settings.wishes)
    model = make()
    if lives_elsewhere(model, shape):
        return Gate(refused=ELSEWHERE)
    return Gate(refused=refuse_weights(make, survey(model, shape), classes, spared_weights(model, settings.wishes)))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / CACHE / "gate"


def _key(question: dict[str, Any], source: str) -> str:
    """What the answer depends on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    known = [question, source, code_hash(), versions, platform.python_version()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, Any] | None:
    try:
        answer = json.loads(file.read_bytes())
        return answer if "error" in answer or asdict(Gate(**answer)) else None
    except (OSError, ValueError, TypeError):  # not there, or damaged
        return None


def _ask(question: dict[str, Any], name: str) -> dict[str, Any]:
    """The answer of a process of its own; one that took too much is an answer too."""
    bounds = {"bytes": _most_memory(), "cpu_seconds": MOST_CPU_SECONDS}
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    try:
        ended = subprocess.run(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__], input=json.dumps(question | bounds).encode(), capture_output=True,
            check=False, timeout=MOST_SECONDS, env={**IDLE_THREADS, **os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return _too_much(f"more than {MOST_SECONDS} s") | {"lasting": False}
    with suppress(ValueError):
        answer: dict[str, Any] = json.loads(ended.stdout)
        return answer
    if ended.returncode < 0:  # killed by its bounds, or by the system for want of memory
        lasting = ended.returncode == -signal.SIGXCPU
        return _too_much(f"more than {_most_memory() / 1e9:.0f} GB or {MOST_CPU_SECONDS} s") | {"lasting": lasting}
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return {
        "error": f"model.name: {name!r} can't be looked at ({said[-1][:200] if said else 'no message'})",
        "lasting": False,
    }


def _too_much(what: str) -> dict[str, Any]:
    return {"outputs": [], "refused": f"looking at what can be removed takes {what}; use a smaller network, or images"}


def _most_memory() -> int:
    return min(MOST_MEMORY, int(MOST_SHARE * machine_memory()))


def _bound(kind: int, most: int) -> None:
    """Bound this process, which may be bounded more tightly already."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Answer the question in this process's input."""
    question = json.load(sys.stdin)
    _bound(resource.RLIMIT_DATA, question["bytes"])
    _bound(resource.RLIMIT_CPU, question["cpu_seconds"])
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(4, os.cpu_count() or 1))
    answer: dict[str, Any]
    with redirect_stdout(sys.stderr):  # whatever libraries and the user's code print
        try:
            settings = ModelSettings.model_validate(question["settings"])
            shape = tuple(question["shape"])
            answer = asdict(_look(settings, question["classes"], shape, question["trusted"], question["family"]))
        except InputError as error:
            answer = {"error": str(error)}
        except Exception as error:
            if not is_want_of_memory(error):
                raise
            answer = _too_much(f"more than {question['bytes'] / 1e9:.0f} GB")
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
