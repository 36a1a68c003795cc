"""Writes what is told of the driver's files elsewhere, as trials end: the view of Optuna's study, and snapshots."""

from __future__ import annotations

from typing import Any

from ray import tune

from search.records.journal import View
from search.records.snapshots import Snapshots
from search.tune.trial_ends import not_swallowed


class WritesCopies(tune.Callback):
    """Has the view of a study updated after each trial, and its snapshot stored, if one is due."""

    def __init__(self, view: View, snapshots: Snapshots) -> None:
        self._view, self._snapshots = view, snapshots

    def __deepcopy__(self, _memo: dict[int, Any]) -> WritesCopies:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks, and never uses what it pickled

    @not_swallowed
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """Store the files if it is time."""
        self._view.update()
        self._snapshots.store_if_due()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """The same."""
        self.on_trial_complete(iteration, trials, trial)
