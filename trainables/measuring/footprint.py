"""What a network costs in parameters and multiply-accumulates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import nn

from trainables.networks.anatomy import prunable
from trainables.networks.network import Network
from trainables.networks.size import module_macs


@dataclass(frozen=True)
class Footprint:
    """Counts of one network. ``layers`` has, for each prunable layer, [weights kept, weights of the layer's shape]."""

    params: int
    prunable_params: int
    macs: int
    effective_macs: int
    layers: dict[str, tuple[int, int]]
    shape_id: str

    @property
    def empty_layers(self) -> list[str]:
        """Prunable layers that have lost every weight."""
        return [name for name, (kept, _) in self.layers.items() if kept == 0]


def footprint(network: Network, shape: tuple[int, int, int]) -> Footprint:
    """Count ``network`` for one input of ``shape`` [C, H, W].

    ``macs`` are what a dense runtime executes in convolutions and linear layers; ``effective_macs`` count unmasked weights
    only. ``params`` are all parameters kept, ``prunable_params`` those of convolutions and linear layers' weights.
    """
    layers = {name: _kept(network, name, module) for name, module in prunable(network.model).items()}
    macs = module_macs(network.model, shape)
    masked = sum(total - kept for kept, total in layers.values())
    return Footprint(
        params=sum(p.numel() for p in network.model.parameters()) - masked,
        prunable_params=sum(kept for kept, _ in layers.values()),
        macs=sum(macs.values()),
        effective_macs=sum(round(macs[name] * kept / total) for name, (kept, total) in layers.items()),
        layers=layers,
        shape_id=shape_id(network.model),
    )


def _kept(network: Network, name: str, module: nn.Module) -> tuple[int, int]:
    total = int(module.weight.numel())  # type: ignore[operator]
    mask = network.masks.get(f"{name}.weight")
    return (total if mask is None else int(mask.sum())), total


def shape_id(model: nn.Module) -> str:
    """Names the shapes of all parameters: networks of one shape run equally fast in a dense runtime."""
    shapes = ";".join(f"{name}:{tuple(p.shape)}" for name, p in model.named_parameters())
    return hashlib.sha256(shapes.encode()).hexdigest()[:16]
