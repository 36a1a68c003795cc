"""What the tests of data sets share: images, tables and data sets of a user's own, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.data.dataset import DataSettings, load
from trainables.records.names import InputError
from trainables.settings import parse

CLASSES = ("cat", "dog")


def write_images(
    root: Path, classes: Sequence[str] = CLASSES, each: int = 10, size: tuple[int, int] = (12, 16), mode: str = "RGB"
) -> Path:
    random = np.random.default_rng(0)
    for name in classes:
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for i in range(each):
            pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / f"{i:03}.png")
    return root


def folder(root: Path, **changes: Any) -> DataSettings:
    return DataSettings(dataset="folder", root=str(root), **{"validation_fraction": 0.2, **changes})


def refusal(settings: DataSettings, *, writable: bool = True) -> str:
    with pytest.raises(InputError) as error:
        load(settings, writable=writable)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("data.")
    return message


def trusting(trusted: bool = True, /, **raw: Any) -> DataSettings:
    return parse(DataSettings, {"validation_fraction": 0.2, **raw}, "data", trusted=trusted)


def write_table(root: Path, each: int = 10, classes: Sequence[str] = CLASSES, **columns: Sequence[str]) -> Path:
    write_images(root, classes, each)
    paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    rows = [",".join(("path", "label", *columns))]
    rows += [",".join((path, path.split("/")[1], *(columns[name][i] for name in columns))) for i, path in enumerate(paths)]
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def write_fashion(root: Path, each: int = 10) -> None:
    """FashionMNIST as torchvision finds it."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, seed in (("train", 0), ("t10k", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (10 * each, 28, 28), dtype=np.uint8)
        labels = (np.arange(10 * each) % 10).astype(np.uint8)
        sizes = [n.to_bytes(4, "big") for n in (0x803, 10 * each, 28, 28)]
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"".join(sizes) + pixels.tobytes())
        sizes = [n.to_bytes(4, "big") for n in (0x801, 10 * each)]
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"".join(sizes) + labels.tobytes())


SETS = '''
"""Data sets and transforms that the tests ask for by name."""
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import v2


class Some(Dataset):
    def __init__(self, count, first=0, make=None, target=None, classes=None):
        self.count, self.first, self.make, self.target = count, first, make or picture, target or (lambda i: i % 2)
        if classes:
            self.classes = classes

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return self.make(self.first + i), self.target(i)


def picture(i):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8))


def floats(i):
    return torch.from_numpy(np.random.default_rng(i).normal(100, 5, (4, 9, 9)))


def breaks(i):
    if i == 17:
        raise KeyError("no seventeenth")
    return picture(i)


def pictures(count=40, **parts):
    made = {"train": Some(count), "test": Some(10, 1000)}
    return made | {name: Some(size, 500) for name, size in parts.items()}


def of(make="picture", **settings):
    return {"train": Some(40, make=globals()[make], **settings)}


def sealed():
    def never(i):
        raise AssertionError("the test split was opened")
    return {"train": Some(40), "test": Some(10, make=never)}


def of_another_class():
    return {"train": Some(40, target=lambda i: 2 * (i % 2), classes=["cat", "dog"])}


def of_words():
    return {"train": Some(40, target=lambda i: "cat")}


def at_random():
    return {"train": Some(40, make=lambda i: torch.rand(3, 8, 8))}


def nothing():
    return [1, 2]


def six(train):
    start = [v2.RandomCrop(6)] if train else [v2.CenterCrop(6)]
    return v2.Compose([*start, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])])


def other_shapes(train):
    return v2.CenterCrop(6 if train else 7)


def fails(train):
    def transform(image):
        raise ZeroDivisionError("by hand")
    return transform
'''
