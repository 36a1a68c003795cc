"""What is done to images, batch by batch, before a network sees them: in training at random, in evaluation always alike.

Batches are [B, H, W, C], and stay so. Crops and mirrors are drawn first (``draw``) and done to whole batches, on the device
that the images are on; what torchvision's transforms draw anew for each image is done image by image, from torch's global
generator.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables import own
from trainables.records.names import InputError
from trainables.settings import one_line

if TYPE_CHECKING:
    from trainables.data.dataset import Data

Transform = Callable[[Tensor], Tensor]


class Draws(NamedTuple):
    """What is drawn for the images of a batch before they are changed; None where nothing of the kind is done to them."""

    shifts: Tensor | None
    """Row and column of the padded image that a crop begins with, [2, B, 1]."""
    mirrored: Tensor | None
    """[B, 1]"""
    centres: Tensor | None
    """Row and column that the centre of a blank square is on, [2, B, 1]."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Draws:
        """Those that there are, changed."""
        return Draws(*(None if one is None else change(one) for one in self))


def draw(data: Data, count: int, random: torch.Generator) -> Draws:
    """All that ``random`` decides about ``count`` training images; what torchvision's transforms draw isn't part of it."""
    # Of a recipe's draws those of crops are part where they change nothing, too.
    moved = data.task.masks or (data.transforms is None and (data.resized is None or data.crop > 0 or data.flip))
    shifts = torch.randint(0, 2 * data.crop + 1, (2, count, 1), generator=random) if moved else None
    mirrored = torch.rand(count, 1, generator=random) < 0.5 if moved and data.flip else None
    sides = data.shape[1:] if data.cutout else ()
    centres = [torch.randint(0, side, (count, 1), generator=random) for side in sides]
    return Draws(shifts, mirrored, torch.stack(centres) if centres else None)


def changed(images: Tensor, targets: Tensor, data: Data, draws: Draws) -> tuple[Tensor, Tensor]:
    """Training images as the study wants them changed at random, with their targets: masks are cropped and mirrored too."""
    if not data.task.masks:
        return augmented(images, data, draws), targets
    crop, places = data.crop, _places(images.shape, draws)
    images = F.pad(images, (0, 0, crop, crop, crop, crop))[places]
    targets = F.pad(targets, (crop, crop, crop, crop), value=data.task.outside)[places]
    return _each(images, _color(data.color)) if data.color else images, targets


def augmented(images: Tensor, data: Data, draws: Draws) -> Tensor:
    """Training images as the study wants them changed at random, all but their squares blanked (:func:`cutout`)."""
    if data.transforms is not None:
        return _each(images, of_users(data.transforms, training=True))
    if data.resized is not None:
        images = _each(images, _random_resized_crop(data.resized))
    if draws.shifts is not None:
        images = moved(images, data.crop, draws)
    return _each(images, _color(data.color)) if data.color else images


def as_evaluated(images: Tensor, data: Data) -> Tensor:
    """Training images as evaluation would see them."""
    if data.transforms is not None:
        return _each(images, of_users(data.transforms, training=False))
    return images if data.resized is None else middle(images, data.resized)


def middle(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of images [B, H, W, C], of this size."""
    top, left = ((have - wanted) // 2 for have, wanted in zip(images.shape[1:3], size, strict=True))
    return images[:, top : top + size[0], left : left + size[1]]


def moved(images: Tensor, crop: int, draws: Draws) -> Tensor:
    """The drawn crop after zero padding of ``crop`` pixels, and mirror, of each image.

    ``images`` is [B, H, W, C]; the result has the same shape and type. Crop and mirror are one gather.
    """
    return F.pad(images, (0, 0, crop, crop, crop, crop))[_places(images.shape, draws)]


def _places(shape: torch.Size, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Which image, row and column of padded ones each pixel of the result is of; they broadcast to [B, H, W]."""
    assert draws.shifts is not None
    (count, height, width), (top, left) = shape[:3], draws.shifts
    numbers = partial(torch.arange, device=top.device)
    columns = numbers(width).expand(count, width)
    if draws.mirrored is not None:
        columns = torch.where(draws.mirrored, columns.flip(1), columns)
    return numbers(count)[:, None, None], (top + numbers(height))[:, :, None], (left + columns)[:, None, :]


def cutout(images: Tensor, side: int, centres: Tensor) -> Tensor:
    """A square of ``side`` pixels blanked in each image, its centre on any pixel (DeVries and Taylor 2017).

    ``images`` is [B, C, H, W] of mean zero, which is what the square is filled with; at a border less of it is seen.
    """

    def strip(length: int, centre: Tensor) -> Tensor:
        offset = torch.arange(length, device=centre.device) - (centre - side // 2)
        return (offset >= 0) & (offset < side)

    rows, columns = (strip(length, centre) for length, centre in zip(images.shape[2:], centres, strict=True))
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


@lru_cache
def of_users(name: str, *, training: bool) -> Transform:
    """What the user's function makes for training or evaluation; InputError if it fails."""
    made = own.load(name, "data.transforms", "function", trusted=True)  # or the study would have been refused
    try:
        found = made(train=training)
    except Exception as error:  # what code of the user's own raises can be anything
        why = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"data.transforms: {name!r} can't be made with train={training} ({why}); correct it") from error
    if not callable(found):
        raise InputError(f"data.transforms: {name!r} returns {type(found).__name__}; return what takes a tensor [C, H, W]")
    transform: Transform = found
    return transform


def transformed(images: Tensor, name: str, *, training: bool) -> Tensor:
    """A batch [B, H, W, C] after the user's transforms; InputError if they fail, or make images that aren't alike."""
    return _each(images, of_users(name, training=training), name)


@lru_cache
def _random_resized_crop(size: tuple[int, int]) -> Transform:
    from torchvision.transforms import v2  # noqa: PLC0415 - a second and a half that few need

    transform: Transform = v2.RandomResizedCrop(list(size), antialias=True)
    return transform


@lru_cache
def _color(strength: float) -> Transform:
    from torchvision.transforms import v2  # noqa: PLC0415 - as above

    transform: Transform = v2.ColorJitter(strength, strength, strength)
    return transform


def _each(images: Tensor, transform: Transform, name: str | None = None) -> Tensor:
    found: list[Any] = []
    for i, image in enumerate(images.permute(0, 3, 1, 2)):
        try:
            found.append(transform(image))
        except Exception as error:
            if name is None:
                raise
            why = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"data.transforms: {name!r} fails at image {i} ({why}); correct it") from error
        if name is not None:
            _check(found[-1], found[0], name)
    return torch.stack(found).permute(0, 2, 3, 1)


def _check(image: Any, first: Any, name: str) -> None:
    if not isinstance(image, Tensor) or image.dim() != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
        told = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"data.transforms: {name!r} makes {told}; return a tensor [C, H, W] of uint8 or floats")
    if image.shape != first.shape or image.dtype != first.dtype:
        raise InputError(
            f"data.transforms: {name!r} makes {list(image.shape)} of one image and {list(first.shape)} of another; "
            "make all alike, for instance with a resize"
        )
