"""What becomes of an error in a step: the step's own is its result, the machine's is not held against it."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from search.tune.trial import STOPS, StudyTrainable
from trainables.records import names as n
from trainables.storage.base import STORAGE_ERRORS
from trainables.trainable import PruningTrainable


@pytest.fixture
def trial() -> StudyTrainable:
    made = object.__new__(StudyTrainable)
    made._unfit, made._node = None, {}
    return made


def meets(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(_: PruningTrainable) -> None:
        raise error

    monkeypatch.setattr(PruningTrainable, "step", step)


def test_another_worker_tries_where_the_gpu_is_gone(trial: StudyTrainable, monkeypatch: pytest.MonkeyPatch) -> None:
    meets(error := torch.AcceleratorError("the GPU is gone"), monkeypatch)
    with pytest.raises(type(error)):
        trial.step()


@pytest.mark.parametrize("number", STORAGE_ERRORS, ids=errno.errorcode.get)
def test_the_study_stops_where_every_step_would_meet_the_same(
    number: int, trial: StudyTrainable, monkeypatch: pytest.MonkeyPatch
) -> None:
    meets(OSError(number, os.strerror(number)), monkeypatch)
    result = trial.step()
    assert os.strerror(number) in result.pop(STOPS)
    assert result == {"done": True}


@pytest.mark.parametrize("error", [ValueError("it diverged"), MemoryError("for so much")], ids=lambda e: type(e).__name__)
def test_any_other_error_is_the_step_s_own(
    error: Exception, trial: StudyTrainable, monkeypatch: pytest.MonkeyPatch
) -> None:
    meets(error, monkeypatch)
    assert trial.step() == {n.REASON: f"{type(error).__name__}: {error}", "done": True}
