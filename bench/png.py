"""Our PNG writer against `cv2.imencode` at its default, on the same cutouts, turn by turn.

    python -m bench.png [--photos 17] [--rounds 3] [--fuzz 3000]

Cutouts are photos under drawn mattes, with black under alpha 0. `--fuzz` also encodes that many random pictures and
compares what two independent decoders, libpng in OpenCV and Pillow's own, make of them.

Caveats: photos are crops of the 17 samples brought to size; one thread; `cv2.imencode` picks its filter and level by
itself, and another zlib in OpenCV's build would change the ratio.
"""

import argparse
import io
import json
import math
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.machine import facts
from bench.photos import crops
from bench.turns import caveats, spread, turns
from model.codecs.decode import decode
from model.codecs.png import encode_png

UInt8 = npt.NDArray[np.uint8]


def cutout(data: bytes) -> UInt8:
    """A photo under a soft ellipse that covers half of it, RGBA."""
    rgb = decode(data, max_megapixels=100).rgb
    height, width = rgb.shape[:2]
    y, x = np.ogrid[:height, :width]
    radius = np.hypot((y / height - 0.5) * 2, (x / width - 0.5) * 2)
    alpha = np.clip((0.8 - radius) * 4000 + 128, 0, 255).astype(np.uint8)
    return np.dstack([cv2.copyTo(rgb, alpha), alpha])


def by_cv2(image: UInt8) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def fuzz(count: int) -> int:
    """How many of `count` random pictures come back otherwise than they were."""
    random, wrong = np.random.default_rng(0), 0
    for _ in range(count):
        height, width = random.integers(1, 200, 2)
        channels = random.choice([1, 3, 4])
        image = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
        if random.random() < 0.7:
            image = cv2.blur(image, tuple(int(n) for n in random.integers(1, 30, 2))).reshape(image.shape)
        image[random.random((height, width)) < random.random()] = 0
        image = image[:, :, 0] if channels == 1 else image
        data = encode_png(image)
        one = np.asarray(Image.open(io.BytesIO(data)))
        other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        other = other if channels == 1 else other[:, :, [2, 1, 0, 3][:channels]]
        wrong += not (np.array_equal(one, image) and np.array_equal(other, image))
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=17)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fuzz", type=int, default=3000)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    encode_png(np.zeros((2, 2, 4), np.uint8))  # compiles
    sizes = []
    for megapixels in (2.0, 12.0):
        ratios, logs = [], []
        for _, data in crops(asked.photos, (megapixels, megapixels), seed=2):
            image = cutout(data)
            seconds = turns({"ours": partial(encode_png, image), "cv2": partial(by_cv2, image)}, asked.rounds)
            ratios += [cv / our for our, cv in zip(*seconds.values(), strict=True)]
            logs.append(math.log(len(encode_png(image)) / len(by_cv2(image))))
        bytes_ = round(math.exp(sum(logs) / len(logs)), 4)
        sizes.append({"megapixels": megapixels, "times_less_cpu": spread(ratios), "share_of_bytes_geometric": bytes_})
    wrong = {"pictures": asked.fuzz, "decoded_otherwise": fuzz(asked.fuzz)}
    answer = {"bench": "png", "machine": facts(), "sizes": sizes, "fuzz": wrong, "caveats": caveats(__doc__)}
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
