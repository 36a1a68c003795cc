"""What a data set is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from trainables.data.cache import Decoded, Reader
from trainables.methods import Method
from trainables.settings import Settings


class Seen(NamedTuple):
    """What may be seen before the end. Validation images are split off the training images where there are none.

    Targets are [N, ...], of any shape; where they tell classes, int64 [N], indices of ``classes``. That is empty where
    the data set names none.
    """

    train: Decoded
    classes: tuple[str, ...]
    validation: Decoded | None = None


class DataSet(Method):
    """Images with a target each."""

    mirrored: ClassVar[bool] = True
    """Whether a mirrored image still shows its class, unless the study says so."""

    @abstractmethod
    def seen(self, reader: Reader) -> Seen:
        """The images that train and validate; InputError if they can't be had."""

    @abstractmethod
    def held_out(self, reader: Reader) -> Decoded:
        """The test images, read as those of ``seen`` were; only ``trainables.data.test_split`` may ask for them."""


class Root(Settings):
    """Where images are."""

    root: str = Field("data", description="folder of the images; what torchvision knows is downloaded into it")


class Drawn(Settings):
    """Splits that are drawn."""

    split_seed: int = Field(0, ge=0, lt=2**32, description="seed of the split and of the images that limit keeps")


class Columns(Settings):
    """A table of images."""

    table: str = Field("labels.csv", description="csv: the file, in root, with a row an image (.tsv: separated by tabs)")
    path_column: str = Field("path", description="csv: the column of the images' paths, seen from root")
    label_column: str = Field("label", description="csv: the column of their classes")
    label_columns: tuple[str, ...] | None = Field(
        None, description="csv: columns of numbers instead, 0 or 1 for many labels, or any for regression"
    )
    split_column: str = Field("split", description="csv: the column, if there is one, that says train, validation or test")


class Named(Settings):
    """What is made by a name, with arguments."""

    arguments: dict[str, Any] = Field({}, description="torchvision:NAME, package.module:factory: arguments it is made with")
