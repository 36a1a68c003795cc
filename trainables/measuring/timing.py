"""Milliseconds of inference."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.networks.running import channels_last
from trainables.training.loop import threads

LARGE_BATCH = 64
MIN_SECONDS, MAX_SECONDS = 0.3, 1.0
SPREAD = 0.1
"""A measurement goes on until its interquartile range is within this share of its median, or too long."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one forward pass of a batch: median and interquartile range over blocks of runs."""

    batch: int
    median_ms: float
    iqr_ms: float
    threads: int


@contextmanager
def flushing() -> Iterator[None]:
    """Numbers too small for fp32's exponent are 0 inside, for a processor computes with them up to 20 times slower.

    A network of 73,000 weights, pruned by 95 and 98 % and retrained for 120 epochs with weight decay 5e-4, held 2 and 106
    of them (its momentum 948 and 4,787), no activation was one, and neither inference nor training took longer for it: both
    were within the noise of the machine with and without flushing, and the accuracy was the same. Were all its masked
    weights such numbers, a batch of 64 would take 40 ms in place of 2. So a time is kept clear of them, and training, whose
    bits flushing would change, is left as it is.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def measure(model: nn.Module, shape: tuple[int, int, int], batch: int, thread_count: int) -> Timing:
    """Time fp32 inference of ``batch`` inputs of ``shape`` [C, H, W] with ``torch.utils.benchmark``."""
    device = next(model.parameters()).device
    inputs = torch.zeros(batch, *shape, device=device).to(memory_format=torch.channels_last)
    channels_last(model).eval()
    with torch.inference_mode(), threads(thread_count), flushing():
        return time_calls("model(inputs)", {"model": model, "inputs": inputs}, batch, thread_count)


def time_calls(statement: str, names: Mapping[str, Any], batch: int, thread_count: int) -> Timing:
    """Time a statement about some names, which runs a ``batch``, until its spread is small or it has taken long."""
    # The import looks for a CUDA compiler, and warns where there is one and no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import benchmark  # noqa: PLC0415

    timer = benchmark.Timer(statement, globals=dict(names), num_threads=thread_count)
    measured = timer.adaptive_autorange(threshold=SPREAD, min_run_time=MIN_SECONDS, max_run_time=MAX_SECONDS)
    return Timing(batch, measured.median * 1e3, measured.iqr * 1e3, thread_count)
