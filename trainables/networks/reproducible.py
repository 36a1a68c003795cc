"""What makes a computation come out the same again: seeded generators, and arithmetic that isn't chosen by speed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

TORCH, CUDA, PYTHON, NUMPY = "random.torch", "random.cuda", "random.python", "random.numpy"

Device = str | torch.device


@contextlib.contextmanager
def reproducible(seed: int, device: Device = "cpu") -> Iterator[None]:
    """Inside, all that a network may draw from starts from ``seed``, and fp32 is fp32 in a fixed order on a GPU too.

    Afterwards the caller's generators and cuDNN's settings are as they were.
    """
    before = generator_states(device)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with _exact():
            yield
    finally:
        restore_generators(before, device)


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """No TF32 (cuDNN has it on by default, with 10 bits of a float's 23), and no kernel that sums in any order."""
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    exact = {"benchmark": False, "deterministic": True, "allow_tf32": False, "fp32_precision": "ieee"}
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(enabled=cudnn.enabled, **exact):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def generator_states(device: Device = "cpu") -> dict[str, Tensor]:
    """The states of torch's, Python's and NumPy's own generators; the last two as float64, which holds their words."""
    _, words, gauss = random.getstate()
    _, keys, *rest = np.random.get_state()
    states = {
        TORCH: torch.get_rng_state(),
        PYTHON: torch.tensor([*words, np.nan if gauss is None else gauss], dtype=torch.float64),
        NUMPY: torch.tensor([*keys, *rest], dtype=torch.float64),
    }
    return states | ({CUDA: torch.cuda.get_rng_state(device)} if _is_cuda(device) else {})


def restore_generators(states: Mapping[str, Tensor], device: Device = "cpu") -> None:
    """Put all generators into these states; ValueError, and some of them changed, if they are none."""
    python, numpy = states[PYTHON], states[NUMPY]
    words, (*keys, position) = _words(python[:-1]), _words(numpy[:-2])
    gauss, (has_gauss, cached) = float(python[-1]), numpy[-2:].tolist()
    try:
        torch.set_rng_state(states[TORCH])
        if _is_cuda(device):
            torch.cuda.set_rng_state(states[CUDA], device)
    except RuntimeError as error:
        raise ValueError(f"this is no state of torch's generator ({error})") from error
    random.setstate((3, tuple(words), None if np.isnan(gauss) else gauss))
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, int(has_gauss == 1), cached))


def _words(state: Tensor) -> list[int]:
    """The state of a Mersenne twister: words of 32 bits and, unchecked by NumPy, the place of the next among them."""
    if not bool(((state >= 0) & (state < 2**32)).all()) or state[-1] >= len(state):
        raise ValueError("this is no state of a Mersenne twister")
    return [int(word) for word in state.tolist()]


def _is_cuda(device: Device) -> bool:
    return torch.device(device).type == "cuda"
