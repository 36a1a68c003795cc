"""``torch.utils.data.Dataset``s of (image, target): torchvision's by name, and the user's own."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from trainables import own
from trainables.data.cache import Decoded, Reader
from trainables.data.images import pixels
from trainables.data.sets.base import DataSet, Named, Root, Seen
from trainables.data.sets.cifar10 import not_there
from trainables.data.sets.folder import TEST, TRAIN, VALIDATION
from trainables.records.names import InputError
from trainables.settings import one_line

TORCHVISION = "torchvision:"
NOT_MIRRORED = ("MNIST", "QMNIST", "EMNIST", "KMNIST", "SVHN", "USPS", "GTSRB", "Omniglot", "RenderedSST2", "SEMEION")
"""What shows letters, digits or signs."""
NOT_IMAGES = ("wrap_dataset_for_transforms_v2", "VisionDataset")


@dataclass(frozen=True)
class ItemsOf:
    """The items of a map-style dataset; ``key`` is None if its content may change under its name."""

    dataset: Any
    part: str
    key: str | None = None
    targets: None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[Any, Any]:
        """(image, target)."""
        item = self.dataset[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise TypeError(f"an item is {type(item).__name__}, not (image, target)")
        return item[0], item[1]

    def named(self, index: int) -> str:
        """Its number."""
        return f"data.dataset: item {index} of {self.part}"


class Torchvision(Root, Named, DataSet):
    """A data set of torchvision by its name, such as torchvision:CIFAR100; downloaded, or found at root."""

    name = "torchvision:NAME"
    dataset: str = Field(description="its name")

    @property
    def short(self) -> str:
        """torchvision's name of it."""
        return self.dataset.removeprefix(TORCHVISION)

    def seen(self, reader: Reader) -> Seen:
        """Its training images, and its validation images if it has some."""
        train = self._part(TRAIN, ("train", "trainval"), reader)
        assert train is not None
        found = self._read(train, TRAIN, reader)
        validation = self._part(VALIDATION[0], ("val", "valid", "validation"), reader)
        more = None if validation is None else self._read(validation, VALIDATION[0], reader.like(found))
        return Seen(found, _classes(train), more)

    def held_out(self, reader: Reader) -> Decoded:
        """Its test images."""
        test = self._part(TEST, ("test",), reader)
        if test is None:
            raise InputError(f"data.dataset: {self.dataset!r} has no test images; there is nothing to confirm with")
        return self._read(test, TEST, reader)

    def _read(self, dataset: Any, part: str, reader: Reader) -> Decoded:
        told = json.dumps([self.dataset, self.arguments, part, len(dataset)], sort_keys=True)
        key = hashlib.sha256(told.encode()).hexdigest()[:32]
        return reader.read(ItemsOf(dataset, part, key), Path(self.root).expanduser())

    def _part(self, part: str, splits: tuple[str, ...], reader: Reader) -> Any:
        """One part as torchvision makes it; None where it has no such part."""
        from torchvision import datasets  # noqa: PLC0415 - a second and a half that few need

        made = getattr(datasets, self.short)
        takes = inspect.signature(made).parameters
        fixed = {"download": True} if reader.writable and {"download", "kwargs"} & takes.keys() else {}
        fixed |= self.arguments
        if "train" in takes or "what" in takes or self.short == "EMNIST":
            ways: list[dict[str, Any]] = [] if part == VALIDATION[0] else [{"train": part == TRAIN}]
        elif "split" in takes:
            ways = [{"split": name} for name in splits]
        else:
            ways = [{}] if part == TRAIN else []
        for way in ways:
            try:
                return made(Path(self.root).expanduser(), **way, **fixed)
            except Exception as error:  # a download fails in many ways
                if "split" in way and isinstance(error, ValueError) and "split" in str(error):
                    continue  # it calls its parts otherwise
                raise not_there(f"torchvision's {self.short}", self.root, error, writable=reader.writable) from error
        if part == TRAIN:
            raise InputError(f"data.dataset: {self.dataset!r} has no training images; choose another")
        return None


class Own(Named, DataSet):
    """What a function of the user's returns: {"train", "validation", "test"} of Datasets of (image, target)."""

    name = "package.module:factory"
    dataset: str = Field(description="its name")
    mirrored: ClassVar[bool] = False

    def seen(self, reader: Reader) -> Seen:
        """Its training images, and its validation images if it has some."""
        parts = self._parts()
        train = self._read(parts, TRAIN, reader)
        own_validation = VALIDATION[0] in parts
        more = self._read(parts, VALIDATION[0], reader.like(train)) if own_validation else None
        return Seen(train, _classes(parts[TRAIN]), more)

    def held_out(self, reader: Reader) -> Decoded:
        """Its test images."""
        parts = self._parts()
        if TEST not in parts:
            raise InputError(f"data.dataset: {self.dataset!r} returns no 'test'; add it to confirm with")
        return self._read(parts, TEST, reader)

    def _parts(self) -> Mapping[str, Any]:
        factory = own.load(self.dataset, "data.dataset", "function", trusted=True)  # or the study would have been refused
        try:
            found = factory(**self.arguments)
        except Exception as error:  # what code of the user's own raises can be anything
            why = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"data.dataset: {self.dataset!r} can't be made ({why}); correct it") from error
        parts = (TRAIN, VALIDATION[0], TEST)
        if not isinstance(found, Mapping) or TRAIN not in found or not set(found) <= set(parts):
            told = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise InputError(
                f"data.dataset: {self.dataset!r} returns {told}; return {{'train': ..., 'test': ...}} of Datasets"
            )
        return {part: dataset for part, dataset in found.items() if dataset is not None}

    def _read(self, parts: Mapping[str, Any], part: str, reader: Reader) -> Decoded:
        try:
            fits = len(parts[part]) >= 0 and hasattr(parts[part], "__getitem__")
        except Exception:  # what code of the user's own raises can be anything
            fits = False
        if not fits:
            kind = type(parts[part]).__name__
            raise InputError(
                f"data.dataset: {part!r} of {self.dataset!r} is {kind}, which has no length or no items; return map-style "
                "Datasets"
            )
        items = ItemsOf(parts[part], part)
        _check_steady(items)
        return reader.read(items, None, self.dataset)


def _check_steady(items: ItemsOf) -> None:
    """InputError if the first item isn't the same twice: what is drawn at random can't be told apart from other data."""
    try:
        first, again = (pixels(items.read(0)[0], None, "")[0] for _ in range(2))
    except Exception:  # it is told when all are read
        return
    if not np.array_equal(first, again):
        raise InputError(
            f"{items.named(0)} is another image each time; leave random transforms to data.transforms, or to data.crop, "
            "data.flip and data.color"
        )


def _classes(dataset: Any) -> tuple[str, ...]:
    """The names that a dataset gives its classes."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and names:
        return tuple(one if isinstance(one, str) else ", ".join(map(str, one)) for one in names)
    return ()
