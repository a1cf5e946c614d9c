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
_ALPHA_QUALITY: Final = 70
"""Sixteen levels of alpha, chosen for each picture: nobody sees it at this size, and it saves a third of the time."""


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
    Image.fromarray(output).save(body, "WEBP", quality=_QUALITY, alpha_quality=_ALPHA_QUALITY, method=0)
    return Preview(encode_jpeg(to_srgb(photo.copy(), icc), _QUALITY), body.getvalue())


def preview_of(photo: UInt8, output: UInt8, side: int, icc: bytes | None = None) -> Preview:
    """Make them of a photo and an output that are there.

    Args:
        photo: uint8 [ph, pw, 3] of any size; it becomes as large as the output's picture.
        output: uint8 [h, w] or [h, w, 3 or 4], straight alpha.
        side: pixels of the small pictures' longer side; nothing is enlarged.
        icc: the profile that the colours are in; None is sRGB.
    """
    height, width = small_size(len(output), output.shape[1], side)
    # Every few pixels, then their means: as good to look at as means of all.
    step = max(len(output) // (2 * height), 1)
    thin = output[::step, ::step].astype(np.float32)
    if output.shape[2:] == (4,):
        share = thin[..., 3:] / np.float32(255)
        weight = _small(share, height, width)[..., None]
        # Weighted by alpha: the colours under alpha 0 are nobody's.
        colours = _small(thin[..., :3] * share, height, width) / np.maximum(weight, 1e-3)
        small = np.dstack([colours, 255 * weight])
    else:
        small = _small(thin, height, width)
    before = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    return encode_preview(np.asarray(before, np.uint8), np.clip(np.rint(small), 0, 255).astype(np.uint8), icc)


def _small(pixels: Float32, height: int, width: int) -> Float32:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def small_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a small picture whose longer side is `side`; the large one's own when it is no longer."""
    scale = min(side / max(height, width), 1)
    return max(round(height * scale), 1), max(round(width * scale), 1)
