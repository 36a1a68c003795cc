"""What updates weights from their gradients, everywhere that a study trains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainables.methods import Method, Registry
from trainables.records.names import InputError
from trainables.settings import one_line


class Optimizer(Method):
    """Makes an optimizer; one of your own subclasses this. Its learning rate is set before each update."""

    @abstractmethod
    def make(self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> torch.optim.Optimizer:
        """An optimizer of these parameters; what it remembers of each must be tensors, or a training can't be resumed."""


class Sgd(Optimizer):
    """Stochastic gradient descent with Nesterov's momentum."""

    name, label = "sgd", "SGD"

    def make(self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> torch.optim.Optimizer:
        """With weight decay as a part of the gradient."""
        parameters = list(parameters)
        fused = on_gpu(parameters)  # elsewhere it isn't the same to the bit; several at once is, and faster than one by one
        return torch.optim.SGD(
            parameters, lr=0.0, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay, fused=fused,
            foreach=not fused,
        )  # fmt: skip


class AdamW(Optimizer):
    """Adam with decoupled weight decay; dense.momentum is its first beta, and the second 0.999."""

    name, label, source = "adamw", "AdamW", "Loshchilov and Hutter 2019, arXiv:1711.05101"

    def make(self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> torch.optim.Optimizer:
        """torch's."""
        parameters = list(parameters)
        capturable = on_gpu(parameters)
        return torch.optim.AdamW(
            parameters, lr=0.0, betas=(momentum, 0.999), weight_decay=weight_decay, capturable=capturable
        )


def on_gpu(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether they are on a GPU, where updates are recorded."""
    return any(parameter.is_cuda for parameter in parameters)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next update; where it is a tensor, in place and without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


OPTIMIZERS = Registry[Optimizer]("optimizer", Optimizer, (Sgd, AdamW))


def make(optimizer: Optimizer, model: nn.Module, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of a network; InputError if one of the user's own fails, or makes something else."""
    try:
        made: Any = optimizer.make(model.parameters(), momentum, weight_decay)
    except Exception as error:  # what code of the user's own raises can be anything
        why = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"dense.optimizer: {optimizer.name!r} can't be made ({why}); correct it") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError(f"dense.optimizer: {optimizer.name!r} makes a {type(made).__name__}, no torch.optim.Optimizer")
    for group in made.param_groups:
        if on_gpu(group["params"]) and (group.get("fused") or group.get("capturable")):
            group["lr"] = torch.zeros((), device=group["params"][0].device)  # a recorded update reads it anew each time
    return made
