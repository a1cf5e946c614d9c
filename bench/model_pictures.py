"""Draws docs/models.webp: the sample photos, cut out on grey by each model: photo, then one cutout for each.

python -m bench.model_pictures [MODEL ...] [docs/models.webp]
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench.machine import ROOT
from bench.refine import ours
from bench.stage import alpha_of
from model.codecs.decode import decode
from model.engines.onnx import OnnxEngine
from model.store import ModelStore
from pipeline.settings import load_settings
from producer.samples import samples

MODELS = ("u2netp", "cvunet-lite-s")
SIDE, GREY, IN_A_ROW = 150, 205, 3
UInt8 = npt.NDArray[np.uint8]


def tile(rgb: UInt8) -> UInt8:
    """The picture in the middle of a square; uint8 [SIDE, SIDE, 3]."""
    scale = (SIDE - 4) / max(rgb.shape[:2])
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    square = np.full((SIDE, SIDE, 3), 255, np.uint8)
    top, left = (SIDE - small.shape[0]) // 2, (SIDE - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square


def on_grey(rgba: UInt8) -> UInt8:
    share = rgba[:, :, 3:].astype(np.float32) / 255
    return np.rint(rgba[:, :, :3] * share + GREY * (1 - share)).astype(np.uint8)


def main() -> None:
    words = sys.argv[1:]
    target = Path(words.pop()) if words and words[-1].endswith(".webp") else ROOT / "docs" / "models.webp"
    photos = [sample.body for sample in samples() if sample.expected is None]
    pictures = [decode(body, max_megapixels=50).rgb for body in photos]
    strips = [[tile(rgb)] for rgb in pictures]
    store = ModelStore(load_settings().home)
    for name in words or MODELS:
        with OnnxEngine(store.path(name), store.spec(name), max_batch=1, threads=1) as engine:
            for body, rgb, strip in zip(photos, pictures, strips, strict=True):
                strip.append(tile(on_grey(ours(alpha_of(engine, body), rgb))))
    whole = [np.hstack(strip) for strip in strips]
    whole += [np.full_like(whole[0], 255)] * (-len(whole) % IN_A_ROW)
    rows = [np.hstack(whole[at : at + IN_A_ROW]) for at in range(0, len(whole), IN_A_ROW)]
    cv2.imwrite(str(target), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 88])


if __name__ == "__main__":
    main()
