"""Padding and batch fill of the scheduler, against the recipe's (sort by area, cut every 8): `python -m bench.padding`.

The mix, stated because everything hangs on it: 40 % at 3:2, 25 % at 4:3, 12 % square, 8 % at 16:9, 15 % cropped freely
between 1:2 and 2:1; one in three upright; long sides 85 % above 1024 pixels, 15 % between 400 and 1024.
The engine takes 20 ms a batch and is never short of images; the images in flight are those a worker holds.

Caveats: a simulation with the real DynamicBatcher and a clock of its own; no pixel is moved. Full batches of one size
are what TensorRT profiles want; the recipe pads a batch to its own largest sides, which needs fully dynamic shapes.
"""

import argparse
import itertools
import json
import random

import numpy as np

from bench.machine import facts
from bench.turns import caveats
from model.size_buckets import ASPECTS, fit, share, size_buckets
from pipeline.ids import SizeBucket
from workers.batcher import DynamicBatcher

_BATCH = 8
_ENGINE_SECONDS = 0.020


def mix(count: int, seed: int) -> list[tuple[int, int]]:
    """Sizes [h, w] in pixels."""
    random_ = random.Random(seed)
    sizes = []
    for _ in range(count):
        kind = random_.random()
        aspect = (
            3 / 2 if kind < 0.4 else 4 / 3 if kind < 0.65 else 1.0 if kind < 0.77 else 16 / 9 if kind < 0.85 else 0.0
        )
        aspect = aspect or random_.uniform(1, 2)
        long = random_.uniform(400, 1024) if random_.random() < 0.15 else random_.uniform(1024, 6000)
        short = long / aspect
        sizes.append((round(long), round(short)) if random_.random() < 1 / 3 else (round(short), round(long)))
    return sizes


def ours(photos: list[tuple[int, int]], sizes: tuple[SizeBucket, ...]) -> dict[str, float]:
    """Padding share of all computed pixels and mean images in a batch."""
    now = 0.0
    flight = max(4, 2 * len(sizes)) * _BATCH
    batcher = DynamicBatcher[tuple[int, int]](_BATCH, 0.02, flight, 1.0, lambda: now)
    images = {size: np.empty((size.height, size.width, 0), np.uint8) for size in sizes}
    waiting, shown, computed, batches, longest = iter(photos), 0.0, 0, 0, 0.0
    done = 0
    while done < len(photos):
        for photo in itertools.islice(waiting, flight - len(batcher)):
            batcher.submit(images[fit(*photo, sizes)], photo)
        batch = batcher.poll()
        if batch is None:
            now += 0.001
            continue
        size = batch.size_bucket
        batches, done = batches + 1, done + len(batch.items)
        computed += size.height * size.width * len(batch.items)
        shown += sum(share(*item.label, size) * size.height * size.width for item in batch.items)
        longest = max(longest, *(now - item.since for item in batch.items))
        now += _ENGINE_SECONDS
    return {"padding": 1 - shown / computed, "fill": done / batches, "sizes": len(sizes), "longest_wait_s": longest}


def recipe(photos: list[tuple[int, int]]) -> dict[str, float]:
    """The published recipe: cap at 1024, sort by area, cut every 8, pad each batch to its largest sides."""
    capped = []
    for height, width in photos:
        scale = min(1.0, 1024 / max(height, width))
        capped.append((height * scale, width * scale))
    capped.sort(key=lambda size: size[0] * size[1])
    shown = computed = 0.0
    for start in range(0, len(capped), _BATCH):
        batch = capped[start : start + _BATCH]
        height, width = (np.ceil(max(side) / 32) * 32 for side in zip(*batch, strict=True))
        shown += sum(h * w for h, w in batch)
        computed += height * width * len(batch)
    return {"padding": 1 - shown / computed, "fill": _BATCH}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--search", action="store_true", help="try sets of aspects")
    asked = parser.parse_args()
    photos = mix(asked.photos, 1)
    if asked.search:
        for count in (2, 3, 4):
            best = []
            for aspects in itertools.combinations([1.0, 1.1, 1.2, 1.3, 1.35, 1.4, 1.5, 1.55, 1.6, 1.7, 1.8], count):
                sizes = size_buckets(aspects=aspects)
                pad = 1 - sum(share(*p, s) * s.height * s.width for p in photos[:2000] for s in [fit(*p, sizes)]) / sum(
                    s.height * s.width for p in photos[:2000] for s in [fit(*p, sizes)]
                )
                best.append((round(pad, 4), len(sizes), aspects))
            print(count, sorted(best)[:4])
        return
    stated = (__doc__ or "").split("The mix, stated because everything hangs on it: ")
    answer = {
        "bench": "padding",
        "machine": facts(),
        "mix": " ".join(stated[1].split("\n\n")[0].split()),
        "aspects": ASPECTS,
        "ours": ours(photos, size_buckets()),
        "recipe": recipe(photos),
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
