"""Ctrl-C: once ends a command cleanly, twice at once. What is on disk is whole at any moment, so both may be resumed.

SIGTERM, which a cluster sends when time is up or a node is wanted back, is the same as Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

STOPPED, INTERRUPTED = 3, 130
"""Exit statuses of a command that had to stop, and of one that was told to."""
GO_ON = "Finished steps are kept; run the same command to go on."


def leave(message: str, status: int) -> None:
    """End this process now, without waiting for anything; Ray's processes end with it."""
    Console(stderr=True).show_cursor()
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    os._exit(status)


def _first(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _second)
    raise KeyboardInterrupt


def _second(_signal: int, _frame: FrameType | None) -> None:
    leave(f"Interrupted twice: stopped at once. {GO_ON}", INTERRUPTED)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)  # whoever handles that one now


HANDLERS = {signal.SIGINT: _first, signal.SIGTERM: _terminate}


@contextmanager
def two_interrupts() -> Iterator[None]:
    """The first interrupt raises KeyboardInterrupt, the second leaves."""
    before = [(number, signal.signal(number, handler)) for number, handler in HANDLERS.items()]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Afterwards signals are handled as before: Ray puts handlers of its own in place, and Tune leaves them there.

    In other threads than the main one nothing is done, because nothing was put in place.
    """
    before = {number: signal.getsignal(number) for number in (*HANDLERS, signal.SIGUSR1)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None and signal.getsignal(number) is not _second:
                    signal.signal(number, handler)


@contextmanager
def sigterm_is_not_ray_s() -> Iterator[None]:
    """Around Ray's start, which would put in place a handler that ends the driver without a word."""
    from ray._private import utils  # noqa: PLC0415 - takes seconds, and not every command needs Ray

    before, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before


def take_sigterm_back() -> None:
    """Once Ray has started: its core answers SIGTERM with a stack trace before Python hears of it."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def second_interrupt_ends_at_once() -> Iterator[None]:
    """Around code that handles the first interrupt itself, and then puts back the handler that it found, as Tune does."""
    before = signal.getsignal(signal.SIGINT)
    if before is _second:
        raise KeyboardInterrupt  # some library has swallowed the first
    if before is not _first or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _second)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not _second:  # there was no interrupt; Tune leaves its handler behind
            signal.signal(signal.SIGINT, before)
