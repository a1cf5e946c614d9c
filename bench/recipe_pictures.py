"""Draws the pictures of docs/recipes.md, each through the code that serves users.

    python -m bench.recipe_pictures [--model u2netp]

What is transparent is shown on a checkerboard. `despill` is shown four times as large as it is.
"""

import argparse
import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.machine import ROOT
from bench.stage import alpha_of
from model.codecs.decode import decode
from model.codecs.lossy import encode_webp
from model.cutout import make_cutout
from model.engines.onnx import OnnxEngine
from model.store import ModelStore
from pipeline.recipe_text import parse_recipe
from pipeline.settings import load_settings
from producer.samples import samples

UInt8 = npt.NDArray[np.uint8]
FOLDER = ROOT / "docs" / "recipes"
PHOTO = "animals/german-shepherd.jpg"
WALL = "plants/dandelion.jpg"
SIDE = 300
EDGE = (292, 12)
"""Where despill is shown, in a picture of twice SIDE: top, left."""

RECIPES = {
    "png": "png",
    "webp": "webp=80",
    "alpha": "alpha",
    "colour": "background=#f2c14e",
    "image": "background=wall.jpg",
    "crop": "crop",
    "margin": "crop,margin=12%",
    "square": "crop,margin=8%,square,background=#ffffff",
    "max-side": "max-side=150",
}


def shown(body: bytes) -> UInt8:
    """A cutout as RGB, on a checkerboard where it is transparent."""
    with Image.open(io.BytesIO(body)) as image:
        rgba = np.asarray(image.convert("RGBA")).astype(np.float32)
    height, width = rgba.shape[:2]
    y, x = np.mgrid[:height, :width]
    squares = np.where((x // 8 + y // 8) % 2 == 0, 255, 214)[:, :, None]
    share = rgba[:, :, 3:] / 255
    return np.rint(rgba[:, :, :3] * share + squares * (1 - share)).astype(np.uint8)


def write(name: str, rgb: UInt8) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.webp").write_bytes(encode_webp(np.ascontiguousarray(rgb), 82))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="u2netp")
    asked = parser.parse_args()
    bodies = {sample.name: sample.body for sample in samples()}
    photo, wall = bodies[PHOTO], decode(bodies[WALL], max_megapixels=50).rgb
    store = ModelStore(load_settings().home)
    with OnnxEngine(store.path(asked.model), store.spec(asked.model), max_batch=1, threads=1) as engine:
        alpha = alpha_of(engine, photo)
    for name, text in RECIPES.items():
        recipe = parse_recipe(text if "max-side" in text else f"{text},max-side={SIDE}")
        write(name, shown(make_cutout(photo, alpha, recipe, wall, 50).body))
    rgb = decode(photo, max_megapixels=50).rgb
    scale = SIDE / max(rgb.shape[:2])
    write("photo", cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8))
    whole = f"background=#ffffff,png,max-side={SIDE * 2}"
    sides = [
        shown(make_cutout(photo, alpha, parse_recipe(whole + more), wall, 50).body) for more in (",despill=off", "")
    ]
    top, left = EDGE
    halves = [side[top : top + 75, left : left + 75] for side in sides]
    write("despill", cv2.resize(np.hstack(halves), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST).astype(np.uint8))
    print(sum(path.stat().st_size for path in Path(FOLDER).glob("*.webp")), "bytes")


if __name__ == "__main__":
    main()
