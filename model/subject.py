"""Where the subject lies in a matte, and what is suspicious about it."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]

_VISIBLE: Final = 13
"""Alpha, of 255, from which a pixel belongs to the subject's outline: a twentieth."""

_SPECK: Final = 0.01
"""Parts that are smaller than this share of the largest one are specks: they do not widen the crop."""

_EMPTY_BELOW: Final = 0.002
_FULL_ABOVE: Final = 0.98
_SPECKS: Final = 25
_SPECKLED_ABOVE: Final = 0.03
_CUT_ABOVE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels, `bottom` and `right` excluded. It may reach beyond the picture."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left


def subject_box(alpha: UInt8) -> Box | None:
    """The smallest rectangle that holds the subject, without specks; None where the matte is empty.

    Args:
        alpha: uint8 [h, w].
    """
    count, _, parts, _ = cv2.connectedComponentsWithStats((alpha >= _VISIBLE).astype(np.uint8))
    if count < 2:
        return None
    areas = parts[1:, cv2.CC_STAT_AREA]
    kept = parts[1:][areas >= areas.max() * _SPECK]
    left, top, width, height = kept[:, :4].T
    return Box(int(top.min()), int(left.min()), int((top + height).max()), int((left + width).max()))


def tightened(region: Box, alpha: UInt8) -> Box:
    """The smallest rectangle in a region that holds all that can be seen there; the region where nothing can.

    Args:
        region: within the picture.
        alpha: uint8 [h, w].
    """
    part = alpha[region.top : region.bottom, region.left : region.right]
    left, top, width, height = cv2.boundingRect((part >= _VISIBLE).astype(np.uint8))
    if not width:
        return region
    top, left = region.top + top, region.left + left
    return Box(top, left, top + height, left + width)


def framed(box: Box, margin: float, square: bool, longest: int) -> Box:
    """A subject's box with air round it.

    Args:
        box: the subject's.
        margin: percent of the longer side.
        square: as wide as high.
        longest: no side may have more pixels.
    """
    side = max(box.height, box.width)
    air = round(side * margin / 100)
    height, width = (side, side) if square else (box.height, box.width)
    height, width = min(height + 2 * air, longest), min(width + 2 * air, longest)
    top = box.top - (height - box.height) // 2
    left = box.left - (width - box.width) // 2
    return Box(top, left, top + height, left + width)


def suspects(alpha: UInt8) -> tuple[str, ...]:
    """What makes a matte worth a look: "empty", "full", "speckle", "cut_by_frame".

    Empty: nearly nothing is opaque. Full: nearly nothing is transparent. Speckle: many small parts, or small parts
    that together are a good deal of the subject. Cut by the frame: the subject runs along a border of the picture,
    which a portrait does with good reason.

    Args:
        alpha: uint8 [h, w], the model's own.
    """
    share = float(alpha.mean()) / 255
    if share < _EMPTY_BELOW:
        return ("empty",)
    if share > _FULL_ABOVE:
        return ("full",)
    found = []
    opaque = (alpha > 127).astype(np.uint8)
    areas = np.sort(cv2.connectedComponentsWithStats(opaque)[2][1:, cv2.CC_STAT_AREA])
    if len(areas):
        specks = areas[areas < areas[-1] * _SPECK]
        if len(specks) > _SPECKS or specks.sum() > areas.sum() * _SPECKLED_ABOVE:
            found.append("speckle")
    if max(float(side.mean()) for side in (opaque[0], opaque[-1], opaque[:, 0], opaque[:, -1])) > _CUT_ABOVE:
        found.append("cut_by_frame")
    return tuple(found)
