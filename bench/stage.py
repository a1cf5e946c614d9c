"""The whole CPU stage of one image without the network, against the usual way with OpenCV, turn by turn.

    python -m bench.stage [--megapixels 12] [--photos 9] [--rounds 3] [--model u2netp]

Ours: strict decode, refined alpha, clean colours, RGBA PNG. Usual: `cv2.imdecode`, bilinear alpha, `cv2.imencode` at
its default, colours under alpha 0 left as they are. Both get the same JPEG and the same alpha of the model.

Caveats: photos are enlarged or shrunk crops of the 17 samples: at 12 megapixels they have less detail than a camera's;
the subject's share of the picture decides how much there is to encode. Peak memory is that of a process of its own for
each side and the last photo, less what it had before the photo.
"""

import argparse
import json
import multiprocessing
import re
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench.machine import facts
from bench.photos import crops, model_image
from bench.turns import caveats, spread, turns
from model.cutout import make_cutout, warm_up
from model.engines.onnx import OnnxEngine
from model.preprocess import content, settled
from model.store import ModelStore
from pipeline.recipe import Recipe
from pipeline.settings import load_settings

UInt8 = npt.NDArray[np.uint8]
LIMIT = 200


def ours(data: bytes, alpha: UInt8) -> int:
    return len(make_cutout(data, alpha, Recipe(), None, LIMIT).body)


def usual(data: bytes, alpha: UInt8) -> int:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    full = cv2.resize(alpha, bgr.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return len(cv2.imencode(".png", np.dstack([bgr, full]))[1])


def peak_megabytes(way: Callable[[bytes, UInt8], int], data: bytes, alpha: UInt8) -> float:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(way, data, alpha, sender))
    process.start()
    megabytes = float(receiver.recv())
    process.join()
    return megabytes


def _measure(way: Callable[[bytes, UInt8], int], data: bytes, alpha: UInt8, sender: Connection) -> None:
    cv2.setNumThreads(1)
    warm_up()
    before = highest()
    way(data, alpha)
    sender.send(highest() - before)


def highest() -> float:
    """The most memory that this process ever had, in megabytes; getrusage would count that of its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def alpha_of(engine: OnnxEngine, data: bytes) -> UInt8:
    image, box = model_image(data, engine.size_buckets[0])
    return settled(content(engine.infer(image[None])[0], box))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megapixels", type=float, nargs="+", default=[2, 12])
    parser.add_argument("--photos", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="u2netp")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    warm_up()
    sizes = []
    store = ModelStore(load_settings().home)
    with OnnxEngine(store.path(asked.model), store.spec(asked.model), max_batch=1, threads=1) as engine:
        for megapixels in asked.megapixels:
            ratios, bytes_, spent = [], [], {"ours": [], "usual": []}
            for _, data in crops(asked.photos, (megapixels, megapixels), seed=1):
                alpha = alpha_of(engine, data)
                ways = {"ours": partial(ours, data, alpha), "usual": partial(usual, data, alpha)}
                seconds = turns(ways, asked.rounds)
                ratios += [one / other for one, other in zip(*seconds.values(), strict=True)]
                bytes_.append(ours(data, alpha) / usual(data, alpha))
                for name, values in seconds.items():
                    spent[name] += [1000 * value / megapixels for value in values]
            sizes.append(
                {
                    "megapixels": megapixels,
                    "share_of_the_usual_cpu": spread(ratios),
                    "ms_per_megapixel": {name: spread(values) for name, values in spent.items()},
                    "share_of_the_usual_bytes": spread(bytes_),
                    "peak_megabytes": {way.__name__: peak_megabytes(way, data, alpha) for way in (ours, usual)},
                }
            )
    print(json.dumps({"bench": "stage", "machine": facts(), "sizes": sizes, "caveats": caveats(__doc__)}, indent=2))


if __name__ == "__main__":
    main()
