"""How far trainings have come that run in other processes; a module of its own, so that its actor's process stays small."""

from __future__ import annotations


class Epochs:
    """The epochs that the dense network of each seed has trained."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}

    def note(self, seed: int, epoch: int) -> None:
        """The network of ``seed`` has trained so many epochs; fewer than before, if it was begun again."""
        self._done[seed] = epoch

    def done(self) -> dict[int, int]:
        """Seed -> epochs."""
        return dict(self._done)
