"""Errors of our own code at a trial's end, which Tune takes for a lost worker's, and goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class TrialEndError(BaseException):
    """Carries an ``error`` out of Tune, which stops every Exception on its way; no trial is started after it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def not_swallowed(hook: Callable[P, R]) -> Callable[P, R]:
    """The hook, whose errors end Tune's run."""

    @wraps(hook)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return hook(*args, **kwargs)
        except Exception as error:
            raise TrialEndError(error) from error

    return wrapper
