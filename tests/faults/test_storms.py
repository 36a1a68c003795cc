"""The short form of ``python -m tests.faults``: a driver, a raylet and two workers killed in one study."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.storm import KINDS, PATIENCE, under_kills
from tests.faults.studies import sweep_study

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(PATIENCE)]


def test_a_sweep_under_kills_ends_as_if_left_in_peace(tmp_path: Path) -> None:
    fury = under_kills(sweep_study(tmp_path, size=2), tmp_path, kills=len(KINDS))
    assert fury.kills.total() == len(KINDS)
    begun, again = fury.computations()
    assert begun - again == 2 * (1 + 6 + 6 + 3), "not every step was computed, or one that nobody asked for"
