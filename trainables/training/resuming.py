"""A training that was interrupted goes on, and ends with the weights that it would have ended with, bit by bit.

Its state (weights, momentum, place in the epoch, random generators) is kept in its step's folder every minute, as plain
safetensors. So a kill costs a minute of a training, however long its epochs are.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.networks.parameters import aliases
from trainables.networks.reproducible import generator_states, restore_generators
from trainables.storage.base import Storage

INTERVAL = 60.0
"""Seconds of training between two times that its state is kept, at least."""
SHARE = 50
"""Keeping it that took a second is not done again for so many."""

MODEL, MOMENTUM, REMEMBERED = "model.", "momentum.", "remembered."
ORDER = "random.order"
OF_DRAWS = "random.draws"
"""Kept by earlier versions, which drew crops and mirrors batch by batch; they follow from the epoch's first state."""
EPOCH, BATCH, LOSS, SECONDS, CHECKSUM = "epoch", "batch", "loss", "seconds", "checksum"
BUFFER = "momentum_buffer"
"""SGD's own name of it."""


@runtime_checkable
class Stateful(Protocol):
    """A module, or a hook with a state of its own: tensors by name, whose shapes stay."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Its state."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any:
        """Go on from that state."""


@dataclass
class Training:
    """Where a training stands: before update ``batch`` of ``epoch``, both counted from 0."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    random: torch.Generator
    """Draws an epoch's order, and the crops and mirrors of its batches."""
    epochs: range
    batches: int
    """Updates of an epoch."""
    epoch: int = field(init=False)
    batch: int = field(default=0, init=False)
    loss: Tensor = field(init=False)
    """Sum of the losses of this epoch's batches so far."""
    _drawn: Tensor = field(init=False)
    """The state of ``random`` that this epoch's draws begin in."""

    def __post_init__(self) -> None:
        self.begin(self.epochs.start)

    def begin(self, epoch: int) -> None:
        """Stand before the first update of an epoch."""
        self.epoch, self.batch = epoch, 0
        self.loss = torch.zeros((), device=self.device)
        self._drawn = self.random.get_state()

    @property
    def middle(self) -> float:
        """The (fractional) epoch in the middle of the update before which it stands."""
        return self.epoch + (self.batch + 0.5) / self.batches

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(iter(self.model.parameters())).device

    def state(self) -> dict[str, Tensor]:
        """All of it but the weights and the momentum."""
        return {
            EPOCH: torch.tensor(self.epoch),
            BATCH: torch.tensor(self.batch),
            LOSS: self.loss,
            ORDER: self._drawn,
            **generator_states(self.device),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> bool:
        """Stand where another stood, with this epoch yet to be drawn.

        False, and nothing is changed, where that is no place or no generator's state.
        """
        epoch, batch, before = int(state[EPOCH]), int(state[BATCH]), self.state()
        if epoch not in self.epochs or not 0 <= batch < self.batches:
            return False
        try:
            self.random.set_state(state[ORDER])
            restore_generators(state, self.device)
        except (RuntimeError, ValueError):
            self.random.set_state(before[ORDER])
            restore_generators(before, self.device)
            return False
        self.epoch, self.batch, self._drawn = epoch, batch, state[ORDER]
        self.loss = state[LOSS].to(self.device)
        return True


@dataclass
class Resumable:
    """What one training leaves at ``key`` for whoever has to go on with it.

    ``beside`` is what else the training changes, by name. ``seconds`` is what earlier processes spent on it.
    """

    storage: Storage
    key: str
    beside: dict[str, Stateful] = field(default_factory=dict, init=False)
    seconds: float = field(default=0.0, init=False)
    _kept: bool = field(default=False, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)
    _next: float = field(default_factory=lambda: time.monotonic() + INTERVAL, init=False)

    def resume(self, training: Training, **hooks: object) -> None:
        """Take up what was kept, with hooks that are stateful; nothing is changed if nothing usable was."""
        self.beside |= {name: hook for name, hook in hooks.items() if isinstance(hook, Stateful)}
        content = self.storage.read(self.key) if training.epochs else None
        stored = _whole(content) if content is not None else None
        self._kept = content is not None
        if stored is None or not self._fits(stored, training) or not training.load_state(stored):
            return
        for part, prefix in self._parts(training):
            first = _first_names(part)
            state: Any = part.state_dict()
            for name in state:  # in place: what it says of versions stays with it
                state[name] = stored[prefix + first.get(name, name)]
            part.load_state_dict(state)
        counts = training.device if training.optimizer.defaults.get("capturable") else "cpu"
        for name, (parameter, key) in _memories(training, stored).items():
            # In the parameter's order in memory, as the optimizer would have it.
            like = stored[name].shape == parameter.shape
            found = torch.empty_like(parameter).copy_(stored[name]) if like else stored[name].to(counts, copy=True)
            training.optimizer.state[parameter][key] = found
        self.seconds = float(stored[SECONDS])

    def after_update(self, training: Training) -> None:
        """Keep the state if it is time."""
        if time.monotonic() < self._next:
            return
        began = time.monotonic()
        memory = dict(_remembered(training))
        if not all(isinstance(one, Tensor) for one in memory.values()):
            return  # an optimizer of the user's own, of which not all can be kept
        state = self._state(training) | memory
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        self.storage.write(self.key, safetensors.torch.save({**plain, CHECKSUM: _checksum(plain)}))
        self._kept = True
        self._next = time.monotonic() + max(INTERVAL, SHARE * (time.monotonic() - began))

    def forget(self) -> None:
        """Remove what was kept: the training has come to its end."""
        if self._kept:
            self.storage.delete(self.key)

    def _parts(self, training: Training) -> Iterator[tuple[Stateful, str]]:
        yield training.model, MODEL
        yield from ((part, f"{name}.") for name, part in self.beside.items())

    def _state(self, training: Training) -> dict[str, Tensor]:
        seconds = torch.tensor(self.seconds + time.monotonic() - self._began, dtype=torch.float64)
        parts = {
            prefix + name: tensor
            for part, prefix in self._parts(training)
            for first in (_first_names(part),)
            for name, tensor in part.state_dict().items()
            if name not in first
        }
        return {**parts, **training.state(), SECONDS: seconds}

    def _fits(self, stored: Mapping[str, Tensor], training: Training) -> bool:
        memories = _memories(training, stored)
        known = {
            **self._state(training),
            **{name: _like(parameter, stored[name]) for name, (parameter, _) in memories.items()},
        }
        return known.keys() == stored.keys() and all(
            tensor.shape == stored[name].shape and tensor.dtype == stored[name].dtype for name, tensor in known.items()
        )


def _remembered(training: Training) -> Iterator[tuple[str, Any]]:
    """What the optimizer remembers of each parameter, by the name that it is kept under."""
    for name, parameter in training.model.named_parameters():
        for key, value in training.optimizer.state.get(parameter, {}).items():
            if value is not None:
                yield (MOMENTUM if key == BUFFER else f"{REMEMBERED}{key}.") + name, value


def _memories(training: Training, stored: Mapping[str, Tensor]) -> dict[str, tuple[nn.Parameter, str]]:
    """Of what was kept, the names of what an optimizer remembered: of which parameter, and as what."""
    parameters, found = dict(training.model.named_parameters()), {}
    for name in stored:
        key, of = BUFFER, name.removeprefix(MOMENTUM)
        if name.startswith(REMEMBERED):
            key, _, of = name.removeprefix(REMEMBERED).partition(".")
        if of != name and of in parameters:
            found[name] = (parameters[of], key)
    return found


def _like(parameter: Tensor, memory: Tensor) -> Tensor:
    """What a memory of a parameter looks like: the parameter, or a number such as a count of updates."""
    return memory if memory.dim() == 0 else parameter


def _first_names(part: Stateful) -> dict[str, str]:
    """From each further name of a tensor of a network to its first."""
    return aliases(part) if isinstance(part, nn.Module) else {}


def _whole(content: bytes) -> dict[str, Tensor] | None:
    """The tensors of a kept state; None if it is damaged."""
    try:
        stored = safetensors.torch.load(content)
        checksum = stored.pop(CHECKSUM)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    whole = torch.equal(checksum, _checksum(stored))
    stored.pop(OF_DRAWS, None)
    return stored if whole else None


def _checksum(tensors: dict[str, Tensor]) -> Tensor:
    return torch.frombuffer(bytearray(hashlib.sha256(safetensors.torch.save(tensors)).digest()), dtype=torch.uint8)
