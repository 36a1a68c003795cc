"""A folder of images, one folder a class."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.data.cache import Decoded, Reader
from trainables.data.sets.base import DataSet, Root, Seen
from trainables.records.names import InputError
from trainables.settings import one_line

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TRAIN, TEST = "train", "test"
IMAGES, MASKS = "images", "masks"
VALIDATION = ("validation", "valid", "val")


class Folder(Root, DataSet):
    """Images in ``root/train/<class>/*``, and in ``validation`` (``valid``, ``val``) and ``test`` beside it if there.

    For segmentation they are in ``root/train/images``, with a mask of the same name in ``root/train/masks``.
    """

    name = "folder"

    def seen(self, reader: Reader) -> Seen:
        """The images of train, and of validation; of test only the names of the class folders are looked at."""
        root = Path(self.root).expanduser()
        try:
            validation = _validation(root)
            others = [TEST, *([validation] if validation else [])]
            classes = () if reader.masks else class_names(root, others)
            parts = [_part(root, part, classes) for part in (TRAIN, validation) if part]
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
        return reader.read(_part(root, TEST, () if reader.masks else class_names(root, [TEST])), root)


@dataclass(frozen=True)
class ImageFiles:
    """Files of images, and the label of each."""

    root: Path
    files: Sequence[Path]
    targets: npt.NDArray[Any] | None

    @property
    def key(self) -> str:
        """Changes when an image is added, removed, renamed or written."""
        described = [(os.path.relpath(file, self.root), *_stat(file)) for file in self.files]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Image.Image, Any]:
        """The picture in a file."""
        with Image.open(self.files[index]) as image:
            image.load()
            return image, 0 if self.targets is None else self.targets[index]

    def named(self, index: int) -> str:
        """The file."""
        return f"data.root: '{self.files[index]}'"


@dataclass(frozen=True)
class MaskedFiles(ImageFiles):
    """Files of images, and for each a file with a mask."""

    masks: Sequence[Path] = ()

    @property
    def key(self) -> str:
        """Changes when an image or a mask does."""
        described = [(os.path.relpath(file, self.root), *_stat(file)) for file in (*self.files, *self.masks)]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]

    def read(self, index: int) -> tuple[Image.Image, Any]:
        """The picture in a file, and the classes of its pixels."""
        image, _ = super().read(index)
        with Image.open(self.masks[index]) as mask:
            if mask.mode not in ("L", "P", "1", "I", "I;16"):
                raise ValueError(f"its mask '{self.masks[index]}' has colours ({mask.mode}), not numbers of classes")
            return image, np.array(mask).astype(np.int64 if mask.mode.startswith("I") else np.uint8)


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


def _part(root: Path, part: str, classes: Sequence[str]) -> ImageFiles:
    """The files of one part; without classes those of images and masks."""
    return _files(root, part, classes) if classes else _masked(root, part)


def _masked(root: Path, part: str) -> MaskedFiles:
    for folder in (root / part / IMAGES, root / part / MASKS):
        if not folder.is_dir():
            raise InputError(
                f"data.root: there is no folder '{folder}'; put images at {root / part / IMAGES}, and for each a mask of "
                f"its name at {root / part / MASKS}"
            )
    images, masks = (
        {_name(file, folder): file for file in image_files(folder)}
        for folder in (root / part / IMAGES, root / part / MASKS)
    )
    if alone := sorted(images.keys() ^ masks.keys()):
        lacking, there = (MASKS, images) if alone[0] in images else (IMAGES, masks)
        raise InputError(f"data.root: '{there[alone[0]]}' has nothing of its name in {lacking}; add it, or remove the file")
    files = list(images.values())
    return MaskedFiles(root, files, None, [masks[name] for name in images])


def _name(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder).with_suffix(""))


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
