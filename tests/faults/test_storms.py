"""The short form of ``python -m tests.faults``: a handful of kills over one study."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.driver import Driver
from tests.faults.storm import PATIENCE, Storm, computations, outcome
from tests.faults.studies import search_study, sweep_study
from tests.search_helpers import Raw, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]


def storm(raw: Raw, folder: Path, kills: int) -> Storm:
    study = write(folder, raw)
    fury = Storm(study, folder)
    peace = Driver(study, "--set", "name=peace", said=folder / "peace.err")
    fury.lives.append(peace)
    try:
        assert peace.wait(PATIENCE) == 0, peace.said.read_text()
        fury.rage(kills)
    finally:
        fury.end()
    assert outcome(study) == outcome(study, "name=peace")
    assert sum(fury.kills.values()) == kills
    return fury


def test_a_sweep_under_kills_ends_as_if_left_in_peace(tmp_path: Path) -> None:
    fury = storm(sweep_study(tmp_path, seeds=2), tmp_path, kills=4)
    begun, again = computations(fury.log)
    assert begun == 2 * (1 + 6 + 6 + 3) + again


@pytest.mark.parametrize("sampler", ["tree"])
def test_a_search_with_one_trial_in_flight_asks_for_the_same_under_kills(sampler: str, tmp_path: Path) -> None:
    storm(search_study(tmp_path, sampler, trials=8), tmp_path, kills=3)
