"""How many trials run at once, as nodes join and die."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune.search import Searcher

from search.cluster.nodes import Node
from search.study import ResourceSettings
from search.tune import as_many_as_fit
from search.tune.as_many_as_fit import AsManyAsFit


class Endless(Searcher):
    """Proposes for ever."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"trial": trial_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


def test_as_many_trials_at_once_as_fit_now(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [Node("a", "a", 2, 0)]
    monkeypatch.setattr(as_many_as_fit, "alive", lambda: there)
    monkeypatch.setattr(as_many_as_fit, "LOOK_AGAIN", 0)
    searcher = AsManyAsFit(Endless(), ResourceSettings(cpu=1))
    numbers = iter(range(100))

    def asked() -> list[str]:
        """The trials that are given out before it says no."""
        return [trial for trial in (f"{next(numbers)}" for _ in range(8)) if searcher.suggest(trial)]

    first = asked()
    assert len(first) == 2
    there.append(Node("b", "b", 3.5, 0))
    late = asked()
    assert len(late) == 3
    there[:] = [Node("c", "c", 1, 0)]
    for trial in (first + late)[:4]:
        assert not asked()
        searcher.on_trial_complete(trial)
    assert not asked()
    searcher.on_trial_complete(late[-1])
    assert len(asked()) == 1
    there.clear()  # all died; what is pending waits for a node, and one proposal more does no harm
    assert not asked()
