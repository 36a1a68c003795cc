"""The ``data`` section of a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from trainables import own
from trainables.data.images import RANDOM_RESIZED_CROP
from trainables.data.sets.base import Columns, DataSet, Drawn, Named, Root
from trainables.data.sets.registry import DATASETS
from trainables.records.names import InputError
from trainables.settings import TRUSTED, one_of

# A standard deviation below one grey level is no scale to divide by: a constant channel would become infinite.
SMALLEST_STD = 1 / 255
LARGEST_SIDE = 4096

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "cifar": {"flip": True},
    "imagenet": {"size": (224, 224), "resize": RANDOM_RESIZED_CROP, "flip": True},
}


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


def _trusted(name: str | None, info: ValidationInfo) -> str | None:
    if name is not None:
        try:
            own.load(name, "transforms", "function", trusted=bool((info.context or {}).get(TRUSTED)))
        except InputError as error:
            raise ValueError(str(error).removeprefix("transforms: ")) from None
    return name


Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class DataSettings(Root, Drawn, Columns, Named):
    """Which images train and validate a network, how they are split, and what is done to them."""

    dataset: Annotated[str, AfterValidator(DATASETS.known)] = Field("digits", description=DATASETS.help())
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of the training images kept for validation, unless there are others for that"
    )
    limit: int | None = Field(None, ge=1, description="train on at most so many images, drawn alike from every class")
    skip_unreadable: bool = Field(False, description="leave out up to 1 % of the images, those that can't be read")
    preset: Annotated[str, AfterValidator(one_of(PRESETS))] | None = Field(
        None,
        description="cifar (random crop and mirror) | imagenet (224 pixels, random_resized_crop and mirror): what is done "
        "to images where the keys below don't say otherwise",
    )
    size: Annotated[tuple[Side, Side] | None, BeforeValidator(_square)] = Field(
        None, description="pixels, of a side or [height, width]; null: the images' own, or 128 where they differ"
    )
    resize: Literal["squash", "shorter_side", "random_resized_crop"] = Field(
        "shorter_side",
        description="how images come to that size: squash | shorter_side (to the shorter side, then the middle) | "
        "random_resized_crop (in training a part of any size; in evaluation as shorter_side, of an eighth more)",
    )
    crop: int | None = Field(
        None,
        ge=0,
        description="pixels of zero padding around a random crop; null: an eighth of the shorter side, and none after "
        "random_resized_crop or of images that are floats",
    )
    flip: bool | None = Field(None, description="mirror training images at random; null: as the data set allows")
    color: float = Field(
        0, ge=0, le=1, description="changes brightness, contrast and saturation by up to this share; 0 changes none"
    )
    cutout: int = Field(
        0, ge=0, description="pixels: side of the square that is blanked in every training image; 0 blanks none"
    )
    transforms: Annotated[str | None, AfterValidator(_trusted)] = Field(
        None,
        description="package.module:function (--allow-code), called with train=True or False, whose result takes a tensor "
        "[C, H, W] to the network's; in place of crop, flip, color and cutout. What it makes floats isn't normalised",
    )
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(
        None,
        description="of each channel, of images scaled to 0..1, as the given weights were trained with; null: those of "
        "model.weights, or else the images' own",
    )
    std: tuple[Annotated[float, Field(ge=SMALLEST_STD, le=1)], ...] | None = Field(
        None, description="standard deviation of each channel, in the same way"
    )

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, raw: Any) -> Any:
        """The keys that a preset stands for, where they aren't given."""
        chosen = raw.get("preset") if isinstance(raw, dict) else None
        return {**PRESETS.get(chosen, {}), **raw} if isinstance(chosen, str) else raw


def data_set(settings: DataSettings) -> DataSet:
    """The data set that the settings name; its code may be run, or they would have been refused."""
    kind = DATASETS.load(settings.dataset, trusted=True)
    return kind(**{key: getattr(settings, key) for key in kind.model_fields})
