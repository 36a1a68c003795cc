"""What the driver itself meets while trials run stops the study; each run has a Ray of its own, as its error leaves it."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from search.__main__ import main
from search.cluster.interrupts import STOPPED
from search.records.asked import Asks
from search.records.ledger import Ledger
from search.records.snapshots import Snapshots
from search.study import load_study
from search.tune.telling import Telling
from tests.faults.storm import outcome
from tests.faults.test_damage import SWEEP
from tests.search_helpers import one_line, raw_study, write
from trainables.storage.base import UnreachableError

# Not the one that a module's tests share: the frames of an error that leaves Tune hold its trials' actors, and their cores.
pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.mark.usefixtures("one_core")
def test_a_disk_that_the_driver_finds_full_stops_the_study_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Ledger, "add", full)  # which Tune's callback calls
    assert main(["run", str(write(tmp_path, raw_study(tmp_path, sweep=SWEEP)))]) == STOPPED
    assert "No space left on device" in one_line(capsys.readouterr().err)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (Ledger, "add_trial", FULL), (Telling, "end", FULL),
        (Snapshots, "store", UnreachableError("storage: s3://bucket can't be used")),
    ],
)  # fmt: skip
def test_what_the_driver_meets_at_a_trial_s_end_stops_the_study_and_no_trial_after_it_begins(
    owner: type, name: str, error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Tune would take it for a lost worker."""
    short = [{"step_ratio": ratio} for ratio in (0.2, 0.3, 0.4, 0.5)]
    study = write(tmp_path, raw_study(tmp_path, sweep=short, resources={"cpu": os.cpu_count()}))
    whole, calls = getattr(owner, name), itertools.count()

    def once(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 0:
            raise error
        return whole(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, once)
        assert main(["run", str(study)]) == STOPPED
    assert str(error) in one_line(capsys.readouterr().err)
    folder = load_study(study).folder
    assert Asks(folder).trials == {0}
    assert main(["run", str(study)]) == 0
    assert len(outcome(study)["trials"]) == len(short)
