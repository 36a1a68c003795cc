"""What the tests of tasks share: images with masks, labels and numbers, made on the spot, and code of a user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16
NETS = '''
"""Networks and a task that the tests of tasks ask for by name."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from trainables.tasks import Task


def maps(num_classes, width=6):
    """A network that gives a map of logits."""
    body = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    body += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*body, nn.Conv2d(width, num_classes, 1))


def boxes(num_classes, width=6):
    """A detector on a grid of 4 by 4: how sure it is that a centre is there, and where."""
    body = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.Conv2d(width, 3, 1))


class Squares(Dataset):
    """A bright square on a dark image; the target is its centre, in shares of the side."""

    def __init__(self, count, first):
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        draw = np.random.default_rng(self.first + i)
        image = draw.normal(0.2, 0.02, (3, 16, 16)).astype(np.float32)
        row, column = draw.integers(2, 14, 2)
        image[:, row - 2 : row + 2, column - 2 : column + 2] += 0.7
        return torch.from_numpy(image), torch.tensor([row / 16, column / 16])


def squares():
    return {"train": Squares(48, 0), "validation": Squares(16, 1000), "test": Squares(16, 2000)}


class Detector(Task):
    """Centres of squares: how far the answer is from it."""

    name, unit, direction, low = "distance", "pixels", "minimise", 0.0
    strength: float = 1.0

    def answers(self, outputs):
        sure = outputs[:, 0].flatten(1).softmax(1)
        cells = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), 0).flatten(1) + 0.5
        there = (cells / 4).to(outputs) + outputs[:, 1:].flatten(2).tanh() / 8
        return (sure[:, None] * there).sum(2)

    def loss(self, outputs, targets):
        return self.strength * (self.answers(outputs) - targets).square().mean()

    def measure(self, outputs, targets):
        return 16 * (self.answers(outputs) - targets).norm(dim=1).mean()


class Fails(Detector):
    name = "failing"

    def measure(self, outputs, targets):
        raise ZeroDivisionError("by hand")


class NoNumber(Detector):
    name = "nothing"

    def measure(self, outputs, targets):
        return float("nan")


class Nameless(Task):
    def loss(self, outputs, targets):
        return outputs.mean()

    def measure(self, outputs, targets):
        return 0.0


class Taken(Detector):
    name = "macs"
'''


def write_masks(root: Path, each: int = 24, parts: tuple[str, ...] = ("train", "test"), classes: int = 3) -> Path:
    """Squares of one colour a class on a dark ground, and masks with their classes."""
    for part, start in zip(parts, range(0, 1000, 100), strict=False):
        for folder in ("images", "masks"):
            (root / part / folder).mkdir(parents=True)
        for i in range(each):
            draw = np.random.default_rng(start + i)
            image, mask = draw.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8), np.zeros((SIDE, SIDE), np.uint8)
            for label in range(1, classes):
                top, left = draw.integers(0, SIDE - 6, 2)
                image[top : top + 6, left : left + 6, label % 3] = 220
                mask[top : top + 6, left : left + 6] = label
            mask[0, 0] = 255
            Image.fromarray(image).save(root / part / "images" / f"{i:03}.png")
            Image.fromarray(mask).save(root / part / "masks" / f"{i:03}.png")
    return root


def write_numbers(root: Path, count: int = 40) -> Path:
    """Images whose brightness in two channels a csv tells as numbers, and as labels."""
    (root / "images").mkdir(parents=True)
    rows = ["path,split,red,green,has_red,has_green"]
    for i in range(count):
        draw = np.random.default_rng(i)
        red, green = draw.uniform(0, 1, 2)
        pixels = np.stack([np.full((SIDE, SIDE), 255 * level) for level in (red, green, 0.5)], 2)
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{i:03}.png")
        part = "test" if i % 8 == 0 else "train"
        rows.append(f"images/{i:03}.png,{part},{red:.4f},{green:.4f},{int(red > 0.5)},{int(green > 0.5)}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root
