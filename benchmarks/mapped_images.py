"""Memory of a process that trains on images in their file: ``python -m benchmarks.mapped_images``.

For each count a fresh process draws batches from a file of so many images (64x64, colour), and prints the memory of its own
(``RssAnon`` of Linux) and the time for a batch of 128. The pages of the file belong to the machine, which takes them back
when it needs them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

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


def main() -> None:
    """Print a line for each count."""
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


if __name__ == "__main__":
    main()
