"""Data sets of a user's own, as a module that can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.data_helpers import SETS
from trainables.data import preparation


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with data sets of a user's own."""
    (tmp_path / "sets_for_tests.py").write_text(SETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sets_for_tests", raising=False)
    preparation.of_users.cache_clear()
    return "sets_for_tests"
