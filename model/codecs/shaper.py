"""ICC profiles of the simple kind, three curves and a matrix, turned to sRGB in compiled code.

That is what cameras, telephones and Photoshop write: Display P3, Adobe RGB, ProPhoto. LittleCMS takes 20 to 30 ms a
megapixel for them, these loops 4 to 5. Sources: ICC.1:2010, 10.5 (curves), 10.15 (parametric curves), F.3 (the model);
IEC 61966-2-1 (sRGB).
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from model.compiled import compiled

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_TO_LINEAR_SRGB: Final = np.array(  # from XYZ under D50, the ICC's, adapted by Bradford
    [[3.1341359, -1.6173863, -0.4906624], [-0.9787955, 1.9162543, 0.0334427], [0.0719555, -0.2289768, 1.4053860]]
)
_STEPS: Final = 4096
_SHAPES: Final = {0: 1, 1: 3, 3: 5, 4: 7}
"""How many numbers each kind of parametric curve has; kind 2, which nobody writes, is left to LittleCMS."""


@dataclass(frozen=True, slots=True)
class Shaper:
    """A profile's curves, [3, 256] from levels to linear light, and its matrix to linear sRGB, [3, 3]."""

    curves: Float32
    matrix: Float32


def shaper_of(icc: bytes) -> Shaper | None:
    """Read a profile; None when it is of another kind, or anything about it is unusual."""
    try:
        tags = _tags(icc)
        if icc[16:20] != b"RGB " or icc[20:24] != b"XYZ " or b"A2B0" in tags:
            return None
        columns = [_xyz(tags[channel + b"XYZ"]) for channel in (b"r", b"g", b"b")]
        curves = [_curve(tags[channel + b"TRC"]) for channel in (b"r", b"g", b"b")]
    except (KeyError, ValueError, struct.error):
        return None
    matrix = _TO_LINEAR_SRGB @ np.array(columns).T
    if not np.isfinite(matrix).all() or not np.isfinite(curves).all():
        return None
    return Shaper(np.array(curves, np.float32), matrix.astype(np.float32))


def apply_shaper(rgb: UInt8, shaper: Shaper) -> None:
    """Turn RGB, uint8 [h, w, 3], to sRGB in place; colours that sRGB lacks are clipped."""
    linear = np.linspace(0, 1, _STEPS + 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    _shape(rgb, shaper.curves, shaper.matrix, np.rint(encoded * 255).astype(np.uint8))


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > 100:
        raise ValueError("too many tags")
    tags = {}
    for at in range(132, 132 + 12 * count, 12):
        name, start, length = struct.unpack_from(">4sII", icc, at)
        tags[name] = icc[start : start + length]
    return tags


def _xyz(tag: bytes) -> list[float]:
    if tag[:4] != b"XYZ ":
        raise ValueError("no XYZ")
    return [number / 65536 for number in struct.unpack_from(">3i", tag, 8)]


def _curve(tag: bytes) -> npt.NDArray[np.float64]:
    """A tone curve at each of 256 levels, in 0…1."""
    levels = np.arange(256) / 255
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return levels
        if count == 1:
            return np.asarray(levels ** (struct.unpack_from(">H", tag, 12)[0] / 256), np.float64)
        table = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535
        return np.asarray(np.interp(levels, np.linspace(0, 1, count), table), np.float64)
    if tag[:4] != b"para":
        raise ValueError("no curve")
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind not in _SHAPES:
        raise ValueError("no such parametric curve")
    numbers = [number / 65536 for number in struct.unpack_from(f">{_SHAPES[kind]}i", tag, 12)] + [0.0] * 6
    gamma, a, b, c, d, e, f = numbers[:7]
    if kind == 0:
        return np.asarray(levels**gamma, np.float64)
    if a <= 0:
        raise ValueError("a curve that falls")
    power = np.maximum(a * levels + b, 0) ** gamma
    above = levels >= (-b / a if kind == 1 else d)  # kind 1 has no c and f: they are 0 here, as its lower part is
    curve = np.where(above, power + e, c * levels + f)
    return np.asarray(curve.clip(0, 1), np.float64)


@compiled
def _shape(rgb: UInt8, curves: Float32, matrix: Float32, encoded: UInt8) -> None:
    height, width = rgb.shape[:2]
    steps = np.float32(len(encoded) - 1)
    for y in range(height):
        for x in range(width):
            r, g, b = curves[0, rgb[y, x, 0]], curves[1, rgb[y, x, 1]], curves[2, rgb[y, x, 2]]
            for k in range(3):
                light = matrix[k, 0] * r + matrix[k, 1] * g + matrix[k, 2] * b
                light = min(max(light, np.float32(0)), np.float32(1))
                rgb[y, x, k] = encoded[np.int32(light * steps + np.float32(0.5))]
