"""A folder of images, one folder a class."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.cache import Decoded, Reader
from trainables.data.sets.base import DataSet, Root, Seen
from trainables.data.split import Integers
from trainables.records.names import InputError
from trainables.settings import one_line

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TRAIN, TEST = "train", "test"
VALIDATION = ("validation", "valid", "val")


class Folder(Root, DataSet):
    """Images in ``root/train/<class>/*``, and in ``validation`` (``valid``, ``val``) and ``test`` beside it if there."""

    name = "folder"

    def seen(self, reader: Reader) -> Seen:
        """The images of train, and of validation; of test only the names of the class folders are looked at."""
        root = Path(self.root).expanduser()
        try:
            validation = _validation(root)
            classes = class_names(root, [TEST, *([validation] if validation else [])])
            parts = [_files(root, part, classes) for part in (TRAIN, validation) if part]
        except OSError as error:
            raise InputError(f"data.root: {self.root!r} cannot be read ({one_line(error)}); check the folder") from error
        train = reader.read(parts[0], root)
        return Seen(train, classes, reader.like(train).read(parts[1], root) if validation else None)

    def held_out(self, reader: Reader) -> Decoded:
        """The images of test."""
        root = Path(self.root).expanduser()
        if not (root / TEST).is_dir():
            raise InputError(
                f"data.root: {self.root!r} has no folder 'test'; put held-out images at {root / TEST}/<class>/*"
            )
        return reader.read(_files(root, TEST, class_names(root, [TEST])), root)


@dataclass(frozen=True)
class ImageFiles:
    """Files of images, and the label of each."""

    root: Path
    files: Sequence[Path]
    targets: Integers

    @property
    def key(self) -> str:
        """Changes when an image is added, removed, renamed or written."""
        described = [(os.path.relpath(file, self.root), *_stat(file)) for file in self.files]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The picture in a file."""
        with Image.open(self.files[index]) as image:
            image.load()
            return image, int(self.targets[index])

    def named(self, index: int) -> str:
        """The file."""
        return f"data.root: '{self.files[index]}'"


def _stat(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:  # it can't be read either, and that is told then
        return 0, 0
    return found.st_size, found.st_mtime_ns


def class_names(root: Path, others: Sequence[str]) -> tuple[str, ...]:
    """The class folders of root/train, sorted; those of the other parts that are there must be the same."""
    if not (root / TRAIN).is_dir():
        raise InputError(f"data.root: {str(root)!r} has no folder 'train'; put images at {root / TRAIN}/<class>/*")
    classes = _folders(root / TRAIN)
    if len(classes) < 2:
        raise InputError(f"data.root: '{root / TRAIN}' has {len(classes)} class folders; put images of at least 2 there")
    for part in others:
        if (root / part).is_dir() and (differing := classes.keys() ^ _folders(root / part).keys()):
            raise InputError(
                f"data.root: the classes of '{root / TRAIN}' and '{root / part}' differ in "
                f"{', '.join(sorted(differing))}; give both the same class folders"
            )
    return tuple(classes)


def _validation(root: Path) -> str | None:
    found = [part for part in VALIDATION if (root / part).is_dir()]
    if len(found) > 1:
        raise InputError(f"data.root: {str(root)!r} has folders {' and '.join(found)}; keep the one that validates")
    return found[0] if found else None


def _folders(parent: Path) -> dict[str, Path]:
    """Class folders by the name of the class, sorted: it may be written in two ways, as other systems do."""
    folders = sorted(entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return {unicodedata.normalize("NFC", folder.name): folder for folder in folders}


def _files(root: Path, part: str, classes: Sequence[str]) -> ImageFiles:
    folders = _folders(root / part)
    files = [image_files(folders[name]) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(some) for some in files])
    return ImageFiles(root, [file for some in files for file in some], labels)


def image_files(folder: Path) -> list[Path]:
    """The images anywhere below a class folder, sorted; hidden files and those of other kinds are passed over."""
    files = sorted(_walk(folder))
    if not files:
        known = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"data.root: '{folder}' holds no image ({known}); put images there or remove the folder")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:  # three times faster than Path.rglob on 50,000 files
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path))
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(entry.path)
