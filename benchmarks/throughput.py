"""Images a second of training: our loop beside the usual DataLoader pipeline, on one thread.

    python -m benchmarks.throughput [--data FOLDER] [--json FILE]

Both train the same network (the CNN of width 32, batches of 256, SGD with momentum) for an epoch of the same images
with the same augmentation. The contestants take turns in one run, so that a busy machine slows all of them; the ratio
of each round is against the usual pipeline of that round. The two in between show what each part gives.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from trainables.data.dataset import Data, DataSettings, load
from trainables.networks.factory import ModelSettings, build
from trainables.records.names import InputError
from trainables.training.loop import LearningRate, Recipe, fit, threads
from trainables.training.stepping import Precision, autocast

BATCH = 256
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
GOAL = 2.5

USUAL = "DataLoader of PIL images, fp32"
FILES = "DataLoader of JPEG files, fp32"

Epoch = Callable[[nn.Module], None]
Labelled = Dataset[tuple[Tensor, int]]


@dataclass(frozen=True)
class Speed:
    """What one contestant did in all rounds: images a second, and how many times the usual pipeline's of that round."""

    contestant: str
    images_per_second: list[float]
    ratios: list[float]


class InMemory(Labelled):
    """The decoded images as an image-folder data set that has kept them: PIL images, transformed one by one."""

    def __init__(self, data: Data, transform: Callable[[Image.Image], Tensor]) -> None:
        pixels = data.train_images.transpose(0, 2, 3, 1)
        self.images = [Image.fromarray(image.squeeze()) for image in pixels]
        self.labels = data.train_labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def usual_transform(data: Data) -> Callable[[Image.Image], Tensor]:
    """What a training script for CIFAR-10 does with an image."""
    steps: list[Callable[[Any], Any]] = [transforms.RandomCrop(data.shape[1:], padding=data.crop)]
    if data.flip:
        steps.append(transforms.RandomHorizontalFlip())
    found: Callable[[Image.Image], Tensor] = transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    )
    return found


def usual_epoch(images: Labelled, precision: Precision, model: nn.Module) -> None:
    """An epoch as the tutorials write it; bf16 comes with channels-last memory, as in our own."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    layout = torch.contiguous_format if precision == "fp32" else torch.channels_last
    model.to(memory_format=layout).train()
    for inputs, labels in DataLoader(images, BATCH, shuffle=True, drop_last=True, num_workers=0):
        optimizer.zero_grad()
        with autocast(precision, "cpu"):
            loss = F.cross_entropy(model(inputs.to(memory_format=layout)), labels)
        loss.backward()
        optimizer.step()


def our_epoch(data: Data, precision: Precision, model: nn.Module) -> None:
    """An epoch of :func:`trainables.training.loop.fit`."""
    rate = LearningRate((0.0, 1.0), (LEARNING_RATE, LEARNING_RATE))
    fit(model, data, Recipe(rate, 0, 1, BATCH, MOMENTUM, WEIGHT_DECAY, precision), seed=0)


def contestants(data: Data, folder: Path | None) -> dict[str, Epoch]:
    """The ways to train an epoch, by name."""
    transform = usual_transform(data)
    ways: dict[str, Epoch] = {USUAL: partial(usual_epoch, InMemory(data, transform), "fp32")}
    if folder is not None:
        files = torchvision.datasets.ImageFolder(folder / "train", transform)
        chosen = np.random.default_rng(0).permutation(len(files))[: len(data.train_labels)]
        ways[FILES] = partial(usual_epoch, Subset(files, chosen.tolist()), "fp32")
    ways["DataLoader, channels-last, bf16"] = partial(usual_epoch, InMemory(data, transform), "bf16")
    ways["tensor in memory, channels-last, fp32"] = partial(our_epoch, data, "fp32")
    ways["tensor in memory, channels-last, bf16"] = partial(our_epoch, data, "bf16")
    return ways


def measure(ways: Mapping[str, Epoch], data: Data, rounds: int) -> list[Speed]:
    """Every contestant once a round, in turns. A first round is not counted: it chooses kernels and fills caches."""
    images = len(data.train_labels) // BATCH * BATCH
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, epoch in ways.items():
            seconds[name].append(_timed(epoch, data))
    counted = {name: some[1:] for name, some in seconds.items()}
    return [
        Speed(
            name,
            [images / own for own in some],
            [usual / own for usual, own in zip(counted[USUAL], some, strict=True)],
        )
        for name, some in counted.items()
    ]


def _timed(epoch: Epoch, data: Data) -> float:
    torch.manual_seed(0)
    model = build(ModelSettings(name="cnn"), len(data.classes), data.shape, trusted=False)
    start = time.perf_counter()
    epoch(model)
    return time.perf_counter() - start


def synthetic(count: int) -> Data:
    """Noise of the shape of CIFAR-10: speed does not depend on what the images show."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 10
    names = tuple(map(str, range(10)))
    return Data(images, labels, images[:10], labels[:10], names, (0.5,) * 3, (0.3,) * 3, 4, True, "synthetic")


def from_folder(root: Path, count: int) -> Data:
    """At most ``count`` images of root/train, decoded."""
    return load(DataSettings(dataset="folder", root=str(root), limit=count))


def table(speeds: list[Speed]) -> Iterator[str]:
    """Lines of the result: medians, and in brackets the extremes over the rounds."""
    yield f"{'':40} {'images/s':>24} {'times as fast':>22}"
    for speed in speeds:
        yield f"{speed.contestant:40} {_spread(speed.images_per_second, 0):>24} {_spread(speed.ratios, 2):>22}"
    best = statistics.median(speeds[-1].ratios)
    yield f"goal {GOAL} times: {'reached' if best >= GOAL else 'missed'} ({best:.2f})"


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def conditions(data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the numbers hold for."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "images": len(data.train_labels),
        "batch": BATCH,
        "data": "synthetic" if arguments.data is None else "folder",
    }


def main() -> None:
    """Measure, print the table and, if asked to, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/*; synthetic images without it")
    parser.add_argument("--images", type=int, default=2560, help="images an epoch (default 2560)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after one that doesn't (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each contestant (default 1)")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    if arguments.images < BATCH or arguments.rounds < 1:
        parser.error(f"--images must be at least {BATCH}, a batch, and --rounds at least 1")
    try:
        data = synthetic(arguments.images) if arguments.data is None else from_folder(arguments.data, arguments.images)
    except InputError as error:
        parser.error(str(error))
    with threads(arguments.threads):
        speeds = measure(contestants(data, arguments.data), data, arguments.rounds)
    held = conditions(data, arguments)
    print(", ".join(f"{key} {value}" for key, value in held.items()))
    print("\n".join(table(speeds)))
    if arguments.json is not None:
        record = {"conditions": held, "goal": GOAL, "speeds": [asdict(speed) for speed in speeds]}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
