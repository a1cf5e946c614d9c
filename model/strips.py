"""The pixels of an output, some rows at a time: photo and alpha, and maybe a background."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from model.compiled import compiled
from model.foreground import cut_out
from model.refine import Fine, whole
from model.subject import Box
from pipeline.recipe import Recipe

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_STRIP: Final = 32


@dataclass(frozen=True, slots=True)
class Cut:
    """Photo and alpha at the output's scale, with the part of them that the output shows.

    Attributes:
        rgb: uint8 [h, w, 3].
        alpha: of [h, w].
        colours: of subject and background, for `cut_out`; None leaves the photo's.
        box: what is shown; beyond the photo is nothing.
    """

    rgb: UInt8
    alpha: Fine
    colours: Float32 | None
    box: Box


def part_of(pixels: UInt8, box: Box) -> UInt8:
    """The part of [h, w] or [h, w, n] that a box shows, zero beyond; `pixels` itself where that is all of it."""
    height, width = pixels.shape[:2]
    if (box.top, box.left, box.bottom, box.right) == (0, 0, height, width):
        return pixels
    out = np.zeros((box.height, box.width, *pixels.shape[2:]), np.uint8)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.bottom, height), min(box.right, width)
    if top < bottom and left < right:
        out[top - box.top : bottom - box.top, left - box.left : right - box.left] = pixels[top:bottom, left:right]
    return out


def strips_of(made: Cut, recipe: Recipe, background: UInt8 | None) -> tuple[Iterator[tuple[int, UInt8]], int]:
    """The output's rows in strips, and how many channels they have; a strip comes with its first row's number.

    A strip is good until the next one is asked for.
    """
    strips = _rgba(made)
    if not recipe.background:
        return strips, 4
    return _on_background(strips, _canvas(recipe, background, made.box.height, made.box.width)), 3


def output_of(made: Cut, recipe: Recipe, background: UInt8 | None) -> UInt8:
    """All of the output: uint8 [h, w, 3 or 4], or [h, w] where it is the alpha."""
    if recipe.format == "alpha":
        return part_of(whole(made.alpha), made.box)
    strips, channels = strips_of(made, recipe, background)
    out = np.empty((made.box.height, made.box.width, channels), np.uint8)
    for top, strip in strips:
        out[top : top + len(strip)] = strip
    return out


def _rgba(made: Cut) -> Iterator[tuple[int, UInt8]]:
    """The output's rows in strips: their first row and RGBA [n, w, 4], good until the next one is asked for."""
    height, width = made.alpha.shape
    buffer = np.empty((_STRIP, width, 4), np.uint8)
    beyond = np.zeros((_STRIP, made.box.width, 4), np.uint8)
    for top in range(made.box.top, made.box.bottom, _STRIP):
        bottom = min(top + _STRIP, made.box.bottom)
        rows = slice(max(top, 0), min(bottom, height))
        if rows.start >= rows.stop:
            yield top - made.box.top, beyond[: bottom - top]
            continue
        strip = buffer[: rows.stop - rows.start]
        cut_out(made.rgb[rows], made.alpha.rows(rows), made.colours, rows.start, height, strip)
        seen = Box(top - rows.start, made.box.left, bottom - rows.start, made.box.right)
        yield top - made.box.top, part_of(strip, seen)


def _canvas(recipe: Recipe, background: UInt8 | None, height: int, width: int) -> UInt8:
    """The background: [1, 1, 3] of a colour, or the middle of an image that covers [height, width, 3]."""
    if recipe.has_colour:
        return np.frombuffer(bytes.fromhex(recipe.background[1:]), np.uint8).reshape(1, 1, 3)
    if background is None:
        raise ValueError("this recipe needs a background image")
    scale = max(height / len(background), width / background.shape[1])
    size = max(width, round(background.shape[1] * scale)), max(height, round(len(background) * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    covering = cv2.resize(background, size, interpolation=way).astype(np.uint8, copy=False)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return np.ascontiguousarray(covering[top : top + height, left : left + width])


def _on_background(strips: Iterator[tuple[int, UInt8]], canvas: UInt8) -> Iterator[tuple[int, UInt8]]:
    """The same strips as RGB [n, w, 3] on a canvas."""
    for top, strip in strips:
        rows, width = strip.shape[:2]
        behind = np.tile(canvas, (rows, width, 1)) if canvas.size == 3 else canvas[top : top + rows]
        out = np.empty((rows, width, 3), np.uint8)
        _compose(np.ascontiguousarray(strip), np.ascontiguousarray(behind), out)
        yield top, out


@compiled
def _compose(rgba: UInt8, behind: UInt8, out: UInt8) -> None:
    """Lay RGBA [n, w, 4] on RGB [n, w, 3], rounded to the nearest level."""
    height, width = rgba.shape[:2]
    for y in range(height):
        for x in range(width):
            share = np.uint32(rgba[y, x, 3])
            for k in range(3):
                level = share * rgba[y, x, k] + (np.uint32(255) - share) * behind[y, x, k]
                out[y, x, k] = np.uint8((level + np.uint32(127)) // np.uint32(255))
