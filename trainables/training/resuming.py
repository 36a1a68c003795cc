"""A training that was interrupted goes on, and ends with the weights that it would have ended with, bit by bit.

Its state (weights, momentum, random generators) is kept in its step's folder every minute, as plain safetensors. So a kill
costs a minute of a dense training, and not the hours before it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.networks.ties import aliases
from trainables.storage.base import Storage

INTERVAL = 60.0
"""Seconds of training between two times that its state is kept, at least."""
SHARE = 50
"""Keeping it that took a second is not done again for so many."""

MODEL, MOMENTUM = "model.", "momentum."
ORDER, DROPOUT = "random.order", "random.dropout"
EPOCH, SECONDS, CHECKSUM = "epoch", "seconds", "checksum"
BUFFER = "momentum_buffer"
"""SGD's own name of it."""


@dataclass
class Resumable:
    """What one training leaves at ``key`` for whoever has to go on with it.

    ``beside`` are other modules that the training fills, by name. ``seconds`` is what earlier processes spent on it.
    """

    storage: Storage
    key: str
    beside: dict[str, nn.Module] = field(default_factory=dict, init=False)
    seconds: float = field(default=0.0, init=False)
    _kept: bool = field(default=False, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)
    _next: float = field(default_factory=lambda: time.monotonic() + INTERVAL, init=False)

    def resume(self, model: nn.Module, optimizer: torch.optim.SGD, random: torch.Generator, epochs: range) -> range:
        """Take up what was kept; the epochs that are left: all, and nothing is changed, if nothing usable was."""
        content = self.storage.read(self.key) if len(epochs) > 1 else None  # of a single epoch nothing is kept
        stored = _whole(content) if content is not None else None
        self._kept = content is not None
        if stored is None or not self._fits(stored, model, random):
            return epochs
        done = int(stored[EPOCH])
        if not epochs.start <= done <= epochs.stop or not _set_random(stored, model, random):
            return epochs
        for module, prefix in self._modules(model):
            state, first = module.state_dict(), aliases(module)
            for name in list(state):
                state[name] = stored[prefix + first.get(name, name)]
            module.load_state_dict(state)
        for name, parameter in model.named_parameters():
            if MOMENTUM + name in stored:
                # In the parameter's order in memory, as SGD would have it.
                optimizer.state[parameter][BUFFER] = torch.empty_like(parameter).copy_(stored[MOMENTUM + name])
        self.seconds = float(stored[SECONDS])
        return range(done, epochs.stop)

    def after_epoch(self, epoch: int, model: nn.Module, optimizer: torch.optim.SGD, random: torch.Generator) -> None:
        """Keep the state if it is time."""
        if time.monotonic() < self._next:
            return
        began = time.monotonic()
        state = self._state(model, random) | {
            MOMENTUM + name: optimizer.state[parameter][BUFFER]
            for name, parameter in model.named_parameters()
            if optimizer.state.get(parameter, {}).get(BUFFER) is not None
        }
        state[EPOCH] = torch.tensor(epoch)
        state[SECONDS] = torch.tensor(self.seconds + began - self._began, dtype=torch.float64)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        self.storage.write(self.key, safetensors.torch.save({**plain, CHECKSUM: _checksum(plain)}))
        self._kept = True
        self._next = time.monotonic() + max(INTERVAL, SHARE * (time.monotonic() - began))

    def forget(self) -> None:
        """Remove what was kept: the training has come to its end."""
        if self._kept:
            self.storage.delete(self.key)

    def _modules(self, model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
        yield model, MODEL
        yield from ((module, f"{name}.") for name, module in self.beside.items())

    def _state(self, model: nn.Module, random: torch.Generator) -> dict[str, Tensor]:
        modules = {
            prefix + name: tensor
            for module, prefix in self._modules(model)
            for first in (aliases(module),)
            for name, tensor in module.state_dict().items()
            if name not in first
        }
        return {**modules, ORDER: random.get_state(), DROPOUT: _dropout_state(model)}

    def _fits(self, stored: Mapping[str, Tensor], model: nn.Module, random: torch.Generator) -> bool:
        momentum = {MOMENTUM + name: parameter for name, parameter in model.named_parameters()}
        needed = self._state(model, random) | {EPOCH: torch.tensor(0), SECONDS: torch.tensor(0.0, dtype=torch.float64)}
        known = {**needed, **{name: tensor for name, tensor in momentum.items() if name in stored}}
        return known.keys() == stored.keys() and all(
            tensor.shape == stored[name].shape and tensor.dtype == stored[name].dtype for name, tensor in known.items()
        )


def _whole(content: bytes) -> dict[str, Tensor] | None:
    """The tensors of a kept state; None if it is damaged."""
    try:
        stored = safetensors.torch.load(content)
        checksum = stored.pop(CHECKSUM)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    return stored if torch.equal(checksum, _checksum(stored)) else None


def _checksum(tensors: dict[str, Tensor]) -> Tensor:
    return torch.frombuffer(bytearray(hashlib.sha256(safetensors.torch.save(tensors)).digest()), dtype=torch.uint8)


def _dropout_state(model: nn.Module) -> Tensor:
    """The state of the generator that dropout draws from: torch's own, of the device."""
    device = _device(model)
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random(stored: Mapping[str, Tensor], model: nn.Module, random: torch.Generator) -> bool:
    """Set both generators; False, and neither is changed, if what is stored is no state of theirs."""
    order, device = random.get_state(), _device(model)
    try:
        random.set_state(stored[ORDER])
        if device.type == "cuda":
            torch.cuda.set_rng_state(stored[DROPOUT], device)
        else:
            torch.set_rng_state(stored[DROPOUT])
    except RuntimeError:
        random.set_state(order)
        return False
    return True


def _device(model: nn.Module) -> torch.device:
    return next(iter(model.parameters())).device
