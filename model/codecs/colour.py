"""Any colours to sRGB, by the ICC profile where a picture has one."""

import io
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

_STRIP_PIXELS: Final = 1 << 18
_MODES: Final = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def to_srgb(pixels: npt.NDArray[np.uint8], icc: bytes | None) -> npt.NDArray[np.uint8]:
    """Convert gray, RGB or CMYK pixels to sRGB.

    The profile is used with its perceptual intent. One that is broken, or made for another kind of colours
    than the pixels are, is ignored, as every viewer does. CMYK without a profile is converted as Pillow does.

    Args:
        pixels: uint8 [h, w] gray, [h, w, 3] RGB or [h, w, 4] CMYK (255 is full ink). RGB is changed in place.
        icc: the bytes of an ICC profile.

    Returns:
        uint8 [h, w, 3], C-contiguous.
    """
    mode = "L" if pixels.ndim == 2 else {3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    profile_mode, transform = _transform(icc) if icc else ("", None)
    if mode == "L" and profile_mode == "L" and transform is not None:
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        return np.take(_apply(ramp, transform)[0], pixels, axis=0)
    if mode == "L":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
        mode = "RGB"
    usable = transform if profile_mode == mode else None
    if mode == "RGB":
        shape = _shaper(icc) if usable is not None and icc else None
        if shape is not None:
            shape(pixels)
        elif usable is not None:
            for rows in _strips(pixels):
                pixels[rows] = _apply(Image.fromarray(pixels[rows]), usable)
        return pixels
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in _strips(pixels):
        inks = Image.frombytes("CMYK", (pixels.shape[1], len(pixels[rows])), pixels[rows].tobytes())
        out[rows] = np.asarray(inks.convert("RGB")) if usable is None else _apply(inks, usable)
    return out


def is_rgb(pixels: npt.NDArray[np.uint8], icc: bytes | None) -> bool:
    """Whether pixels and a readable profile are both RGB, so that the one can be kept with the other."""
    return pixels.shape[2:] == (3,) and icc is not None and _transform(icc)[0] == "RGB"


@lru_cache(maxsize=32)
def _shaper(icc: bytes) -> Callable[[npt.NDArray[np.uint8]], None] | None:
    """The fast way for profiles of the simple kind, in place; None for another."""
    # Not above: numba takes half a second to import, and most pictures are in sRGB.
    from model.codecs.shaper import apply_shaper, shaper_of

    shaper = shaper_of(icc)
    return partial(apply_shaper, shaper=shaper) if shaper is not None else None


@lru_cache(maxsize=32)
def _transform(icc: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The Pillow mode a profile is for and its transform to sRGB; None: it is broken or changes nothing."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = _MODES.get(profile.profile.xcolor_space.strip(), "")
        if not mode:
            return "", None
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB" and _changes_nothing(transform):
            return mode, None
    except Exception:  # noqa: BLE001  Pillow raises many kinds here; the picture is good without its profile
        return "", None
    return mode, transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform is that of one of the many sRGB profiles: none moves a colour by two levels."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(81, 9, 3)
    moved = _apply(Image.fromarray(grid), transform).astype(np.int16) - grid
    return bool(np.abs(moved).max() <= 1)


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> npt.NDArray[np.uint8]:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return np.asarray(converted)


def _strips(pixels: npt.NDArray[np.uint8]) -> Iterator[slice]:
    height, width = pixels.shape[:2]
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
