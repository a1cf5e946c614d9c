"""The subject's own colours: photo and alpha put together, with the background's colour taken out of the edge."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from model.compiled import compiled
from model.grid import between, cells_of
from model.shrink import shrink

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

# The longest side of the two copies that colours are estimated on, and the radius of the blur in each, in pixels.
_COARSE: Final = (64, 2)
_FINE: Final = (192, 1)
_TRACE: Final = np.float32(1e-4)


def estimate(rgb: UInt8, alpha: UInt8) -> Float32:
    """Estimate smooth colours of subject and background, for everywhere.

    Two passes of blur fusion (Forte, "Approximate Fast Foreground Colour Estimation", 2021), the first on a copy so
    small that colours reach far.

    Args:
        rgb: uint8 [h, w, 3], C-contiguous: the photo, of any size.
        alpha: uint8, of any size; the model's own is enough.

    Returns:
        float32 [sh, sw, 6]: red, green, blue of the subject, then of the background, in levels 0…255.
    """
    fine = shrink(rgb, *_fitting(rgb, _FINE[0]))
    photo, share = _copies(shrink(fine, *_fitting(rgb, _COARSE[0])), alpha)
    subject, background = _fuse(photo, photo, share, _COARSE[1])

    photo, share = _copies(fine, alpha)
    size = share.shape[1::-1]
    subject, background = (np.asarray(cv2.resize(each, size), np.float32) for each in (subject, background))
    mixed = background + share * (subject - background)
    subject = np.clip(subject + share * (photo - mixed), 0, 255)
    subject, background = _fuse(subject, background, share, _FINE[1])
    return np.asarray(cv2.merge([subject, background]), np.float32)


def cut_out(rgb: UInt8, alpha: UInt8, colours: Float32 | None, top: int, height: int, out: UInt8) -> None:
    """Put some rows of photo and alpha together.

    Where alpha is 0 the colours become black: invisible ones would double the size of the file and the time to write
    it. Where it is 255 they are those of the photo. Between, they are the subject's: the smooth estimate, and what the
    photo has beyond the mix of both estimates.

    Args:
        rgb: uint8 [n, w, 3], C-contiguous, these rows of the photo.
        alpha: uint8 [n, w], C-contiguous, likewise.
        colours: float32 [sh, sw, 6] of `estimate`; None leaves the photo's colours in the edge.
        top: the first of these rows.
        height: how many rows the photo has.
        out: uint8 [n, w, 4], C-contiguous; filled with RGBA, straight alpha.
    """
    cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA, dst=out)
    _put_alpha(alpha, out.view(np.uint32)[:, :, 0])
    if colours is not None:
        _clean(rgb, alpha, colours, top, height, out)


def _fitting(rgb: UInt8, side: int) -> tuple[int, int]:
    """Height and width of a copy whose longer side is `side`, or that of the photo when it is no longer."""
    scale = min(1.0, side / max(rgb.shape[:2]))
    return max(1, round(rgb.shape[0] * scale)), max(1, round(rgb.shape[1] * scale))


def _copies(rgb: UInt8, alpha: UInt8) -> tuple[Float32, Float32]:
    """A small photo [h, w, 3] in levels 0…255 and the alpha at its size in 0…1, [h, w, 3]: the same for each colour."""
    share = cv2.resize(alpha, rgb.shape[1::-1], interpolation=cv2.INTER_AREA)
    return rgb.astype(np.float32), cv2.merge([share] * 3).astype(np.float32) / np.float32(255)


def _fuse(subject: Float32, background: Float32, share: Float32, radius: int) -> tuple[Float32, Float32]:
    """The mean of each in a window, weighted by how much there is of it."""
    # A little of the photo itself, for a place that has none of the one or the other in reach.
    return _mean(subject, share + _TRACE, radius), _mean(background, 1 - share + _TRACE, radius)


def _mean(colours: Float32, weight: Float32, radius: int) -> Float32:
    side = (2 * radius + 1, 2 * radius + 1)
    sums = cv2.blur(colours * weight, side, borderType=cv2.BORDER_REFLECT)
    return np.asarray(sums / cv2.blur(weight, side, borderType=cv2.BORDER_REFLECT), np.float32)


@compiled
def _put_alpha(alpha: UInt8, out: npt.NDArray[np.uint32]) -> None:
    """Set the alpha of pixels [n, w] of four bytes each, and their colours to black where it is 0."""
    height, width = alpha.shape
    for y in range(height):
        for x in range(width):
            level = np.uint32(alpha[y, x])
            colours = np.uint32(0xFFFFFF) if level != 0 else np.uint32(0)
            out[y, x] = (out[y, x] & colours) | (level << np.uint32(24))


@compiled
def _clean(rgb: UInt8, alpha: UInt8, colours: Float32, top: int, height: int, out: UInt8) -> None:
    """Replace colours where 0 < alpha < 255, in rows that begin at `top` of a photo of `height`."""
    rows, width = alpha.shape
    small_height, small_width = colours.shape[:2]
    begins = cells_of(small_width, width)
    step = np.float32(small_width) / np.float32(width)
    half, nothing, full = np.float32(0.5), np.float32(0), np.float32(255)
    row = np.zeros((small_width + 2, 6), np.float32)  # the colours in this row; a border pixel more at each end
    for y in range(rows):
        above, below, down = between(y + top, small_height, height)
        ready = -1
        for cell in range(small_width + 1):
            first, last = begins[cell], begins[cell + 1]
            soft = np.uint8(0)
            for x in range(first, last):
                soft |= alpha[y, x] ^ np.uint8(np.int8(alpha[y, x]) >> 7)  # 0 for both 0 and 255
            if soft == 0:
                continue
            for x in range(max(cell - 1, ready + 1, 0), min(cell, small_width - 1) + 1):
                for k in range(6):
                    row[x + 1, k] = colours[above, x, k] + down * (colours[below, x, k] - colours[above, x, k])
                ready = x
            row[0], row[small_width + 1] = row[1], row[small_width]
            # One by one: an array for six numbers would be made and freed in every cell.
            r, to_r = row[cell, 0], row[cell + 1, 0] - row[cell, 0]
            g, to_g = row[cell, 1], row[cell + 1, 1] - row[cell, 1]
            b, to_b = row[cell, 2], row[cell + 1, 2] - row[cell, 2]
            far_r, to_far_r = row[cell, 3], row[cell + 1, 3] - row[cell, 3]
            far_g, to_far_g = row[cell, 4], row[cell + 1, 4] - row[cell, 4]
            far_b, to_far_b = row[cell, 5], row[cell + 1, 5] - row[cell, 5]
            t = (np.float32(first) + half) * step + half - np.float32(cell)
            for x in range(first, last):
                if alpha[y, x] != 0 and alpha[y, x] != 255:
                    share = np.float32(alpha[y, x]) / full
                    own, far = r + t * to_r, far_r + t * to_far_r
                    red = own + share * (np.float32(rgb[y, x, 0]) - far - share * (own - far))
                    own, far = g + t * to_g, far_g + t * to_far_g
                    green = own + share * (np.float32(rgb[y, x, 1]) - far - share * (own - far))
                    own, far = b + t * to_b, far_b + t * to_far_b
                    blue = own + share * (np.float32(rgb[y, x, 2]) - far - share * (own - far))
                    out[y, x, 0] = np.uint8(np.int32(min(max(red, nothing), full) + half))
                    out[y, x, 1] = np.uint8(np.int32(min(max(green, nothing), full) + half))
                    out[y, x, 2] = np.uint8(np.int32(min(max(blue, nothing), full) + half))
                t += step
