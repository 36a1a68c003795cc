"""What images that aren't in memory cost: ``python -m benchmarks.mapped_images``.

For each count a fresh process draws batches from a file of so many images (64x64, colour), and prints the memory of its own
(``RssAnon`` of Linux) and the time for a batch of 128. The pages of the file belong to the machine, which takes them back
when it needs them. Then a step of resnet18 on photographs of 128x128 pixels, on one core, is timed beside reading its batch
from the file, and beside decoding it anew from JPEG, as it is done where there is no room for the file.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainables.data.cache import Decoder, Reader

COUNTS, SIDE, BATCH, BATCHES = (10_000, 50_000, 200_000), 64, 128, 400
CHILD = """
import pickle, sys, time
import torch
from trainables.data.mapped import MappedTensor

images = MappedTensor(pickle.load(sys.stdin.buffer), "cpu")
order, began = torch.randperm(len(images)), time.perf_counter()
for i in range({batches}):
    images[order[torch.arange(i * {batch}, (i + 1) * {batch}) % len(order)]]
seconds = (time.perf_counter() - began) / {batches}
own = next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]
print(f"{{int(own) / 1e3:.0f}} MB of its own, {{1000 * seconds:.1f}} ms a batch")
"""


PHOTOGRAPHS, PHOTOGRAPH_SIDE, SIDE_OF_STEP, OF_STEP, ROUNDS = 192, 256, 128, 32, 5


def main() -> None:
    """Print a line for each count, and one for the step."""
    memory()
    step()


def memory() -> None:
    """A line for each count."""
    import pickle  # noqa: PLC0415 - as Ray sends them

    from trainables.data.mapped import ArrayFile, Mapped  # noqa: PLC0415

    draw = np.random.default_rng(0)
    some = draw.integers(0, 256, (1000, 3, SIDE, SIDE), dtype=np.uint8)
    for count in COUNTS:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            file = Path(folder) / "images.npy"
            images = np.lib.format.open_memmap(file, "w+", np.uint8, (count, *some.shape[1:]))
            for start in range(0, count, len(some)):
                images[start : start + len(some)] = some
            del images
            sent = pickle.dumps(Mapped(ArrayFile(str(file.resolve())), np.arange(count)))
            command = [sys.executable, "-c", CHILD.format(batches=BATCHES, batch=BATCH)]
            done = subprocess.run(command, input=sent, capture_output=True, check=True)  # noqa: S603 - our own command
            print(f"{count:>7,} images: {done.stdout.decode().strip()}")


def step() -> None:
    """The shares of a step that reading and decoding take, medians of rounds in turn."""
    from trainables.data import mapped  # noqa: PLC0415
    from trainables.data.dataset import DataSettings, load  # noqa: PLC0415
    from trainables.data.sets.folder import _part  # noqa: PLC0415
    from trainables.networks.factory import ModelSettings, build  # noqa: PLC0415
    from trainables.training.loop import LearningRate, Recipe, fastest_precision, fit  # noqa: PLC0415

    torch.set_num_threads(1)
    mapped.MAPPED_FROM = 0
    with tempfile.TemporaryDirectory() as folder:
        _photographs(Path(folder))
        data = load(DataSettings(dataset="folder", root=folder, size=(SIDE_OF_STEP,) * 2))
        items, count = _part(Path(folder), "train", ("0", "1")), len(data.train_labels)
        model = build(ModelSettings(name="torchvision:resnet18"), 2, data.shape, trusted=False)
        recipe = Recipe(LearningRate((0.0, 1.0), (0.01, 0.0)), 0, 1, OF_STEP, 0.9, 0.0, fastest_precision("cpu"))
        decoded = Decoder(items, Reader(), np.arange(count), np.dtype(np.uint8), (count, *data.shape))
        contestants: dict[str, Callable[[], object]] = {
            "step": lambda: fit(model, data, recipe, 0),
            "reading": lambda: [data.train_images[start : start + OF_STEP] for start in range(0, count, OF_STEP)],
            "decoding": lambda: [
                decoded.read(np.arange(start, min(start + OF_STEP, count))) for start in range(0, count, OF_STEP)
            ],
        }
        times = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, contestant in contestants.items():
                began = time.perf_counter()
                contestant()
                times[name].append((time.perf_counter() - began) / (count // OF_STEP))
    whole, reading, decoding = (1000 * statistics.median(times[name]) for name in contestants)
    print(f"resnet18 on {OF_STEP} images of {SIDE_OF_STEP}x{SIDE_OF_STEP} pixels: {whole:.0f} ms a step, and of a batch")
    print(f"{reading:.1f} ms to read ({reading / whole:.2%}), or {decoding:.0f} ms to decode ({decoding / whole:.1%})")


def _photographs(folder: Path) -> None:
    """Noise on large patches, which JPEG takes about as long for as photographs."""
    draw = np.random.default_rng(0)
    for i in range(PHOTOGRAPHS):
        place = folder / "train" / str(i % 2)
        place.mkdir(parents=True, exist_ok=True)
        patches = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((PHOTOGRAPH_SIDE,) * 2)
        patches.save(place / f"{i}.jpg", quality=90)


if __name__ == "__main__":
    main()
