"""Drawn mattes and photos with a known answer."""

import io

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]

SUBJECT, BACKGROUND = (250, 60, 30), (30, 80, 220)


def disc(height: int, width: int, softness: float = 1.5) -> UInt8:
    """A soft-edged ellipse that fills two thirds of the picture."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y - height / 2) / height, (x - width / 2) / width)
    distance = (0.33 - radius) * min(height, width)
    return np.asarray(255 * np.clip(0.5 + distance / (2 * softness), 0, 1), np.uint8)


def shrunk(alpha: UInt8, factor: float) -> UInt8:
    height, width = alpha.shape
    size = max(1, round(width / factor)), max(1, round(height / factor))
    return cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def composed(alpha: UInt8, subject: tuple[int, int, int], background: tuple[int, int, int]) -> UInt8:
    share = alpha[:, :, None] / 255
    return np.rint(share * subject + (1 - share) * background).astype(np.uint8)


def error(one: UInt8, other: UInt8) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def photo(height: int = 300, width: int = 400) -> tuple[UInt8, UInt8]:
    """A photo of a disc in the middle, and its alpha."""
    alpha = disc(height, width, softness=3)
    return composed(alpha, SUBJECT, BACKGROUND), alpha


def saved(pixels: UInt8, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()
