"""How much faster a network trains for having lost channels, and what would make it faster still.

    python -m benchmarks.widths [--compiled] [--accuracy] [--markdown FILE]

Each network takes turns with all others in one process, on one thread, timed by the processor's clock; the ratio of each
round is against the dense network of that round. The columns, of the same share of the width:

- *as cut*: every layer as near to its share as whole channels come;
- *odd*: the odd width next below;
- *padded* and *odd, padded*: these with what ``retraining.pad_channels`` gives back, by its own code; none where its rule
  pads nothing;
- *compiled* (minutes, of the first network alone): as cut, with BatchNorm, ReLU and pooling between two convolutions
  compiled by ``torch.compile``.

With ``--accuracy`` a network on the digits is cut and retrained with and without padding, too, over three seeds (a minute).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.throughput import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, processor, synthetic
from trainables.chain import RetrainSettings
from trainables.data.dataset import Data, DataSettings, load
from trainables.networks.anatomy import Removed, survey
from trainables.networks.architectures import _plain
from trainables.networks.factory import ModelSettings
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.records import names as n
from trainables.schedule import StructuredSchedule
from trainables.storage.store import Store
from trainables.training.loop import DenseSettings, LearningRate, Recipe, fit, threads
from trainables.training.padding import Padded, pad
from trainables.training.stepping import Hook
from trainables.tree import Tree, walk

KEPT = (0.9, 0.7, 0.5, 0.3)
BATCH, BATCHES = 128, 4
NETWORKS = {"cnn of the comparison (width 16, 4 stages)": (16, 4), "cnn of width 32 (3 stages)": (32, 3)}
WIDTHS: dict[str, Callable[[float], int]] = {
    "as cut": round,
    "odd": lambda width: round(width) - (round(width) + 1) % 2,
}
PADDED = {"as cut": "padded", "odd": "odd, padded"}
COMPILED = "compiled"
SEEDS, EPOCHS, CUTS = 3, 4, (0.1, 0.3, 0.55)
"""Of the accuracies: seeds, epochs of retraining, and shares of all channels that are cut."""

Contestant = tuple[nn.Module, Hook | None]
"""A network, and what holds its padding at zero."""


def network(width: int, stages: int, share: float, whole: Callable[[float], int]) -> nn.Module:
    """The CNN with so much of each layer's width."""
    torch.manual_seed(0)
    return _plain([[whole(share * width * 2**stage)] * 2 for stage in range(stages)], 10, 3)


def padded(width: int, stages: int, share: float, whole: Callable[[float], int]) -> Padded | None:
    """The same as retraining would pad it, if it would."""
    build = partial(network, width, stages, 1.0, round)
    anatomy = survey(build(), (3, 32, 32))
    layers = [name for name, module in build().named_modules() if isinstance(module, nn.Conv2d)]
    removed: Removed = [
        (name, True, list(range(whole(share * anatomy.widths[name]), anatomy.widths[name]))) for name in layers
    ]
    return pad(Network(network(width, stages, share, whole), removed=removed), build, anatomy)


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


def contestants(width: int, stages: int, also_compiled: bool) -> dict[tuple[float, str], Contestant]:
    """The dense network, first, and all that compete with it."""
    found: dict[tuple[float, str], Contestant] = {(1.0, "dense"): (network(width, stages, 1.0, round), None)}
    for share in KEPT:
        for name, whole in WIDTHS.items():
            found[share, name] = network(width, stages, share, whole), None
            if (wider := padded(width, stages, share, whole)) is not None:
                found[share, PADDED[name]] = wider.model, wider.hold
    if also_compiled:
        torch._dynamo.config.recompile_limit = 64
        found |= {(share, COMPILED): (compiled(network(width, stages, share, round)), None) for share in (1.0, *KEPT)}
    return found


def measure(models: dict[tuple[float, str], Contestant], data: Data, rounds: int) -> dict[tuple[float, str], list[float]]:
    """Seconds of an epoch in each round; the first, which chooses kernels, isn't counted."""
    recipe = Recipe(LearningRate((0.0, 1.0), (LEARNING_RATE, LEARNING_RATE)), 0, 1, BATCH, MOMENTUM, WEIGHT_DECAY, "bf16")
    seconds: dict[tuple[float, str], list[float]] = {key: [] for key in models}
    for _ in range(rounds + 1):
        for key, (model, hold) in models.items():
            began = time.process_time()
            fit(model, data, recipe, seed=0, after_update=hold)
            seconds[key].append(time.process_time() - began)
    return {key: some[1:] for key, some in seconds.items()}


def accuracies() -> dict[tuple[float, bool], list[float]]:
    """The validation accuracies of networks on the digits, with and without padding, one a seed."""
    data, found = load(DataSettings()), dict[tuple[float, bool], list[float]]()
    settings = {"model": ModelSettings(arguments={"width": 16}), "precision": "bf16"}
    dense = DenseSettings(epochs=20, batch_size=32, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        for on in (False, True):
            retrain = RetrainSettings(pad_channels=on)  # type: ignore[call-arg]
            tree = Tree(Problem(data, dense=dense, retrain=retrain, **settings), Store(Path(folder)))  # type: ignore[arg-type]
            for share in CUTS:
                schedules = [
                    StructuredSchedule(step_ratio=share, fine_tune_epochs=EPOCHS, seed=seed) for seed in range(SEEDS)
                ]
                found[share, on] = [point[n.ACCURACY] for schedule in schedules for point in walk(schedule, tree)]
    return found


def told_accuracies(found: dict[tuple[float, bool], list[float]]) -> Iterator[str]:
    """Means, and in brackets the extremes."""
    yield f"| cnn of width 16 on the digits, {EPOCHS} epochs after the cut, {SEEDS} seeds | as cut | padded |"
    yield "|---|---|---|"
    for share in CUTS:
        both = (found[share, on] for on in (False, True))
        told = (f"{statistics.mean(some):.1%} ({min(some):.1%} - {max(some):.1%})" for some in both)
        yield f"| {share:.0%} of the channels cut | {' | '.join(told)} |"


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
    parser.add_argument("--accuracy", action="store_true", help="accuracies with and without padding, too")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    data, told = synthetic(BATCHES * BATCH), []
    with threads(1):
        for i, (name, shape) in enumerate(NETWORKS.items()):
            also = arguments.compiled and i == 0
            seconds = measure(contestants(*shape, also), data, arguments.rounds)
            told += [*table(name, seconds, [*WIDTHS, *PADDED.values(), *([COMPILED] if also else [])]), ""]
        if arguments.accuracy:
            told += [*told_accuracies(accuracies()), ""]
    print("\n".join(told))
    if arguments.markdown is not None:
        given = [f"--{name}" for name in ("compiled", "accuracy") if getattr(arguments, name)]
        command = " ".join([*given, "--rounds", str(arguments.rounds), "--markdown", str(arguments.markdown)])
        how = (
            f"Made by `python -m benchmarks.widths {command}` on {processor()}: training in bf16 on one thread, batches of "
            f"{BATCH}, in times as fast as the dense network; medians of rounds. Empty where nothing is padded."
        )
        arguments.markdown.write_text("\n".join(["# Training a narrower network", "", how, "", *told]))


if __name__ == "__main__":
    main()
