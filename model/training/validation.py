"""A fixed set of composites from objects and backgrounds that training never sees, on disk for all to use."""

from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from model.training import augment
from model.training.collect import Source
from model.training.pictures import premultiply
from model.training.sources import Kind
from model.training.studio import studio

_SEED = 20261124
_EACH = 40
_LONG_SIDE = 1000
_SHORT_SIDES = (667, 750, 1000)
_PLAN: tuple[tuple[Kind, int], ...] = (("photo", 26), ("painted", 8), ("rendered", 3), ("drawn", 3))


def write_validation(folder: Path, table: list[Source]) -> int:
    """Write {studio,photo}/NNN.jpg, RGB of about 1000 pixels, and NNN.png, its alpha in grey, below folder/validation.

    Every composite has one subject; the same objects stand before studio and photographic backgrounds. The same table
    gives the same files.

    Returns:
        The number of composites.
    """
    held_out = [source for source in table if source.split == "validation"]
    rng = np.random.default_rng(_SEED)
    subjects = _subjects(held_out, rng)
    backgrounds = sorted(source.file for source in held_out if source.role == "background")
    order = rng.permutation(len(backgrounds))
    for group in ("studio", "photo"):
        target = folder / "validation" / group
        target.mkdir(parents=True, exist_ok=True)
        for number, subject in enumerate(subjects):
            height, width = _size(rng)
            if group == "studio":
                background = studio(rng, height, width)
            else:
                name = backgrounds[int(order[number % len(order)])]
                picture = _read(folder / name, "RGB")
                background = augment.crop(rng, picture, height, width, smallest=0.6)
                if rng.random() < 0.5:  # half of the photos are taken with an open lens
                    background = np.asarray(cv2.GaussianBlur(background, (0, 0), rng.uniform(1, 7)), np.uint8)
            image, alpha = _composite(rng, premultiply(_read(folder / subject, "RGBA")), background)
            Image.fromarray(image).save(target / f"{number:03}.jpg", quality=92)
            Image.fromarray(alpha).save(target / f"{number:03}.png")
    return 2 * len(subjects)


def _subjects(held_out: list[Source], rng: Generator) -> list[str]:
    """Files of cut-outs by the plan, one of each object as long as there are enough."""
    chosen: list[str] = []
    for kind, count in _PLAN:
        files: dict[str, list[str]] = {}
        for source in held_out:
            if source.role == "cutout" and source.kind == kind:
                files.setdefault(source.object, []).append(source.file)
        objects = sorted(files)
        for number in rng.permutation(len(objects))[:count]:
            chosen.append(sorted(files[objects[int(number)]])[0])
    return chosen[:_EACH]


def _composite(
    rng: Generator, subject: NDArray[np.uint8], background: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    height, width = background.shape[:2]
    layer = augment.place(rng, subject, height, width, float(rng.uniform(0.5, 1.0)), crop=False)
    if rng.random() < 0.5:
        background = augment.shadow(rng, background, layer[..., 3])
    image = augment.over(layer, background)
    # Cut-outs of a few hundred pixels come out soft; the background must not be sharper than they are.
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.2)), np.uint8)
    grain = rng.standard_normal((height, width, 1), np.float32) * rng.uniform(1, 4)
    return (image + grain).clip(0, 255).astype(np.uint8), np.ascontiguousarray(layer[..., 3])


def _size(rng: Generator) -> tuple[int, int]:
    short = int(rng.choice(_SHORT_SIDES))
    return (short, _LONG_SIDE) if rng.random() < 0.5 else (_LONG_SIDE, short)


def _read(path: Path, mode: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode), np.uint8)
