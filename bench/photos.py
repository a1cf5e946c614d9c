"""Photos to measure with: varied crops of the real samples, the same for the same seed; what a model sees of one."""

import random
from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from model.codecs.decode import decode
from model.codecs.probe import probe
from model.preprocess import Letterbox, enough, letterbox
from pipeline.ids import SizeBucket
from producer.samples import samples

_LIMIT: Final = 100  # megapixels


def model_image(body: bytes, size: SizeBucket) -> tuple[npt.NDArray[np.uint8], Letterbox]:
    """What a loader makes of a photo: uint8 [H, W, 3], and where the photo lies in it."""
    header = probe(body)
    needed = enough(header.height, header.width, size)
    return letterbox(decode(body, max_megapixels=_LIMIT, at_least=needed).rgb, size)


def crops(count: int, megapixels: tuple[float, float], seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield `count` JPEGs (quality 90) with a size between the two bounds, with their keys."""
    random_ = random.Random(seed)
    photos = [decode(sample.body, max_megapixels=50).rgb for sample in samples() if sample.expected is None]
    for number in range(count):
        rgb = photos[number % len(photos)]
        height, width = rgb.shape[:2]
        share = random_.uniform(0.7, 1.0)
        h, w = int(height * share), int(width * share)
        top, left = random_.randint(0, height - h), random_.randint(0, width - w)
        crop = rgb[top : top + h, left : left + w]
        scale = (random_.uniform(*megapixels) * 1e6 / (h * w)) ** 0.5
        size = max(round(w * scale), 1), max(round(h * scale), 1)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        pixels = cv2.resize(crop, size, interpolation=way)
        if random_.random() < 0.5:
            pixels = pixels[:, ::-1]
        # Colours at half resolution, as cameras and web sites store them.
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorsubsampling="420")
        yield f"{number:05d}.jpg", jpeg
