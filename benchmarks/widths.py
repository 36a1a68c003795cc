"""How much faster a network trains for having lost channels, and what would make it faster still.

    python -m benchmarks.widths [--compiled] [--markdown benchmarks/tables/widths.md]

Each network takes turns with all others in one process, on one thread, timed by the processor's clock; the ratio of each
round is against the dense network of that round. The columns, of the same share of the width:

- *as cut*: every layer as near to its share as whole channels come;
- *odd*: the odd width next below;
- *padded*: the width rounded up to a multiple of 8, which is what training would cost if it were padded with channels that
  stay zero (or was cut with ``round_to: 8``);
- *compiled* (minutes, of the first network alone): as cut, with BatchNorm, ReLU and pooling between two convolutions
  compiled by ``torch.compile``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from benchmarks.throughput import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, synthetic
from trainables.data.dataset import Data
from trainables.networks.architectures import _plain
from trainables.training.loop import LearningRate, Recipe, fit, threads

KEPT = (0.9, 0.7, 0.5, 0.3)
BATCH, BATCHES = 128, 4
NETWORKS = {"cnn of the comparison (width 16, 4 stages)": (16, 4), "cnn of width 32 (3 stages)": (32, 3)}
WIDTHS: dict[str, Callable[[float], int]] = {
    "as cut": round,
    "odd": lambda width: round(width) - (round(width) + 1) % 2,
    "padded": lambda width: -(-round(width) // 8) * 8,
}
COMPILED = "compiled"


def network(width: int, stages: int, share: float, whole: Callable[[float], int]) -> nn.Module:
    """The CNN with so much of each layer's width."""
    torch.manual_seed(0)
    return _plain([[whole(share * width * 2**stage)] * 2 for stage in range(stages)], 10, 3)


def compiled(model: nn.Module) -> nn.Module:
    """With all between two convolutions compiled, a kernel a shape."""
    layers: list[nn.Module] = []
    for layer in model.features:  # type: ignore[union-attr]
        if isinstance(layer, nn.Conv2d):
            layers += [layer, nn.Sequential()]
        elif layers:
            layers[-1].append(layer)  # type: ignore[operator]
    tails = (torch.compile(one, dynamic=False) if isinstance(one, nn.Sequential) else one for one in layers)
    model.features = nn.Sequential(*tails)
    return model


def contestants(width: int, stages: int, also_compiled: bool) -> dict[tuple[float, str], nn.Module]:
    """The dense network, first, and all that compete with it."""
    found = {(1.0, "dense"): network(width, stages, 1.0, round)}
    found |= {(share, name): network(width, stages, share, whole) for share in KEPT for name, whole in WIDTHS.items()}
    if also_compiled:
        torch._dynamo.config.recompile_limit = 64
        found |= {(share, COMPILED): compiled(network(width, stages, share, round)) for share in (1.0, *KEPT)}
    return found


def measure(models: dict[tuple[float, str], nn.Module], data: Data, rounds: int) -> dict[tuple[float, str], list[float]]:
    """Seconds of an epoch in each round; the first, which chooses kernels, isn't counted."""
    recipe = Recipe(LearningRate((0.0, 1.0), (LEARNING_RATE, LEARNING_RATE)), 0, 1, BATCH, MOMENTUM, WEIGHT_DECAY, "bf16")
    seconds: dict[tuple[float, str], list[float]] = {key: [] for key in models}
    for _ in range(rounds + 1):
        for key, model in models.items():
            began = time.process_time()
            fit(model, data, recipe, seed=0)
            seconds[key].append(time.process_time() - began)
    return {key: some[1:] for key, some in seconds.items()}


def table(name: str, seconds: dict[tuple[float, str], list[float]], columns: list[str]) -> Iterator[str]:
    """How many times as fast as dense, medians of rounds."""
    dense = seconds[1.0, "dense"]
    yield f"| {name}: {statistics.median(dense) / BATCHES * 1e3:.0f} ms a batch | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for share in (1.0, *KEPT):
        found = [
            f"{statistics.median(a / b for a, b in zip(dense, seconds[share, column], strict=True)):.2f}"
            if (share, column) in seconds
            else ""
            for column in columns
        ]
        if any(found):
            yield f"| {share:g} of the width | {' | '.join(found)} |"


def main() -> None:
    """Measure, print the tables and, if asked to, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after one that doesn't (default 7)")
    parser.add_argument("--compiled", action="store_true", help="compare with compiled tails, too")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    data, told = synthetic(BATCHES * BATCH), []
    with threads(1):
        for i, (name, shape) in enumerate(NETWORKS.items()):
            also = arguments.compiled and i == 0
            seconds = measure(contestants(*shape, also), data, arguments.rounds)
            told += [*table(name, seconds, [*WIDTHS, *([COMPILED] if also else [])]), ""]
    print("\n".join(told))
    if arguments.markdown is not None:
        options = f"{'--compiled ' if arguments.compiled else ''}--rounds {arguments.rounds}"
        how = (
            f"Made by `python -m benchmarks.widths {options} --markdown benchmarks/tables/widths.md`: training in bf16 on "
        )
        how += f"one thread, batches of {BATCH}, in times as fast as the dense network; medians of rounds."
        arguments.markdown.write_text("\n".join(["# Training a narrower network", "", how, "", *told]))


if __name__ == "__main__":
    main()
