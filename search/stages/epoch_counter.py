"""How far trainings have come that run in other processes; a module of its own, so that its actor's process stays small."""

from __future__ import annotations

from collections.abc import Hashable


class Epochs:
    """The epochs that each network has trained."""

    def __init__(self) -> None:
        self._done: dict[Hashable, int] = {}

    def note(self, network: Hashable, epoch: int) -> None:
        """A network has trained so many epochs; fewer than before, if it was begun again."""
        self._done[network] = epoch

    def done(self) -> dict[Hashable, int]:
        """Network -> epochs."""
        return dict(self._done)
