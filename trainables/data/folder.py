"""A folder of images, one folder a class, decoded once into a cached array.

Layout: root/train/<class>/*, and root/test/<class>/* of which only the names of the class folders are looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.records.names import InputError
from trainables.records.untrusted import machine_memory
from trainables.settings import one_line

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CACHE_FOLDER = ".cache"
USER_CACHE_FOLDER = "pruning-front"
COPIES = 2
"""Of an image that is used: the split's, and the one in the store that all workers of a machine share."""


def class_names(root: Path) -> tuple[str, ...]:
    """The class folders of root/train, sorted; those of root/test, if there is one, must be the same."""
    if not (root / "train").is_dir():
        raise InputError(f"data.root: {str(root)!r} has no folder 'train'; put images at {root / 'train'}/<class>/*")
    classes = _folders(root / "train")
    if len(classes) < 2:
        raise InputError(f"data.root: '{root / 'train'}' has {len(classes)} class folders; put images of at least 2 there")
    if (root / "test").is_dir() and (differing := set(classes) ^ set(_folders(root / "test"))):
        raise InputError(
            f"data.root: the classes of '{root / 'train'}' and '{root / 'test'}' differ in "
            f"{', '.join(sorted(differing))}; give both the same class folders"
        )
    return tuple(classes)


def _folders(parent: Path) -> list[str]:
    return sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))


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


def cache_key(root: Path, files: Sequence[Path]) -> str:
    """Changes when an image is added, removed, renamed or written."""
    described = [(str(file.relative_to(root)), (s := file.stat()).st_size, s.st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


def read_images(root: Path, key: str, files: Sequence[Path], *, writable: bool = True, used: int = 0) -> Pixels:
    """All images as uint8 [N, C, H, W], decoded on first use into one file, of which only what is looked at is read.

    That lies beside the images, or, if they are not ``writable``, below the user's own cache.
    InputError if copies of the ``used`` of them that a study takes into memory are more than the machine has.
    """
    places = [folder / f"{key}.npy" for folder in _cache_folders(root)]
    for place in places:
        if (images := _cached(place, len(files))) is not None:
            _check_memory(files[0], images.shape[1:], COPIES * used)
            return images
    shape = _rgb(files[0])[0].shape
    _check_memory(files[0], shape, COPIES * used)
    for place in places if writable else places[1:]:
        if _store(files, place) and (images := _cached(place, len(files))) is not None:
            return images
    logging.getLogger(__name__).warning("no cache folder can be written: %s is decoded again each time", root)
    _check_memory(files[0], shape, COPIES * used + len(files))
    content = io.BytesIO()
    _decode(files, content)
    return _array(content)


def _check_memory(first: Path, shape: tuple[int, ...], images: int) -> None:
    if (needed := images * math.prod(shape)) > machine_memory():
        raise InputError(
            f"data.root: images of {shape[2]}x{shape[1]} pixels, as '{first}' is, take {needed / 1e9:.0f} GB of memory, "
            "more than the machine has; make them smaller, or use fewer of them with data.limit"
        )


def _cache_folders(root: Path) -> tuple[Path, Path]:
    """Beside the images, or for a read-only root below the user's own cache, in a folder of this root's alone."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / CACHE_FOLDER, user / USER_CACHE_FOLDER / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]


def _cached(place: Path, count: int) -> Pixels | None:
    """The images of a cache file, or None when it is not there or not whole."""
    try:
        images = np.load(place, mmap_mode="r", allow_pickle=False)
    except Exception:  # what numpy raises on a damaged header can be almost anything
        return None
    return images if images.dtype == np.uint8 and images.ndim == 4 and len(images) == count else None


def _store(files: Sequence[Path], place: Path) -> bool:
    """Decode images into a cache file, whole or not at all; False where nothing can be written."""
    temporary = place.with_name(f"{place.name}.{uuid.uuid4().hex}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Written, and not mapped into memory: on a disk that fills, that is an error and not a signal.
        with temporary.open("wb") as file:
            _decode(files, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        with contextlib.suppress(OSError):
            place.parent.rmdir()  # if there is nothing in it
    return True


def _decode(files: Sequence[Path], file: BinaryIO) -> None:
    """Write images of one size to an empty file as an array of numpy's: of one channel, if none of them has colour.

    One by one: at 32x32 pixels, four threads sharing the GIL are three times slower.
    """
    for channels in (1, 3):  # grey, until one of colour is met; then all of them again
        file.seek(0)
        file.truncate()
        if _decode_as(channels, files, file):
            return


def _decode_as(channels: int, files: Sequence[Path], file: BinaryIO) -> bool:
    """Write images of so many channels; False at the first of which that would lose the colour."""
    for i, one in enumerate(files):
        pixels, colour = _rgb(one)
        if channels == 1 and colour:
            return False
        if i == 0:
            shape = pixels.shape
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), channels, *shape[1:])}
            np.lib.format.write_array_header_1_0(file, header)
        if pixels.shape != shape:
            raise InputError(
                f"data.root: '{one}' is {pixels.shape[2]}x{pixels.shape[1]} pixels, and '{files[0]}' is "
                f"{shape[2]}x{shape[1]}; resize all images to one size"
            )
        file.write(pixels[:channels].tobytes())
    return True


def _array(content: io.BytesIO) -> Pixels:
    """The array in an array file, without a copy."""
    content.seek(0)
    np.lib.format.read_magic(content)
    shape, _, kind = np.lib.format.read_array_header_1_0(content)
    return np.frombuffer(content.getbuffer(), kind, offset=content.tell()).reshape(shape)


def _rgb(file: Path) -> tuple[Pixels, bool]:
    """The image as uint8 [3, H, W], and whether it is one of colour."""
    try:
        with Image.open(file) as image:
            mode = image.mode
            pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # what a plugin of PIL raises on a broken file can be almost anything
        raise InputError(f"data.root: '{file}' is no readable image ({one_line(error)}); replace or remove it") from error
    if mode == "F" or mode.startswith("I"):
        raise InputError(f"data.root: '{file}' has more than 8 bits a pixel ({mode}); convert it to 8 bits")
    return pixels, mode not in ("1", "L", "LA")
