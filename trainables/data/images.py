"""One image of any kind, as plain pixels of the size that a network sees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width."""

SQUASH, SHORTER_SIDE, RANDOM_RESIZED_CROP = "squash", "shorter_side", "random_resized_crop"
RESIZES = (SQUASH, SHORTER_SIDE, RANDOM_RESIZED_CROP)
MARGIN = 8 / 7
"""Of the images that random crops are taken from, as 256 pixels are for 224."""
ORIENTATION, LAST_UPRIGHT = 0x0112, 4
"""Exif's tag of it, and the last of its values of which height is height."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


def pixels(image: Any, size: Size | None, resize: str) -> tuple[npt.NDArray[Any], bool | None]:
    """The image as [C, H, W], uint8 or, of floats, float32, resized only if a size is given.

    A picture of PIL has 3 channels, and it is told whether it has colour. A tensor or an array is [C, H, W] (or [H, W]) and
    keeps its channels; of it that is None.
    ValueError for what can't be pixels.
    """
    if isinstance(image, Image.Image):
        colour = image.mode not in GREY
        picture = fitted(_rgb(image), size, resize)
        return np.asarray(picture).transpose(2, 0, 1), colour
    found = _array(image)
    if size is not None and found.shape[1:] != size:
        found = resized(found[None], size, resize)[0]
    return found, None


def resized(images: npt.NDArray[Any], size: Size, resize: str) -> npt.NDArray[Any]:
    """Images [N, C, H, W] at another size, as a whole batch."""
    import torch  # noqa: PLC0415 - as below

    found: npt.NDArray[Any] = fitted(torch.from_numpy(np.ascontiguousarray(images)), size, resize).numpy()
    return found


def upright(image: Any) -> Size:
    """The height and width of an image as it is looked at."""
    if isinstance(image, Image.Image):
        turned = image.getexif().get(ORIENTATION, 1) > LAST_UPRIGHT
        return (image.width, image.height) if turned else (image.height, image.width)
    height, width = image.shape[-2:]
    return height, width


def fitted_mask(mask: npt.NDArray[Any], size: Size | None, resize: str) -> npt.NDArray[Any]:
    """A mask [H, W] at the size of its image, of whose classes none are mixed."""
    import torch  # noqa: PLC0415 - as above

    if size is None or mask.shape == size:
        return mask
    values = torch.from_numpy(mask[None].astype(np.float32))  # what is interpolated are floats, and sometimes uint8
    return np.asarray(fitted(values, size, resize, nearest=True)[0].numpy().astype(mask.dtype))


def fitted(image: Any, size: Size | None, resize: str, *, nearest: bool = False) -> Any:
    """A picture, or a tensor [..., H, W], at this size, with antialiasing; as it is if that is its size.

    With ``nearest`` each pixel has a value that was there.
    """
    have = (image.height, image.width) if isinstance(image, Image.Image) else tuple(image.shape[-2:])
    if size is None or have == size:
        return image
    from torchvision.transforms import InterpolationMode  # noqa: PLC0415 - a second and a half that few need
    from torchvision.transforms.v2 import functional as v2  # noqa: PLC0415 - the same

    how: dict[str, Any] = {"interpolation": InterpolationMode.NEAREST} if nearest else {"antialias": True}
    if resize == SQUASH:
        return v2.resize(image, list(size), **how)
    scale = max(size[0] / have[0], size[1] / have[1])
    covering = [max(size[side], round(have[side] * scale)) for side in (0, 1)]
    return v2.center_crop(v2.resize(image, covering, **how), list(size))


def kept_size(size: Size, resize: str) -> Size:
    """The size that images are kept at: larger than what the network sees where crops are taken from them at random."""
    if resize != RANDOM_RESIZED_CROP:
        return size
    return math.ceil(size[0] * MARGIN), math.ceil(size[1] * MARGIN)


def _rgb(image: Image.Image) -> Image.Image:
    """The picture upright in three channels of 8 bits; what is transparent shows white."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its values are floats of an unknown scale; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() >= 2**16:
        raise ValueError("its values need more than 16 bits; convert it to 8 or 16 bits")
    return Image.fromarray(((values * 255 + 2**15) // (2**16 - 1)).astype(np.uint8))


def _array(image: Any) -> npt.NDArray[Any]:
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    found = np.asarray(image)
    if found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or 0 in found.shape:
        raise ValueError(f"{type(image).__name__} of shape {list(found.shape)} is no image; give a PIL image or [C, H, W]")
    if found.dtype.kind == "f":
        found = found.astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError("it has values that are NaN or infinite")
        return found
    if found.dtype != np.uint8:
        raise ValueError(f"its values are {found.dtype}; give uint8, or floats")
    return found
