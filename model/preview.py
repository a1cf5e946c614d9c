"""Small pictures of a photo and its cutout."""

import io
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model.codecs.colour import to_srgb
from model.codecs.lossy import encode_jpeg
from pipeline.preview import Preview

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_QUALITY: Final = 75


def encode_preview(photo: UInt8, output: UInt8, icc: bytes | None = None) -> Preview:
    """Encode them.

    Args:
        photo: uint8 [h, w, 3].
        output: uint8 [h, w] or [h, w, 3 or 4], straight alpha.
        icc: the profile that the colours are in; None is sRGB.
    """
    if output.ndim == 3:
        colours = to_srgb(output[..., :3].copy(), icc)
        output = colours if output.shape[2] == 3 else np.dstack([colours, output[..., 3]])
    body = io.BytesIO()
    # The fastest method: OpenCV has only its fourth, which takes three times as long and saves a quarter.
    Image.fromarray(output).save(body, "WEBP", quality=_QUALITY, method=0)
    return Preview(encode_jpeg(to_srgb(photo.copy(), icc), _QUALITY), body.getvalue())


def preview_of(photo: UInt8, rgb: UInt8, alpha: UInt8 | None, side: int) -> Preview:
    """Make them of a photo and an output that are there, in sRGB and of any size.

    Args:
        photo: uint8 [ph, pw, 3].
        rgb: uint8 [h, w, 3].
        alpha: uint8 [h, w]; None is opaque.
        side: pixels of the small pictures' longer side; nothing is enlarged.
    """
    height, width = small_size(len(rgb), rgb.shape[1], side)
    # Every few pixels, then their means: as good to look at as means of all.
    step = max(len(rgb) // (2 * height), 1)

    colours = rgb[::step, ::step].astype(np.float32)
    if alpha is None:
        output = _small(colours, height, width)
    else:
        share = alpha[::step, ::step].astype(np.float32)[..., None] / np.float32(255)
        weight = _small(share, height, width)[..., None]
        # Weighted by alpha: otherwise the zeroed colours under alpha 0 would darken the edges.
        output = np.dstack([_small(colours * share, height, width) / np.maximum(weight, 1e-3), 255 * weight])
    before = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    return encode_preview(np.asarray(before, np.uint8), np.clip(np.rint(output), 0, 255).astype(np.uint8))


def _small(pixels: Float32, height: int, width: int) -> Float32:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def small_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a small picture whose longer side is `side`; the large one's own when it is no longer."""
    scale = min(side / max(height, width), 1)
    return max(round(height * scale), 1), max(round(width * scale), 1)
