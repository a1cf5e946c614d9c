"""How much nearer to the truth our edges are than bilinear alpha and the photo's own colours.

    python -m bench.refine DATA [--factor 4] [--jpeg 92] [--sheet edges.webp]

DATA is a folder of `mattemill model data`; its photographic cut-outs that are held apart for validation are laid on
backgrounds, their true alpha is shrunk by `--factor` as a perfect model would give it, and brought back to full size.
SAD: sum of absolute differences of alpha. Gradient: squared differences of the gradient's size, Gaussian of 1.4 pixels
(Rhemann et al., "A Perceptually Motivated Online Benchmark for Image Matting", 2009). White: absolute differences of
the composites on white. Each is a share of bilinear's error: of the sums over all cut-outs, and as median over them.
`--jpeg` sends the photo through JPEG first; `--sheet` writes crops of edges for the eye.

Caveats: the alpha that is enlarged is perfect but for its size, a model's is not; the cut-outs are small, a few hundred
pixels; their own edges were drawn by people with other tools, with hard edges more often than hair.
"""

import argparse
import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench.machine import facts
from bench.turns import caveats, spread
from model.codecs.decode import decode
from model.foreground import cut_out, estimate
from model.refine import guide, refine, whole
from producer.samples import samples

UInt8 = npt.NDArray[np.uint8]
MEASURES = ("sad", "gradient", "white")
_MARGIN = 16
_SIGMA = 1.4


def cutouts(data: Path) -> Iterator[tuple[str, UInt8]]:
    """RGBA of the photographic cut-outs that are held apart, with some air round each."""
    with (data / "sources.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["role"], row["kind"]) == ("cutout", "photo")]
    for row in rows:
        if row["split"] == "validation":
            rgba = cv2.cvtColor(cv2.imread(str(data / row["file"]), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
            yield row["file"], cv2.copyMakeBorder(rgba, *[_MARGIN] * 4, cv2.BORDER_CONSTANT).astype(np.uint8)


def on_background(rgba: UInt8, backgrounds: list[UInt8], seed: int, quality: int) -> UInt8:
    random_ = random.Random(seed)
    behind = backgrounds[random_.randrange(len(backgrounds))]
    height, width = rgba.shape[:2]
    scale = max(height / behind.shape[0], width / behind.shape[1], 0.5)
    size = max(width, round(behind.shape[1] * scale)), max(height, round(behind.shape[0] * scale))
    behind = cv2.resize(behind, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = random_.randint(0, size[1] - height), random_.randint(0, size[0] - width)
    share = rgba[:, :, 3:].astype(np.float32) / 255
    mixed = rgba[:, :, :3] * share + behind[top : top + height, left : left + width] * (1 - share)
    photo = np.rint(mixed).astype(np.uint8)
    if quality:
        photo = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return np.ascontiguousarray(photo, np.uint8)


def ours(low: UInt8, photo: UInt8) -> UInt8:
    small = guide(low, photo)
    alpha = whole(refine(low, photo, small))
    out = np.empty((*alpha.shape, 4), np.uint8)
    cut_out(photo, alpha, estimate(small, low), 0, len(photo), out)
    return out


def bilinear(low: UInt8, photo: UInt8) -> UInt8:
    return np.dstack([photo, cv2.resize(low, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)])


def on_white(rgba: UInt8) -> npt.NDArray[np.float32]:
    share = rgba[:, :, 3:].astype(np.float32) / 255
    return np.asarray(rgba[:, :, :3] * share + 255 * (1 - share), np.float32)


def slope(alpha: UInt8) -> npt.NDArray[np.float32]:
    at = np.arange(-5, 6)
    bell = np.exp(-(at**2) / (2 * _SIGMA**2))
    kernel = np.outer(bell, -at * bell)
    kernel /= np.sqrt((kernel**2).sum())
    levels = alpha.astype(np.float32) / 255
    across, down = (cv2.filter2D(levels, -1, each) for each in (kernel, kernel.T))
    return np.asarray(np.hypot(across, down), np.float32)


def errors(made: UInt8, truth: UInt8) -> npt.NDArray[np.float64]:
    alpha, true = made[:, :, 3], truth[:, :, 3]
    sad = np.abs(alpha.astype(np.float64) - true).sum()
    gradient = ((slope(alpha) - slope(true)).astype(np.float64) ** 2).sum()
    white = np.abs(on_white(made).astype(np.float64) - on_white(truth)).sum()
    return np.array([sad, gradient, white])


def edge_crop(truth: UInt8, side: int = 96) -> tuple[slice, slice]:
    """The square with the most of the edge in it."""
    soft = ((truth[:, :, 3] > 0) & (truth[:, :, 3] < 255)).astype(np.float32)
    weight = cv2.boxFilter(soft, -1, (side, side), normalize=False)
    height, width = weight.shape
    y, x = np.unravel_index(int(weight.argmax()), weight.shape)
    top = int(np.clip(y - side // 2, 0, max(height - side, 0)))
    left = int(np.clip(x - side // 2, 0, max(width - side, 0)))
    return slice(top, top + side), slice(left, left + side)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--factor", type=float, default=4)
    parser.add_argument("--jpeg", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    backgrounds = [decode(sample.body, max_megapixels=50).rgb for sample in samples() if sample.expected is None]
    mine, theirs, tiles = [], [], []
    for number, (_, truth) in enumerate(cutouts(asked.data)):
        photo = on_background(truth, backgrounds, number, asked.jpeg)
        height, width = truth.shape[:2]
        size = max(1, round(width / asked.factor)), max(1, round(height / asked.factor))
        low = cv2.resize(truth[:, :, 3], size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        made, plain = ours(low, photo), bilinear(low, photo)
        mine.append(errors(made, truth))
        theirs.append(errors(plain, truth))
        crop = edge_crop(truth)
        tiles.append(np.hstack([photo[crop], *(on_white(each)[crop] for each in (plain, made, truth))]))
    shares = np.array(mine) / np.array(theirs)
    of_sums = np.sum(mine, axis=0) / np.sum(theirs, axis=0)
    answer = {
        "bench": "refine",
        "machine": facts(),
        "cutouts": len(mine),
        "factor": asked.factor,
        "jpeg": asked.jpeg,
        "share_of_bilinear": {name: round(float(share), 3) for name, share in zip(MEASURES, of_sums, strict=True)},
        "each_cutout": {
            name: spread(list(map(float, column))) for name, column in zip(MEASURES, shares.T, strict=True)
        },
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))
    if asked.sheet:
        whole = [tile for tile in tiles if tile.shape[:2] == (96, 384)]
        rows = [np.hstack(whole[i : i + 3]) for i in range(0, len(whole) // 3 * 3, 3)]
        sheet = np.rint(np.vstack(rows)).astype(np.uint8)
        sheet = cv2.resize(sheet, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(asked.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
