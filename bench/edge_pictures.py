"""Draws docs/edges.webp: edges of sample photos on white, bilinear alpha with the photo's own colours, and Mattemill's.

python -m bench.edge_pictures [docs/edges.webp]
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench.machine import ROOT
from bench.refine import bilinear, edge_crop, on_white, ours
from bench.stage import alpha_of
from model.codecs.decode import decode
from model.engines.onnx import OnnxEngine
from model.store import ModelStore
from pipeline.settings import load_settings
from producer.samples import samples

MODEL = "u2netp"
SHOWN = ("scarlet-macaw", "german-shepherd", "white-duck", "sheep", "kitten", "wooden-bird")
SIDE, GAP, IN_A_ROW = 150, 10, 2


def strip(rgb: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The photo, bilinear, ours, where there is most of an edge; uint8 [SIDE, 3 * SIDE, 3]."""
    plain, made = bilinear(alpha, rgb), ours(alpha, rgb)
    crop = edge_crop(plain, SIDE)
    return np.hstack([rgb[crop], *(np.rint(on_white(each)[crop]).astype(np.uint8) for each in (plain, made))])


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "edges.webp"
    store = ModelStore(load_settings().home)
    strips = []
    with OnnxEngine(store.path(MODEL), store.spec(MODEL), max_batch=1, threads=1) as engine:
        for sample in samples():
            if any(name in sample.name for name in SHOWN):
                rgb = decode(sample.body, max_megapixels=50).rgb
                strips.append(strip(rgb, alpha_of(engine, sample.body)))
    blank = np.full((SIDE, GAP, 3), 255, np.uint8)
    rows = [np.hstack([strips[at], blank, strips[at + 1]]) for at in range(0, len(strips) - 1, IN_A_ROW)]
    space = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    sheet = np.vstack([part for row in rows for part in (row, space)][:-1])
    cv2.imwrite(str(target), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 90])


if __name__ == "__main__":
    main()
