"""The gate's process of its own: what takes more than its bounds is refused in one line, and answers are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.forks.ray_forks import REAL
from trainables.networks.factory import ModelSettings
from trainables.pruning import gates
from trainables.pruning.gate import Gate


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(REAL, "1")
    gates._of.cache_clear()


def asked(name: str) -> Gate:
    gates._of.cache_clear()
    return gates.of(ModelSettings(name=f"tests.odd_networks:{name}"), 10, (1, 8, 8), trusted=True)


def refuse_to_ask(*_: Any) -> dict[str, Any]:
    raise AssertionError("the answer was kept")


def test_an_answer_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked("squeeze")
    assert found.refused is None
    monkeypatch.setattr(gates, "_ask", refuse_to_ask)
    assert asked("squeeze") == found


def test_a_network_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "MOST_MEMORY", 4 * 10**9)
    refused = str(asked("hungry").refused)
    assert "takes more than 4 GB" in refused
    assert "\n" not in refused


def test_a_network_that_takes_too_much_work_is_refused_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "MOST_CPU_SECONDS", 1)
    found = asked("squeeze")
    assert "GB or 1 s; use a smaller network" in str(found.refused)
    monkeypatch.setattr(gates, "_ask", refuse_to_ask)
    assert asked("squeeze") == found


def test_a_wait_that_was_too_long_is_no_answer_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gates, "MOST_SECONDS", 0.2)
    assert "takes more than 0.2 s" in str(asked("squeeze").refused)
    assert not list(tmp_path.rglob("*.json"))
