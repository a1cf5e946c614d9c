"""Read collected pictures and judge whether they are fit for training."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

_MIN_SIDE = 100
_MAX_PIXELS = 64_000_000
_FLAT = 0.12
"""Neighbours of exactly one colour are rare in photos: the share that parts Tux Paint's photos from its drawings."""
_FLAT_PALETTE = 0.30
"""The same for pictures with 256 colours."""


def read_rgba(path: Path) -> NDArray[np.uint8] | None:
    """The first frame of a picture, uint8 [h, w, 4], alpha as stored; None when it is none or unreasonably large."""
    try:
        with Image.open(BytesIO(path.read_bytes())) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            return np.asarray(image.convert("RGBA"), np.uint8)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None


def trim(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut off the fully transparent margin: uint8 [h, w, 4], a view; at least one pixel stays."""
    rows = np.flatnonzero((rgba[..., 3] > 0).any(1))
    columns = np.flatnonzero((rgba[..., 3] > 0).any(0))
    if not len(rows):
        return rgba[:1, :1]
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def fit_as_cutout(rgba: NDArray[np.uint8]) -> bool:
    """Whether the alpha cuts something out: large enough, neither nearly empty nor nearly a full rectangle."""
    alpha = rgba[..., 3]
    opaque = float((alpha > 127).mean())
    return max(alpha.shape) >= _MIN_SIDE and 0.03 < opaque < 0.93 and float((alpha < 10).mean()) > 0.05


def is_drawn(rgba: NDArray[np.uint8], palette: bool) -> bool:
    """Whether a cut-out has the flat areas of a drawing.

    Args:
        rgba: uint8 [h, w, 4].
        palette: whether it was stored with at most 256 colours.
    """
    opaque = rgba[..., 3] > 250
    pairs = opaque[:, 1:] & opaque[:, :-1]
    if not pairs.any():
        return True
    same = (rgba[:, 1:, :3] == rgba[:, :-1, :3]).all(2)
    return float(same[pairs].mean()) > (_FLAT_PALETTE if palette else _FLAT)


def shrink(picture: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """Scale down to `long_side` pixels where larger: uint8 [h, w, C]; RGBA has to be premultiplied."""
    scale = long_side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def premultiply(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour times alpha, rounded: uint8 [h, w, 4]. Resizing then takes no colour from where nothing is seen."""
    alpha = rgba[..., 3:].astype(np.uint16)
    out = np.empty_like(rgba)
    out[..., :3] = (rgba[..., :3] * alpha + 127) // 255
    out[..., 3] = rgba[..., 3]
    return out
