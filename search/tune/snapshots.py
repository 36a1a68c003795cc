"""Stores the driver's files as trials end."""

from __future__ import annotations

from typing import Any

from ray import tune

from search.records.snapshots import Snapshots
from search.tune.trial_ends import not_swallowed


class StoresSnapshots(tune.Callback):
    """Has a study's snapshot stored after each trial, if one is due."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots: Snapshots | None = snapshots

    def __deepcopy__(self, _memo: dict[int, Any]) -> StoresSnapshots:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_snapshots": None}  # Tune pickles callbacks, and never uses what it pickled

    @not_swallowed
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """Store the files if it is time."""
        if self._snapshots is not None:
            self._snapshots.store_if_due()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """The same."""
        self.on_trial_complete(iteration, trials, trial)
