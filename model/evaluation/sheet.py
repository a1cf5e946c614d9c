"""A contact sheet: photo, truth, and what each model made of it, side by side, the worst ones included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model.engines.base import Engine
from model.evaluation.dataset import Pair
from model.evaluation.evaluate import Evaluation, matte
from model.foreground import cut_out, estimate

UInt8 = NDArray[np.uint8]

_TILE: Final = 240
_GAP: Final = 6
_TITLE: Final = 34
_LABEL: Final = 18
_PAPER: Final = 250
_INK: Final = (40, 40, 40)
_SQUARE: Final = 12  # of the chequerboard
_DARK, _LIGHT = (225, 120, 225), (245, 180, 245)


@dataclass(frozen=True, slots=True)
class Shown:
    """A model on the sheet: its engine, still open, and what was measured."""

    engine: Engine
    evaluation: Evaluation


def contact_sheet(shown: Sequence[Shown], of_each_split: int = 4, worst: int = 5) -> bytes:
    """The sheet as a PNG.

    Args:
        shown: the models, the one that it is about first.
        of_each_split: photos from the beginning of each split.
        worst: photos with the lowest IoU of the first model, over all splits.
    """
    first = shown[0].evaluation
    sections = {split: [row.pair for row in first.of_split(split)[:of_each_split]] for split in first.splits} | {
        f"the {worst} worst of {first.model}": [row.pair for row in first.worst(worst)]
    }
    parts: list[UInt8] = []
    for title, pairs in sections.items():
        parts.append(_text(title, _width(shown), _TITLE, 0.7))
        parts.append(_headings(shown))
        parts.extend(_row(pair, shown) for pair in pairs)
    sheet = np.concatenate(parts)
    done, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError("the sheet cannot be encoded")
    return png.tobytes()


def _row(pair: Pair, shown: Sequence[Shown]) -> UInt8:
    """One photo: itself, its truth, the cutout of each model with its measures below."""
    rgb = pair.read_photo()
    truth = pair.read_truth(*rgb.shape[:2])
    tiles = [_tile(rgb, pair.name), _tile(_on_chequers(rgb, truth), "truth")]
    for one in shown:
        alpha, _, _ = matte(one.engine, pair)
        found = {row.pair: row.measures for row in one.evaluation.rows}[pair]
        tiles.append(_tile(_on_chequers(rgb, alpha), f"IoU {found.iou:.3f}  MAE {found.mae:.3f}"))
    gap = np.full((tiles[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)], axis=1)


def _headings(shown: Sequence[Shown]) -> UInt8:
    names = ["photo", "truth", *(one.evaluation.model for one in shown)]
    return np.concatenate([_text(name, _TILE + _GAP, _LABEL, 0.5) for name in names], axis=1)


def _tile(picture: UInt8, label: str) -> UInt8:
    """A picture as wide as a tile, or as high, with a line of text below."""
    height, width = picture.shape[:2]
    scale = _TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    tile = np.full((size[1] + _LABEL + _GAP, _TILE, 3), _PAPER, np.uint8)
    left = (_TILE - size[0]) // 2
    tile[: size[1], left : left + size[0]] = small
    tile[size[1] : size[1] + _LABEL] = _text(label, _TILE, _LABEL, 0.42)
    return tile


def _on_chequers(rgb: UInt8, alpha: UInt8) -> UInt8:
    """The cutout as a user gets it, over squares that no photo has."""
    height, width = alpha.shape
    rgba = np.empty((height, width, 4), np.uint8)
    cut_out(rgb, alpha, estimate(rgb, alpha), 0, height, rgba)
    # Squares of the same size on the sheet, whatever the size of the photo.
    square = max(1, round(_SQUARE * max(height, width) / _TILE))
    odd = (np.arange(height)[:, None] // square + np.arange(width)[None] // square) % 2
    ground = np.where(odd[..., None] == 1, np.array(_DARK), np.array(_LIGHT))
    share = rgba[..., 3:].astype(np.float32) / 255
    mixed: UInt8 = np.rint(rgba[..., :3] * share + ground * (1 - share)).astype(np.uint8)
    return mixed


def _text(words: str, width: int, height: int, size: float) -> UInt8:
    line = np.full((height, width, 3), _PAPER, np.uint8)
    ascii_only = words.encode("ascii", "replace").decode()  # the only letters that OpenCV has
    cv2.putText(line, ascii_only, (2, height - 6), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
    return line


def _width(shown: Sequence[Shown]) -> int:
    return (2 + len(shown)) * (_TILE + _GAP)
