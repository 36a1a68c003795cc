"""What a machine with a GPU has to show, in one script of less than ten minutes, without Ray and without a download.

    python -m benchmarks.gpu [--data FOLDER] [--json FILE]

1. Determinism: the same training twice, recorded as a CUDA graph and not, gives the same weights to the bit; also where
   it is interrupted and resumed, or its network can't be recorded. The exit status is 1 if one doesn't.
2. Images a second of the loop, recorded and not, which take turns; and of ordinary code that copies each batch to the GPU.
3. With --data, a folder with train/<class>/* of CIFAR-10: seconds until a dense network has 93 % validation accuracy.

With --device cpu nothing is recorded: that only shows that the script runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.throughput import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, synthetic
from trainables.data.dataset import Data, DataSettings, load
from trainables.networks.factory import ModelSettings, build
from trainables.pruning.masks import masking
from trainables.storage.folder import Folder
from trainables.training.loop import DenseSettings, LearningRate, Recipe, dense_schedule, evaluate, fit
from trainables.training.optimizers import AdamW
from trainables.training.resuming import Resumable, Training
from trainables.training.stepping import autocast

BATCH = 256
NETWORKS: dict[str, dict[str, Any]] = {"cnn": {}, "resnet20": {}, "torchvision:resnet18": {}}
GOAL = 0.93
DENSE = DenseSettings(epochs=40, learning_rate=0.2, batch_size=BATCH)
"""Of the CNN of width 128, with squares of 8 pixels blanked."""


class Looking(nn.Module):
    """A network that looks at a value, for which it has to wait, and which no graph can record."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Any:
        """[B, C, H, W] to logits."""
        return self.body(x * 2 if float(x.mean()) > 1e6 else x)


class Interrupted(Resumable):
    """Keeps its state in the middle of an epoch, and ends there."""

    def after_update(self, training: Training) -> None:
        """At the second half of the second epoch."""
        if (training.epoch, training.batch) == (1, training.batches // 2):
            self._next = 0.0
            super().after_update(training)
            raise KeyboardInterrupt


def network(name: str, classes: int = 10, **arguments: Any) -> nn.Module:
    """With the same weights each time."""
    torch.manual_seed(0)
    return build(ModelSettings(name=name, arguments=arguments), classes, (3, 32, 32), trusted=False)


def recipe_on(device: str, **changes: Any) -> Recipe:
    """Two epochs."""
    rate = LearningRate((0.0, 2.0), (LEARNING_RATE, 0.0))
    return replace(Recipe(rate, 0, 2, BATCH, MOMENTUM, WEIGHT_DECAY, "bf16", device), **changes)


def trained(model: nn.Module, data: Data, recipe: Recipe, resumable: Resumable | None = None, **hooks: Any) -> list[Tensor]:
    """All that the network holds after its training."""
    fit(model, data, recipe, 0, resumable=resumable, **hooks)
    return [one.detach().cpu().clone() for one in model.state_dict().values()]


def masked(model: nn.Module, device: str) -> Callable[[nn.Module], None]:
    """A hook that holds half of the weights at zero."""
    kept = {name: torch.rand(one.shape) < 0.5 for name, one in model.named_parameters() if one.dim() == 4}
    masking(model.to(device), kept)(model)
    return masking(model, kept)


def determinism(data: Data, device: str) -> Iterator[tuple[str, bool]]:
    """Of each way to train, whether it comes to the weights of the first, ordinary one."""
    on = device != "cpu"
    for name in NETWORKS:
        plain = trained(network(name), data, recipe_on(device))
        for what, recorded in (("again", False), ("recorded", on), ("recorded again", on)):
            yield f"{name}: {what}", same(plain, trained(network(name), data, recipe_on(device, recorded=recorded)))
    settings = {"fp32": {"precision": "fp32"}, "clipped": {"clip_norm": 0.5}, "AdamW": {"optimizer": AdamW()}, "masks": {}}
    for what, changes in settings.items():
        found = []
        for recorded in (False, on):
            model = network("cnn")
            hooks = {"after_update": masked(model, device)} if what == "masks" else {}
            found.append(trained(model, data, recipe_on(device, recorded=recorded, **changes), **hooks))
        yield f"cnn, {what}: recorded", same(*found)
    both = [trained(Looking(network("cnn")), data, recipe_on(device, recorded=one)) for one in (False, on)]
    yield "a network that can't be recorded", same(*both)
    whole = trained(network("cnn"), data, recipe_on(device, recorded=on))
    with tempfile.TemporaryDirectory() as folder:
        try:
            trained(network("cnn"), data, recipe_on(device, recorded=on), Interrupted(Folder(Path(folder)), "state"))
        except KeyboardInterrupt:
            rest = trained(network("cnn"), data, recipe_on(device, recorded=on), Resumable(Folder(Path(folder)), "state"))
            yield "cnn, interrupted and resumed", same(whole, rest)


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """To the bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def usual(model: nn.Module, data: Data, device: str) -> None:
    """Two epochs of decoded images as a script trains them that copies each batch, without augmentation."""
    model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    for _ in range(2):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            inputs = ((images[chosen].float() / 255 - 0.5) / 0.3).to(device, memory_format=torch.channels_last)
            with autocast("bf16", device):
                loss = F.cross_entropy(model(inputs), labels[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def speeds(data: Data, device: str, rounds: int) -> Iterator[tuple[str, float]]:
    """Images a second of each network and way, medians of rounds in turns; the first round isn't counted."""
    ways: dict[str, Callable[[nn.Module], Any]] = {
        "batches copied": lambda model: usual(model, data, device),
        "not recorded": lambda model: fit(model, data, recipe_on(device), 0),
        "recorded": lambda model: fit(model, data, recipe_on(device, recorded=device != "cpu"), 0),
    }
    for name in NETWORKS:
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds + 1):
            for way, train in ways.items():
                model, began = network(name), time.perf_counter()
                train(model)
                float(next(model.parameters()).detach().sum())  # waits for the device
                seconds[way].append(time.perf_counter() - began)
        for way, some in seconds.items():
            yield f"{name}, {way}", 2 * len(data.train_labels) / statistics.median(some[1:])


def to_goal(root: Path, device: str) -> dict[str, Any]:
    """Seconds of training (measuring left out) until the validation accuracy was there, and what it came to."""
    data = load(DataSettings(dataset="folder", root=str(root), validation_fraction=0.1, cutout=8))
    spent, began, found = 0.0, time.perf_counter(), {}

    def look(epoch: int, model: nn.Module) -> None:
        nonlocal spent, began
        if epoch % 4 and epoch != DENSE.epochs:
            return
        spent += time.perf_counter() - began
        accuracy = evaluate(model, data, device)
        model.train()
        found[epoch] = (round(spent, 1), accuracy)
        print(f"  epoch {epoch:3}: {spent:6.1f} s, {accuracy:.2%}", flush=True)
        began = time.perf_counter()

    recipe = recipe_on(device, rate=dense_schedule(DENSE), stop=DENSE.epochs, recorded=device != "cpu")
    fit(network("cnn", width=128), data, recipe, 0, after_epoch=look)
    reached = next((seconds for seconds, accuracy in found.values() if accuracy >= GOAL), None)
    return {"goal": GOAL, "seconds_to_goal": reached, "epochs": {key: list(value) for key, value in found.items()}}


def main() -> None:
    """Run it all, print it and, if asked to, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder with train/<class>/* of CIFAR-10; without it the third is left out"
    )
    parser.add_argument("--images", type=int, default=20 * BATCH, help="random images an epoch in 1 and 2 (default 5120)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of 2 that count, after one that doesn't (default 5)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --device cpu shows whether the script runs")
    device, data = arguments.device, synthetic(arguments.images)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    record: dict[str, Any] = {"device": name, "torch": torch.__version__, "determinism": {}, "images_per_second": {}}
    print(f"{name}, torch {torch.__version__}")
    for what, equal in determinism(data, device):
        record["determinism"][what] = equal
        print(f"  {'same bits' if equal else 'DIFFERENT'}  {what}", flush=True)
    for what, speed in speeds(data, device, arguments.rounds):
        record["images_per_second"][what] = round(speed)
        print(f"  {speed:10.0f} images/s  {what}", flush=True)
    if arguments.data is not None:
        record["cifar10"] = to_goal(arguments.data, device)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    if not all(record["determinism"].values()):
        parser.exit(1)


if __name__ == "__main__":
    main()
