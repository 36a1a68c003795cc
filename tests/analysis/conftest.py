"""What the tests of ``analysis`` share."""

from __future__ import annotations

import pytest


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not drawn, which takes most of a report's time: for tests of what a page says."""
    for module in ("analysis.report", "analysis.comparison.report"):
        monkeypatch.setattr(f"{module}.render", lambda _figure, _kind: b"")
