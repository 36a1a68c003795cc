"""Imported by every Python process of a run under test (through PYTHONPATH): logs computations, sets the clock back.

FAULTS_LOG names a file to which each computation of a step appends ``start ID`` and, when the step is complete, ``end ID``;
trainings then keep their state ten times a second, so that each of them goes on close to where it was killed.
FAULTS_CORES is how many cores the machine seems to have; with one, a single worker imports torch for all trials.
FAULTS_CLOCK names a file with the seconds by which ``time.time`` is wrong; they may change while the processes run.
"""

import importlib
import importlib.util
import os
import sys
import time
from functools import wraps
from pathlib import Path


def _log(line):
    with open(os.environ["FAULTS_LOG"], "ab", buffering=0) as file:  # noqa: PTH123 - one write, one line
        file.write(f"{line}\n".encode())


def _logged(compute):
    @wraps(compute)
    def wrapper(tree, node):
        _log(f"start {node.id}")
        record = compute(tree, node)
        _log(f"end {node.id}")
        return record

    return wrapper


def _log_computations(tree):
    tree.Tree._compute = _logged(tree.Tree._compute)
    resuming = importlib.import_module("trainables.training.resuming")
    resuming.INTERVAL, resuming.SHARE = 0.1, 0


class _WhenWalkIsImported:
    def find_spec(self, name, *_):
        if name != "trainables.tree":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _log_computations(module)

        spec.loader.exec_module = exec_module
        return spec


if "FAULTS_LOG" in os.environ and "trainables.tree" in sys.modules:  # in a fork
    _log_computations(sys.modules["trainables.tree"])
elif "FAULTS_LOG" in os.environ:
    sys.meta_path.insert(0, _WhenWalkIsImported())

if "FAULTS_CORES" in os.environ:
    os.cpu_count = lambda: int(os.environ["FAULTS_CORES"])

if "FAULTS_CLOCK" in os.environ:
    _true, _true_ns, _wrong = time.time, time.time_ns, Path(os.environ["FAULTS_CLOCK"])
    time.time = lambda: _true() + float(_wrong.read_text())
    time.time_ns = lambda: _true_ns() + int(float(_wrong.read_text()) * 1e9)
