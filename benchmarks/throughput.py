"""Images a second of training: our loop beside the usual DataLoader pipeline, on one thread.

    python -m benchmarks.throughput [--data FOLDER] [--json FILE] [--markdown FILE]

All train the same network (the CNN of width 32, batches of 256, SGD with momentum) for an epoch of the same images with the
same augmentation. They take turns in one process, so that a busy machine slows all of them, and are timed by the
processor's clock, on one thread; the ratio of each round is against the usual pipeline of that round. Those in between show
what each part gives. timm's loader and optimizer take part where timm is installed.

fp32 activations of this size are more than the C library keeps: it gives them back to the system, which has to clear pages
for each batch anew. So everything is measured twice: in a process whose allocator keeps its memory (``KEEPING``), which is
the fair comparison, and in one as it comes.

The last table sets what the loop does of the products of each network (forward and backward, counted by torch) against what
the same core does of one large bf16 matrix product.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from trainables.data.dataset import Data, DataSettings, load
from trainables.networks.factory import ModelSettings, build
from trainables.records.names import InputError
from trainables.training.loop import LearningRate, Recipe, fit, threads
from trainables.training.stepping import Precision, autocast

BATCH = 256
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4

KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**26)}
"""Has glibc keep what it was given once; read when a process starts."""
ALLOCATORS: Mapping[str, Mapping[str, str]] = {"keeping its memory": KEEPING, "as it comes": {}}

SHARED: Mapping[str, tuple[dict[str, Any], tuple[int, int, int], int]] = {
    "cnn, width 32": ({"name": "cnn"}, (3, 32, 32), 256),
    "cnn of the comparison": ({"name": "cnn", "arguments": {"width": 16, "stages": 4}}, (3, 32, 32), 128),
    "resnet20": ({"name": "resnet20"}, (3, 32, 32), 128),
    "cnn on digits": ({"name": "cnn", "arguments": {"width": 16}}, (1, 8, 8), 128),
}
"""The networks whose share of the core is told: settings, shape of an image, and batch."""
BATCHES = 4
PRODUCTS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDE = 1024
"""Of the matrices whose product says what the core can do."""

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
        self.transform = self.usual = transform

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
    fit(model, data, _recipe(precision, BATCH), seed=0)


def _recipe(precision: Precision, batch: int) -> Recipe:
    rate = LearningRate((0.0, 1.0), (LEARNING_RATE, LEARNING_RATE))
    return Recipe(rate, 0, 1, batch, MOMENTUM, WEIGHT_DECAY, precision)


def timm_epoch(images: Labelled, model: nn.Module) -> None:
    """An epoch as timm's training script does it, with its loader and optimizer; bf16 and channels-last."""
    from timm.data import create_loader  # noqa: PLC0415 - needn't be installed
    from timm.optim import create_optimizer_v2  # noqa: PLC0415

    optimizer = create_optimizer_v2(model, "sgd", lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM)
    model.to(memory_format=torch.channels_last).train()
    loader = create_loader(
        images, (3, 32, 32), BATCH, is_training=True, use_prefetcher=False, num_workers=0, device=torch.device("cpu")
    )
    images.transform = loader.dataset.transform = images.usual  # type: ignore[attr-defined]
    for inputs, labels in loader:
        with autocast("bf16", "cpu"):
            loss = F.cross_entropy(model(inputs.to(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def contestants(data: Data, folder: Path | None) -> dict[str, Epoch]:
    """The ways to train an epoch, by name."""
    transform = usual_transform(data)
    ways: dict[str, Epoch] = {USUAL: partial(usual_epoch, InMemory(data, transform), "fp32")}
    if folder is not None:
        files = torchvision.datasets.ImageFolder(folder / "train", transform)
        chosen = np.random.default_rng(0).permutation(len(files))[: len(data.train_labels)]
        ways[FILES] = partial(usual_epoch, Subset(files, chosen.tolist()), "fp32")
    ways["DataLoader, channels-last, bf16"] = partial(usual_epoch, InMemory(data, transform), "bf16")
    if find_spec("timm") is not None:
        ways["timm's loader, channels-last, bf16"] = partial(timm_epoch, InMemory(data, transform))
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
    start = time.process_time()
    epoch(model)
    return time.process_time() - start


def product_rate(kind: torch.dtype) -> float:
    """Operations a second of a matrix product on this thread, the fastest of some."""
    one, other = (torch.randn(SIDE, SIDE).to(kind) for _ in range(2))
    seconds = []
    for _ in range(8):
        start = time.process_time()
        one @ other
        seconds.append(time.process_time() - start)
    return 2 * SIDE**3 / min(seconds)


def shares(rounds: int) -> dict[str, float]:
    """What share of that rate ``fit`` reaches on each network in bf16, the products alone counted; medians of rounds."""
    found: dict[str, list[float]] = {name: [] for name in SHARED}
    for number in range(rounds + 1):
        for name, (settings, shape, batch) in SHARED.items():
            model = build(ModelSettings(**settings), 10, shape, trusted=False)
            with FlopCounterMode(display=False) as counted:
                F.cross_entropy(model(torch.zeros(2, *shape)), torch.zeros(2, dtype=torch.int64)).backward()
            data = synthetic(BATCHES * batch, shape)
            start = time.process_time()
            fit(model, data, _recipe("bf16", batch), seed=0)
            seconds = (time.process_time() - start) / BATCHES
            if number:  # the first chooses kernels
                found[name].append(counted.get_total_flops() * batch / 2 / seconds / product_rate(torch.bfloat16))
    return {name: statistics.median(some) for name, some in found.items()}


def synthetic(count: int, shape: tuple[int, int, int] = (3, 32, 32)) -> Data:
    """Noise of the shape of CIFAR-10, or another: speed does not depend on what the images show."""
    random, channels = np.random.default_rng(0), shape[0]
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 10
    names = tuple(map(str, range(10)))
    moments = (0.5,) * channels, (0.3,) * channels
    return Data(images, labels, images[:10], labels[:10], names, *moments, 4, True, "synthetic")


def from_folder(root: Path, count: int) -> Data:
    """At most ``count`` images of root/train, decoded."""
    return load(DataSettings(dataset="folder", root=str(root), limit=count))


def table(speeds: Mapping[str, list[Speed]], shared: Mapping[str, float]) -> Iterator[str]:
    """Lines of the result, in Markdown: medians, and in brackets the extremes over the rounds."""
    for allocator, some in speeds.items():
        yield from (f"| allocator {allocator} | images/s | times as fast |", "|---|---|---|")
        for speed in some:
            yield f"| {speed.contestant} | {_spread(speed.images_per_second, 0)} | {_spread(speed.ratios, 2)} |"
        yield ""
    yield from ("| network | share of the core's bf16 product rate |", "|---|---|")
    yield from (f"| {name} | {share:.0%} |" for name, share in shared.items())


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def conditions(data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the numbers hold for."""
    return {
        "cpu": processor(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "images": len(data.train_labels),
        "batch": BATCH,
        "data": "synthetic" if arguments.data is None else "folder",
        **{f"GFLOP/s of a product in {name}": round(product_rate(kind) / 1e9) for name, kind in PRODUCTS.items()},
    }


def processor() -> str:
    """Its name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def measured_by_another(arguments: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """What this program measures in a process with such an allocator."""
    ours = {name: value for name, value in os.environ.items() if name not in KEEPING}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        given = ["--images", arguments.images, "--rounds", arguments.rounds, "--threads", arguments.threads, "--here", file]
        data = [] if arguments.data is None else ["--data", arguments.data]
        command = [sys.executable, "-m", "benchmarks.throughput", *map(str, [*given, *data])]
        subprocess.run(command, env={**ours, **environment}, check=True)  # noqa: S603 - our own
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def measure_here(arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it, with the allocator that this process has."""
    data = synthetic(arguments.images) if arguments.data is None else from_folder(arguments.data, arguments.images)
    with threads(arguments.threads):
        speeds = [asdict(speed) for speed in measure(contestants(data, arguments.data), data, arguments.rounds)]
        shared = shares(arguments.rounds) if KEEPING.keys() <= os.environ.keys() else {}
    return {"conditions": conditions(data, arguments), "speeds": speeds, "shares": shared}


def main() -> None:
    """Measure, print the tables and, if asked to, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/*; synthetic images without it")
    parser.add_argument("--images", type=int, default=2560, help="images an epoch (default 2560)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after one that doesn't (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each contestant (default 1)")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.images < BATCH or arguments.rounds < 1:
        parser.error(f"--images must be at least {BATCH}, a batch, and --rounds at least 1")
    if arguments.here is not None:
        arguments.here.write_text(json.dumps(measure_here(arguments)))
        return
    try:
        _ = arguments.data and from_folder(arguments.data, arguments.images)
    except InputError as error:
        parser.error(str(error))
    found = {name: measured_by_another(arguments, environment) for name, environment in ALLOCATORS.items()}
    speeds = {name: [Speed(**speed) for speed in some["speeds"]] for name, some in found.items()}
    held, shared = (next(iter(found.values()))[name] for name in ("conditions", "shares"))
    told = [", ".join(f"{key} {value}" for key, value in held.items()), "", *table(speeds, shared)]
    print("\n".join(told))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.markdown is not None:
        given = f"--images {arguments.images} --rounds {arguments.rounds} --markdown {arguments.markdown}"
        how = f"Made by `python -m benchmarks.throughput {given}`; medians, and in brackets the extremes over the rounds."
        arguments.markdown.write_text("\n".join(["# Throughput", "", how, "", *told, ""]))


if __name__ == "__main__":
    main()
