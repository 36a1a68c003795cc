"""For tests that measure times."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.measuring import quiet, timing


@pytest.fixture
def short_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measure briefly, under a lock of this test's own."""
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.01)
    monkeypatch.setattr(timing, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(quiet.tempfile, "gettempdir", lambda: str(tmp_path))
