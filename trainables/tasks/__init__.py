"""Tasks: what a network is trained for, and how good it is at it."""

from trainables.tasks.base import Task

__all__ = ["Task"]
