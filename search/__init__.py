"""The front of accuracy against compression of a network, from Python as from the command line.

    import search

    study = search.Study.load("search/studies/quickstart.yaml", {"search.trials": 20})
    front = search.run(study)                    # goes on with what is in results/quickstart
    front.members                                # a DataFrame: the networks that no other beats
    front.confirm()                              # their test accuracies; opens the test split
    front.export(front.members.step_id.iloc[-1], "pruned.safetensors")

Importing it takes no time: torch and Ray are loaded when they are needed.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trainables  # noqa: F401 - before torch

if TYPE_CHECKING:
    from ray.tune import Callback
    from torch import nn

    from search.front import Front
    from search.study import Overrides, Study
    from trainables.records.names import InputError, StoppedError

__all__ = ["Front", "InputError", "StoppedError", "Study", "load", "run"]

HOMES = {
    "Front": "search.front",
    "Study": "search.study",
    "InputError": "trainables.records.names",
    "StoppedError": "trainables.records.names",
}


def run(
    study: Study, *, model: nn.Module | None = None, callbacks: Sequence[Callback] = (), address: str | None = None
) -> Front:
    """Run a study to its end, from wherever it stands; the same call goes on after an interrupt.

    ``model`` is a trained network in memory, in place of one that the study names. It is copied, and the study is of its
    code and its weights: going on, confirming and exporting need it again. ``callbacks`` are Ray Tune's own, such as
    ``ray.tune.logger.TBXLoggerCallback()``: each step is one result, with the point's columns as metrics, and what they
    write of each trial is in ``logs/`` of the study's folder. ``address`` is a Ray cluster's, HOST:PORT or auto; without
    it, Ray runs here, and ends with the call unless it ran before.

    InputError, in one line, if something that was given can't be used; StoppedError if the study had to stop, and
    KeyboardInterrupt if it was told to: the same call goes on.
    """
    from search.front import run_study  # noqa: PLC0415

    return run_study(study, model, callbacks, address)


def load(
    place: str | Path, *, model: nn.Module | None = None, overrides: Overrides = (), allow_code: bool = False
) -> Front:
    """What a study has found so far, from its folder or its URL; nothing is computed.

    A study of a network in memory needs the same ``model`` to confirm or export. ``overrides`` are for what differs here,
    such as ``{"data.root": PATH}``; methods of the user's own are imported if ``allow_code``.
    """
    from search.front import open_front  # noqa: PLC0415

    return open_front(place, model, overrides, trusted=allow_code)


def __getattr__(name: str) -> Any:
    """The public classes, imported when they are first asked for."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, in a notebook; nothing here uses its bars
        return getattr(importlib.import_module(HOMES[name]), name)
