"""From a photo of any size to a model's fixed size, and from the model's answer to the alpha of the photo."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.ids import SizeBucket

# Smaller and the rest of the way down is no average any more. On 80 photos 1.6 times has 1 % more SAD than 3.1 times.
_SPARE: Final = 1.75
# On 80 photos the sum of absolute differences falls by 2 %, and a third of the pixels that are neither clear nor opaque
# are gone: what is written is a twentieth to a tenth smaller. A step of 4 in 255 cannot be seen.
_NOISE: Final = 4


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The rectangle inside a model image that shows the photo, in pixels; everything round it is padding."""

    top: int
    left: int
    height: int
    width: int


def place(height: int, width: int, size_bucket: SizeBucket) -> Letterbox:
    """Where a photo of `height` x `width` pixels comes to lie: as large as fits, in the middle, at least one pixel.

    Raises:
        ValueError: when a side is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a photo has sides of at least one pixel; got {height}x{width}")
    scale = min(size_bucket.height / height, size_bucket.width / width)
    inner_height = min(max(round(height * scale), 1), size_bucket.height)
    inner_width = min(max(round(width * scale), 1), size_bucket.width)
    return Letterbox(
        top=(size_bucket.height - inner_height) // 2,
        left=(size_bucket.width - inner_width) // 2,
        height=inner_height,
        width=inner_width,
    )


def enough(height: int, width: int, size_bucket: SizeBucket) -> tuple[int, int]:
    """Height and width, in pixels, that a photo of `height` x `width` needs to be decoded at for `letterbox`."""
    box = place(height, width, size_bucket)
    return math.ceil(_SPARE * box.height), math.ceil(_SPARE * box.width)


def letterbox(
    rgb: NDArray[np.uint8], size_bucket: SizeBucket, out: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Scale a photo to a model's size, keeping its aspect, and pad by repeating its edge pixels.

    The padding matters: on 40 composites the mean IoU of u2netp was .871 with the edge repeated and .825 to .845
    with the mean colour.

    Args:
        rgb: uint8 [h, w, 3]; not changed.
        size_bucket: the model image's height and width in pixels.
        out: uint8 [H, W, 3], C-contiguous, to be filled in place (a slot of shared memory); made when left out.

    Returns:
        The model image, uint8 [H, W, 3] (`out` where given), and where the photo lies in it.

    Raises:
        ValueError: when `rgb` or `out` is not shaped like that.
    """
    import cv2  # here: a GPU worker takes alpha out of letterboxes and makes none

    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a photo is uint8 [h, w, 3]; got {rgb.dtype} {list(rgb.shape)}")
    shape = (size_bucket.height, size_bucket.width, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.dtype != np.uint8 or out.shape != shape or not out.flags.c_contiguous:
        raise ValueError(f"out is C-contiguous uint8 {list(shape)}; got {out.dtype} {list(out.shape)}")
    height, width = rgb.shape[:2]
    box = place(height, width, size_bucket)
    bottom, right = box.top + box.height, box.left + box.width
    shrinks = box.height < height or box.width < width
    cv2.resize(
        rgb,
        (box.width, box.height),
        dst=out[box.top : bottom, box.left : right],
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    rows = out[box.top : bottom]
    rows[:, : box.left] = rows[:, box.left : box.left + 1]
    rows[:, right:] = rows[:, right - 1 : right]
    out[: box.top] = out[box.top]
    out[bottom:] = out[bottom - 1]
    return out, box


def content(alpha: NDArray[np.uint8], box: Letterbox) -> NDArray[np.uint8]:
    """The part of a model-sized alpha that belongs to the photo: a view, uint8 [H, W] -> [box.height, box.width]."""
    return alpha[box.top : box.top + box.height, box.left : box.left + box.width]


def settled(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of a model's alpha, any shape; 0 to 4, all but clear, is 0 in it, and 251 to 255, all but opaque, 255."""
    # A table would be shorter, and takes two to seven times as long on the one thread that hands a batch over.
    alpha = alpha * (alpha > _NOISE)
    return alpha | (alpha >= 255 - _NOISE) * np.uint8(255)
