"""The model's alpha brought to the size of the photo, its edge following the edge in the photo."""

from dataclasses import dataclass
from typing import Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from model.compiled import compiled
from model.grid import between, cells_of
from model.shrink import shrink

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

# On photographic cut-outs there is no gain up to 2x. By 4x, as shares of bilinear's sum of absolute differences, the
# guided filter alone has 0.52, with `_correct` 0.41, with a third of the epsilon 0.39; noise forbids a smaller one.
_CUBIC_UP_TO: Final = 2.0
_EPSILON: Final = 3e-5 * 255 * 255
_WINDOW: Final = np.ones((3, 3), np.uint8)
_CLEAR, _SOLID, _EDGE = 0, 1, 2


class Fine(Protocol):
    """The alpha of a photo at its full size, made where it is asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the photo."""
        ...

    def rows(self, rows: slice) -> UInt8:
        """Some rows of it: uint8 [n, w], C-contiguous."""
        ...

    def at(self, small: UInt8) -> UInt8:
        """The alpha of a small copy of the photo: uint8 [sh, sw] for uint8 [sh, sw, 3]."""
        ...


def whole(fine: Fine) -> UInt8:
    """All of it: uint8 [h, w], C-contiguous."""
    return fine.rows(slice(0, fine.shape[0]))


@dataclass(frozen=True, slots=True)
class Known:
    """An alpha that is there as a whole: uint8 [h, w], C-contiguous."""

    pixels: UInt8

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the photo."""
        height, width = self.pixels.shape
        return height, width

    def rows(self, rows: slice) -> UInt8:
        """As `Fine.rows`."""
        return self.pixels[rows]

    def at(self, small: UInt8) -> UInt8:
        """As `Fine.at`."""
        step = max(len(self.pixels) // (2 * len(small)), 1)  # two rows for each small one are enough
        return _resized(self.pixels[step // 2 :: step], small, cv2.INTER_AREA)


@dataclass(frozen=True, slots=True)
class Guided:
    """An alpha that the photo guides, as of `refine`.

    Attributes:
        rgb: uint8 [h, w, 3], C-contiguous, the photo.
        alpha: uint8 [ch, cw], the model's.
        low: uint8 [ch, cw], the least alpha of a pixel and its neighbours.
        high: uint8 [ch, cw], the greatest.
        model: float32 [ch, cw, 4]: alpha = R·[0] + G·[1] + B·[2] + [3], all in levels 0…255.
    """

    rgb: UInt8
    alpha: UInt8
    low: UInt8
    high: UInt8
    model: Float32

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the photo."""
        height, width = self.rgb.shape[:2]
        return height, width

    def rows(self, rows: slice) -> UInt8:
        """As `Fine.rows`."""
        return self._applied(self.rgb[rows], rows.start, len(self.rgb))

    def at(self, small: UInt8) -> UInt8:
        """As `Fine.at`."""
        # What the model gives for the mean of an area is the mean of what it gives for its pixels.
        if 2 * len(small) > len(self.alpha):
            return self._applied(small, 0, len(small))
        return _resized(self.alpha, small, cv2.INTER_AREA)

    def _applied(self, rgb: UInt8, top: int, height: int) -> UInt8:
        out = np.empty(rgb.shape[:2], np.uint8)
        _apply(self.model, self.low, self.high, rgb, top, height, out)
        return out


def guide(alpha: UInt8, rgb: UInt8) -> UInt8:
    """The photo at the size of the alpha, uint8 [ch, cw, 3], where `refine` needs it; else the photo itself."""
    height, width = rgb.shape[:2]
    if max(height / alpha.shape[0], width / alpha.shape[1]) <= _CUBIC_UP_TO:
        return rgb
    small = shrink(rgb, min(alpha.shape[0], height), min(alpha.shape[1], width))
    if small.shape[:2] != alpha.shape:  # a photo of a few pixels in one direction
        small = cv2.resize(rgb, alpha.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return small


def refine(alpha: UInt8, rgb: UInt8, small: UInt8) -> Fine:
    """Enlarge the model's alpha to the size of the photo.

    Up to a factor of 2 by cubic interpolation. Above, by a colour guided filter (He, Sun and Tang, "Guided Image
    Filtering", 2013; "Fast Guided Filter", 2015) with a radius of one pixel at the size of `alpha`, whose coefficients
    are corrected until they give `alpha` again, enlarged, and applied to the full-size photo, in the edge only. Where
    the alpha of a pixel and its eight neighbours is 0 or is 255, the result is exactly that.

    Args:
        alpha: uint8 [ch, cw], the content part of the model's output, without letterbox padding.
        rgb: uint8 [h, w, 3], C-contiguous, the photo.
        small: of `guide`.
    """
    height, width = rgb.shape[:2]
    factor = max(height / alpha.shape[0], width / alpha.shape[1])
    if factor <= _CUBIC_UP_TO:
        return Known(_resized(alpha, rgb, cv2.INTER_AREA if factor <= 1 else cv2.INTER_CUBIC))

    alpha = np.array(alpha, order="C")  # one that was unpacked cannot be written to, and would be compiled for anew
    # Nothing may leave the range of its neighbours: that keeps flat regions exact and halos out.
    low = cv2.erode(alpha, _WINDOW).astype(np.uint8, copy=False)
    high = cv2.dilate(alpha, _WINDOW).astype(np.uint8, copy=False)
    windows = _fit(alpha, small, low, high)
    model = np.asarray(cv2.blur(windows, (3, 3), borderType=cv2.BORDER_REPLICATE), np.float32)
    _correct(model, alpha, small, low, high)
    return Guided(rgb, alpha, low, high, model)


def _resized(alpha: UInt8, rgb: UInt8, way: int) -> UInt8:
    return cv2.resize(alpha, rgb.shape[1::-1], interpolation=way).astype(np.uint8, copy=False)


@compiled
def _fit(alpha: UInt8, rgb: UInt8, low: UInt8, high: UInt8) -> Float32:
    """The guided filter's linear model in the window of 3 x 3 pixels round each pixel.

    Args:
        alpha: uint8 [ch, cw].
        rgb: uint8 [ch, cw, 3].
        low: uint8 [ch, cw], the least alpha of each window.
        high: uint8 [ch, cw], the greatest.

    Returns:
        float32 [ch, cw, 4]: alpha = R·[0] + G·[1] + B·[2] + [3], all in levels 0…255.
    """
    height, width = alpha.shape
    out = np.empty((height, width, 4), np.float32)
    for y in range(height):
        for x in range(width):
            if low[y, x] == high[y, x]:
                out[y, x, 0] = out[y, x, 1] = out[y, x, 2] = 0
                out[y, x, 3] = alpha[y, x]
                continue
            r = g = b = a = 0.0
            rr = rg = rb = gg = gb = bb = 0.0
            ra = ga = ba = 0.0
            for dy in range(-1, 2):
                row = min(max(y + dy, 0), height - 1)
                for dx in range(-1, 2):
                    column = min(max(x + dx, 0), width - 1)
                    red, green, blue = (
                        float(rgb[row, column, 0]),
                        float(rgb[row, column, 1]),
                        float(rgb[row, column, 2]),
                    )
                    level = float(alpha[row, column])
                    r, g, b, a = r + red, g + green, b + blue, a + level
                    rr, rg, rb = rr + red * red, rg + red * green, rb + red * blue
                    gg, gb, bb = gg + green * green, gb + green * blue, bb + blue * blue
                    ra, ga, ba = ra + red * level, ga + green * level, ba + blue * level
            r, g, b, a = r / 9, g / 9, b / 9, a / 9
            # Covariances; those of the colours are a symmetric 3 x 3 matrix, inverted by its adjugate.
            rr, gg, bb = rr / 9 - r * r + _EPSILON, gg / 9 - g * g + _EPSILON, bb / 9 - b * b + _EPSILON
            rg, rb, gb = rg / 9 - r * g, rb / 9 - r * b, gb / 9 - g * b
            ra, ga, ba = ra / 9 - r * a, ga / 9 - g * a, ba / 9 - b * a
            m00, m01, m02 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
            m11, m12, m22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
            determinant = rr * m00 + rg * m01 + rb * m02
            red = (m00 * ra + m01 * ga + m02 * ba) / determinant
            green = (m01 * ra + m11 * ga + m12 * ba) / determinant
            blue = (m02 * ra + m12 * ga + m22 * ba) / determinant
            out[y, x, 0] = red
            out[y, x, 1] = green
            out[y, x, 2] = blue
            out[y, x, 3] = a - red * r - green * g - blue * b
    return out


@compiled
def _correct(model: Float32, alpha: UInt8, rgb: UInt8, low: UInt8, high: UInt8) -> None:
    """Shift the model [ch, cw, 4] so that, applied to rgb [ch, cw, 3], it gives alpha [ch, cw]; in place.

    The model is linear, so what it gives for the mean of an area is the mean of what it gives for its pixels: the
    enlarged alpha, shrunk again, is then the one that was to be enlarged.
    """
    height, width = alpha.shape
    for y in range(height):
        for x in range(width):
            if low[y, x] != high[y, x]:
                given = model[y, x, 3]
                for k in range(3):
                    given += model[y, x, k] * np.float32(rgb[y, x, k])
                model[y, x, 3] += np.float32(alpha[y, x]) - given


@compiled
def _apply(model: Float32, low: UInt8, high: UInt8, rgb: UInt8, top: int, height: int, out: UInt8) -> None:
    """Fill `out` with the model [ch, cw, 4], enlarged and applied to rgb [n, w, 3], between low and high [ch, cw].

    The rows begin at `top` of a photo of `height`.
    """
    rows, width = out.shape
    small_height, small_width = low.shape
    begins = cells_of(small_width, width)
    step = np.float32(small_width) / np.float32(width)
    half = np.float32(0.5)
    # What the small pictures are in this row; a border pixel more at each end. [cw + 2, 6]: model, low, high
    row = np.zeros((small_width + 2, 6), np.float32)
    kind = np.empty(small_width + 2, np.uint8)
    for y in range(rows):
        above, below, share = between(y + top, small_height, height)
        for x in range(small_width):
            if high[above, x] == 0 and high[below, x] == 0:
                kind[x + 1] = _CLEAR
            elif low[above, x] == 255 and low[below, x] == 255:
                kind[x + 1] = _SOLID
            else:
                kind[x + 1] = _EDGE
        kind[0], kind[small_width + 1] = kind[1], kind[small_width]
        for x in range(small_width):
            if kind[x] == _EDGE or kind[x + 1] == _EDGE or kind[x + 2] == _EDGE:
                for k in range(4):
                    row[x + 1, k] = model[above, x, k] + share * (model[below, x, k] - model[above, x, k])
                row[x + 1, 4] = low[above, x] + share * (np.float32(low[below, x]) - np.float32(low[above, x]))
                row[x + 1, 5] = high[above, x] + share * (np.float32(high[below, x]) - np.float32(high[above, x]))
        row[0], row[small_width + 1] = row[1], row[small_width]
        for cell in range(small_width + 1):
            first, last = begins[cell], begins[cell + 1]
            if kind[cell] != _EDGE and kind[cell + 1] != _EDGE:
                level = np.uint8(255) if kind[cell] == _SOLID else np.uint8(0)
                for x in range(first, last):
                    out[y, x] = level
                continue
            # One by one: an array for six numbers would be made and freed in every cell.
            r, to_r = row[cell, 0], row[cell + 1, 0] - row[cell, 0]
            g, to_g = row[cell, 1], row[cell + 1, 1] - row[cell, 1]
            b, to_b = row[cell, 2], row[cell + 1, 2] - row[cell, 2]
            c, to_c = row[cell, 3], row[cell + 1, 3] - row[cell, 3]
            least, to_least = row[cell, 4], row[cell + 1, 4] - row[cell, 4]
            most, to_most = row[cell, 5], row[cell + 1, 5] - row[cell, 5]
            t = (np.float32(first) + half) * step + half - np.float32(cell)
            for x in range(first, last):
                value = (
                    (c + t * to_c)
                    + (r + t * to_r) * np.float32(rgb[y, x, 0])
                    + (g + t * to_g) * np.float32(rgb[y, x, 1])
                    + (b + t * to_b) * np.float32(rgb[y, x, 2])
                )
                value = max(min(value, most + t * to_most), least + t * to_least)
                out[y, x] = np.uint8(np.int32(value + half))
                t += step
