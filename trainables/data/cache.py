"""Images decoded once into a file that is mapped into memory, at the size that a network sees; of it only what is looked at
is read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import math
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from trainables.data.images import SHORTER_SIDE, Size, fitted_mask, kept_size, pixels, resized, upright
from trainables.data.mapped import Source
from trainables.data.split import Integers
from trainables.records.names import InputError
from trainables.records.untrusted import machine_memory
from trainables.settings import one_line

CACHE_FOLDER = ".cache"
USER_CACHE_FOLDER = "pruning-front"
MIXED_SIZE = (128, 128)
"""Of images that come in several sizes, where a study names none."""
MOST_LEFT_OUT = 0.01
TOLD_FROM = 10**9
"""Bytes that are written only after they were told of."""
DECODING = 4
"""Threads that decode images which are kept nowhere."""


class Items(Protocol):
    """Images that are read one by one."""

    @property
    def key(self) -> str | None:
        """Changes when an image does; None where only reading them tells."""

    @property
    def targets(self) -> npt.NDArray[Any] | None:
        """Of each image, if they are known without reading it."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, index: int) -> tuple[Any, Any]:
        """An image (of PIL, a tensor or an array) and its target; whatever is raised is told of this image."""

    def named(self, index: int) -> str:
        """What a message calls it: the setting that names it, a colon, and its own name."""


class Decoded(NamedTuple):
    """Images [N, C, H, W], their targets [N, ...], which of all they are, the names of those left out, and whether several
    sizes became one. Masks are in a file of their own, as the images are, or in memory."""

    images: npt.NDArray[Any] | Source
    targets: npt.NDArray[Any]
    kept: Integers
    left_out: tuple[str, ...] = ()
    mixed: bool = False


@dataclass(frozen=True)
class Reader:
    """How images are read: resized to ``size`` in the way of ``resize``, or all of their own one size if that is None.

    ``alike``, (C, H, W), is what they must be without being resized. Nothing is written at a root that isn't ``writable``.
    Targets that are ``masks`` are resized with their images.
    """

    size: Size | None = None
    resize: str = SHORTER_SIDE
    skip_unreadable: bool = False
    writable: bool = True
    alike: tuple[int, ...] | None = None
    masks: bool = False

    def like(self, first: Decoded) -> Reader:
        """A reader of more images for the same network."""
        _, channels, *size = first.images.shape
        own = (size[0], size[1]) if first.mixed else self.size
        return replace(self, size=own, alike=(channels, *size))

    @property
    def kept(self) -> Size | None:
        """The size of the images in the file."""
        if self.alike is not None and self.size is not None:
            return self.alike[1], self.alike[2]
        return None if self.size is None else kept_size(self.size, self.resize)

    def array(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Images [N, C, H, W] that are in memory already."""
        return images if self.kept is None or self.kept == images.shape[2:] else resized(images, self.kept, self.resize)

    def read(self, items: Items, root: Path | None, of: str = "") -> Decoded:
        """All images, from a cache folder that has them, or else decoded into the first that can be written.

        That lies beside the images, at ``root``, or is one of the user's, called after the root or after ``of``.
        InputError names those that can't be read.
        """
        user = user_folder(of if root is None else str(root.resolve()))
        beside = [] if root is None else [root / CACHE_FOLDER]
        name = None if items.key is None else f"{items.key}{self._suffix}"
        for place in [*beside, user] if name else ():
            if (found := _cached(place / f"{name}.npy", items)) is not None:
                return found
        for place in [*(beside if self.writable else []), user]:
            if (found := _stored(items, self, place, name)) is not None:
                return found
        log, content = logging.getLogger(__name__), io.BytesIO()
        log.warning("no cache folder can be written: %s is decoded again each time", root or of)
        try:
            return _decode(items, self, [content], machine_memory(), "memory")._replace(images=_array(content))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            log.warning("%s, for which neither a disk nor the memory has room: they are decoded each time they are read, "
                        "which is slow; make room, or name a smaller data.size", error.filename)  # fmt: skip
        done = _decode(items, self, [_Nowhere()], sys.maxsize, "nowhere")
        return done._replace(
            images=Decoder(items, self, done.kept, done.images.dtype, (len(done.kept), *done.images.shape[1:]))
        )

    @property
    def _suffix(self) -> str:
        channels = (f"-{self.alike[0]}" if self.alike else "") + ("-masks" if self.masks else "")
        return channels + (f"-{self.kept[0]}x{self.kept[1]}-{self.resize}" if self.kept else "")


@dataclass(frozen=True, eq=False)
class Decoder:
    """Images that are decoded whenever they are read, by a few threads: PIL lets others run meanwhile."""

    items: Items
    reader: Reader
    kept: Integers
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, rows: Any) -> npt.NDArray[Any]:
        """These images; InputError if one has changed, or can't be read any more."""
        if np.ndim(rows) == 0:
            return self._one(int(self.kept[rows]))
        with ThreadPoolExecutor(DECODING) as threads:
            found = list(threads.map(self._one, self.kept[rows].tolist()))
        return np.stack(found) if found else np.empty((0, *self.shape[1:]), self.dtype)

    def _one(self, item: int) -> npt.NDArray[Any]:
        try:
            found, colour = pixels(self.items.read(item)[0], (self.shape[2], self.shape[3]), self.reader.resize)
        except Exception as error:  # as in ``_decode_as``
            why = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"{self.items.named(item)} can't be read any more ({why}); put it back") from error
        found = found if colour is None else found[: self.shape[1]]
        if (found.dtype, found.shape) != (self.dtype, self.shape[1:]):
            raise InputError(f"{self.items.named(item)} has changed since the study began; put it back")
        return found


class _Nowhere(io.BytesIO):
    """A file that keeps nothing."""

    def write(self, content: Any) -> int:
        """Only its length."""
        return len(content)


def user_folder(of: str) -> Path:
    """A folder of the user's own cache."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user / USER_CACHE_FOLDER / hashlib.sha256(of.encode()).hexdigest()[:16]


def _cached(place: Path, items: Items) -> Decoded | None:
    """The images of a cache file, or None when it is not there or not whole."""
    try:
        with np.load(place.with_suffix(".npz"), allow_pickle=False) as beside:
            kept, targets, left_out, mixed = (beside[name] for name in ("kept", "targets", "left_out", "mixed"))
            if items.targets is not None:
                targets = items.targets[kept]
            names = tuple(map(str, left_out))
        images, targets = _mapped(place, kept, targets)
    except Exception:  # what numpy raises on a damaged header can be almost anything
        return None
    whole = images.dtype in (np.uint8, np.float32) and images.ndim == 4 and len(kept) + len(names) == len(items)
    whole &= len(images) == len(targets) == len(kept)
    return Decoded(images, targets, kept, names, bool(mixed)) if whole else None


def _stored(items: Items, reader: Reader, place: Path, name: str | None) -> Decoded | None:
    """The images, decoded into a cache file, whole or not at all; None where nothing can be written.

    Without a ``name`` the file is called after its content.
    """
    temporary = place / f"{uuid.uuid4().hex}.tmp"
    beside = _masks(temporary)
    try:
        place.mkdir(parents=True, exist_ok=True)
        # Written, and not mapped into memory: on a disk that fills, that is an error and not a signal.
        with temporary.open("w+b") as file, beside.open("w+b") as masks:
            files = [file, masks] if reader.masks and items.targets is None else [file]
            done = _decode(items, reader, files, shutil.disk_usage(place).free, str(place))
            for one in files:
                one.flush()
                os.fsync(one.fileno())
            name = name or _digest(files)
        images = place / f"{name}.npy"
        _store_beside(images.with_suffix(".npz"), done)
        if _are_beside(done.kept, done.targets):
            beside.replace(_masks(images))
        temporary.replace(images)
        mapped, targets = _mapped(images, done.kept, done.targets)
        return done._replace(images=mapped, targets=targets)
    except OSError:
        return None
    finally:
        for left in (temporary, beside):
            with contextlib.suppress(OSError):
                left.unlink()
        with contextlib.suppress(OSError):
            place.rmdir()  # if there is nothing in it


def _mapped(images: Path, kept: Integers, targets: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The images in a file, and their targets; of masks those in the file beside it."""
    if _are_beside(kept, targets):
        targets = np.load(_masks(images), mmap_mode="r", allow_pickle=False)
    return np.load(images, mmap_mode="r", allow_pickle=False), targets


def _are_beside(kept: Integers, targets: npt.NDArray[Any]) -> bool:
    """Whether targets are masks in a file of their own."""
    return len(kept) > 0 and not len(targets)


def _masks(images: Path) -> Path:
    """The file of the masks of images in a file."""
    return images.with_suffix(f".masks{images.suffix}")


def _digest(files: Sequence[io.BufferedRandom]) -> str:
    """Of their content together; of one its own."""
    found = []
    for file in files:
        file.seek(0)
        found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return (found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest())[:32]


def _store_beside(file: Path, done: Decoded) -> None:
    temporary = file.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as opened:
            left_out = np.array(done.left_out, np.str_)
            np.savez(opened, kept=done.kept, targets=done.targets, left_out=left_out, mixed=np.array(done.mixed))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


class _OfColour(Exception):  # noqa: N818 - no error: a way back
    """Images that were taken for grey have colour."""


class _OfSeveralSizes(Exception):  # noqa: N818
    """Images that were taken to be of one size aren't."""


class _NoMasks(Exception):  # noqa: N818
    """Targets that were taken for masks of bytes, all of one size, aren't."""


def _decode(items: Items, reader: Reader, files: Sequence[BinaryIO], room: int, where: str) -> Decoded:
    """Write images to an empty file as an array of numpy's: pictures of one channel, if none of them has colour.

    Masks of bytes go to a second file, if there is one, and into memory otherwise. One by one: at 32x32 pixels, four
    threads sharing the GIL are three times slower.
    """
    channels, size, mixed = reader.alike[0] if reader.alike else 1, reader.kept, False
    while True:
        for file in files:
            file.seek(0)
            file.truncate()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what PIL thinks of a file is no news once it has been read
                arrays = [_Array(file, len(items), room, where) for file in files]
                return _decode_as(channels, size, items, reader, *arrays)._replace(mixed=mixed)
        except _OfColour:  # grey, until one of colour is met; then all of them again
            channels = 3
        except _OfSeveralSizes:
            size, mixed = kept_size(MIXED_SIZE, reader.resize), True
        except _NoMasks:  # they are kept as they are
            files = files[:1]


@dataclass
class _Array:
    """An array that is written to a file image by image; there is ``room`` for so many bytes."""

    file: BinaryIO
    count: int
    room: int
    where: str
    kind: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()

    def add(self, image: npt.NDArray[Any]) -> None:
        if self.kind is None:
            self.kind, self.shape = image.dtype, image.shape
            self._check_room()
            self.header(self.count)
        self.file.write(image.tobytes())

    def header(self, count: int) -> None:
        """Of so many images; numpy leaves room in it for the number to change."""
        assert self.kind is not None
        header = {"descr": self.kind.str, "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def _check_room(self) -> None:
        assert self.kind is not None
        needed = self.count * math.prod(self.shape) * self.kind.itemsize
        told = (
            f"{self.count:,} images of {self.shape[-1]}x{self.shape[-2]} pixels, decoded once, take {needed / 1e9:.1f} GB"
        )
        if needed > self.room:
            raise OSError(errno.ENOSPC, "No space left", told)
        if needed > TOLD_FROM and not isinstance(self.file, _Nowhere):
            logging.getLogger(__name__).warning("%s at %s", told, self.where)


def _decode_as(
    channels: int, size: Size | None, items: Items, reader: Reader, array: _Array, masks: _Array | None = None
) -> Decoded:
    """Write images of so many channels and one size; see ``_decode``."""
    kept: list[int] = []
    targets: list[npt.NDArray[Any]] = []
    unread: list[tuple[str, str]] = []
    for i in range(len(items)):
        try:
            image, target = items.read(i)
            found, colour = pixels(image, size, reader.resize)
            target = _target(target)
            if reader.masks:
                target = _mask(target, image, size, reader.resize, items.named(i))
        except InputError:
            raise
        except Exception as error:  # what a plugin of PIL, or a user's own code, raises can be almost anything
            unread.append((items.named(i), f"{type(error).__name__}: {one_line(error)}"))
            continue
        if unread and not reader.skip_unreadable:
            continue  # the others are only counted
        if colour is not None:
            if channels == 1 and colour and reader.alike is None:
                raise _OfColour
            found = found if colour else found[:channels]
        _check_alike(found, array, items.named(i), reader.alike)
        array.add(found)
        kept.append(i)
        if masks is None:
            targets.append(target)
        elif target.dtype == np.uint8 and target.ndim == 2 and target.shape == (masks.shape or target.shape):
            masks.add(target)
        else:
            raise _NoMasks
    _check_read(unread, len(items), reader)
    for one in [array, *([masks] if masks else [])] if unread else ():
        one.file.seek(0)
        one.header(len(kept))
        one.file.seek(0, io.SEEK_END)
    which = np.array(kept, np.int64)
    known = items.targets
    shown = np.empty((0, *array.shape), array.kind)
    targets_kept = np.empty((0, *masks.shape), np.uint8) if masks else _stacked(targets) if known is None else known[which]
    return Decoded(shown, targets_kept, which, tuple(n for n, _ in unread))


def _target(target: Any) -> npt.NDArray[Any]:
    found = np.asarray(target.detach().cpu() if hasattr(target, "detach") else target)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"its target is {target!r}, which is no number")
    return found


def _mask(mask: npt.NDArray[Any], image: Any, size: Size | None, resize: str, name: str) -> npt.NDArray[Any]:
    """The mask of an image, resized as that is."""
    if mask.ndim != 2:
        return mask  # which is told with all others
    if mask.shape != (have := upright(image)):
        raise InputError(
            f"{name} is {have[1]}x{have[0]} pixels and its mask {mask.shape[1]}x{mask.shape[0]}; make them alike"
        )
    return fitted_mask(mask, size, resize)


def _stacked(targets: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    shapes = {target.shape for target in targets}
    if len(shapes) > 1:
        raise InputError(f"data.dataset: targets have several shapes, such as {sorted(shapes)[:2]}; make them alike")
    return np.stack(targets)


def _check_alike(image: npt.NDArray[Any], array: _Array, name: str, alike: tuple[int, ...] | None) -> None:
    """Nothing if an image is as those before it; _OfSeveralSizes if it differs in its size alone."""
    before = array.shape or alike or image.shape
    if image.shape == before and image.dtype in (array.kind, image.dtype if array.kind is None else None):
        return
    if alike is None and image.shape[0] == before[0] and image.dtype == array.kind:
        raise _OfSeveralSizes
    kind = "" if array.kind in (None, image.dtype) else f", {image.dtype} and {array.kind}"
    others = "the training images are" if alike else "those before it"
    raise InputError(
        f"{name} is {list(image.shape)} and {others} {list(before)} (channels, height, width{kind}); make them alike"
        + (", or name data.size" if image.shape[0] == before[0] and not kind else "")
    )


def _check_read(unread: Sequence[tuple[str, str]], count: int, reader: Reader) -> None:
    if not count:
        raise InputError("data.dataset: there are no images; give some")
    if not unread or (reader.skip_unreadable and len(unread) <= MOST_LEFT_OUT * count):
        return
    name, why = unread[0]
    many = f", and neither can {len(unread) - 1} more of {count}" if len(unread) > 1 else ""
    remedy = (
        f"more than the {MOST_LEFT_OUT:.0%} that data.skip_unreadable leaves out: replace or remove them"
        if reader.skip_unreadable
        else f"replace or remove {'them' if many else 'it'}, or set data.skip_unreadable, for up to {MOST_LEFT_OUT:.0%}"
    )
    raise InputError(f"{name} can't be read ({why}){many}; {remedy}")


def _array(content: io.BytesIO) -> npt.NDArray[Any]:
    """The array in an array file, without a copy."""
    content.seek(0)
    np.lib.format.read_magic(content)
    shape, _, kind = np.lib.format.read_array_header_1_0(content)
    return np.frombuffer(content.getbuffer(), kind, offset=content.tell()).reshape(shape)
