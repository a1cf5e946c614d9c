"""How long one urgent image takes while a night's sweep runs, and what that costs the sweep.

    python -m bench.fairness [--images 10000] [--rounds 2]

Seconds from the call of `enqueue` to the image's being done: with nothing else to do, in the middle of a sweep at high
priority (one image every few seconds), and there at normal priority. The sweep runs with and without these images, the
order turned round each time; its images/s are those of its own images, from the first call to the last output.

Caveats: the network is a fake of 5 ms a batch, photos are small (0.1 megapixels), S3 is on loopback and shares the two
cores with everything else. Seconds include the producer's own HEAD and its look at the result every 20 ms.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import count
from pathlib import Path

from rich.console import Console

from bench.machine import facts
from bench.photos import crops
from bench.trees import workers
from bench.turns import caveats, spread
from model.engines.fake import FAKE
from pipeline.ids import Key
from pipeline.log import configure
from pipeline.runs import HIGH, NORMAL
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer import Producer
from workers.local.stack import LocalStack

console = Console(stderr=True)
_numbers = count()


class Sides:
    """A system that is up, and what one can ask of it."""

    def __init__(self, settings: Settings, store: S3Store, images: int, urgent: list[bytes]) -> None:
        self._store = store
        self._images = images
        self._urgent = urgent
        self._producer = Producer(settings, store)

    def one(self, priority: int) -> float:
        """Seconds that an image takes which nobody has seen before."""
        number = next(_numbers)
        key = f"{number:05d}.jpg"
        # Another picture each time, or the matte of the last one would be used again.
        self._store.put("urgent", Key(key), self._urgent[number], content_type="image/jpeg")
        started = time.perf_counter()
        run = self._producer.enqueue([f"s3://urgent/{key}"], "s3://out/urgent/", priority=priority)
        while not run.counts().finished:
            time.sleep(0.02)
            if time.perf_counter() - started > 600:
                raise SystemExit(f"{key} is not done after ten minutes")
        seconds = time.perf_counter() - started
        if run.counts().failed:
            raise SystemExit(f"{key} failed: {run.failures()}")
        return seconds

    def sweep(self, every: float | None) -> tuple[float, list[float], list[float]]:
        """Images/s of a sweep; seconds of the high and normal images in its middle, one each `every` seconds."""
        high: list[float] = []
        normal: list[float] = []
        started = time.perf_counter()
        run = self._producer.sweep("s3://photos/", f"s3://out/sweep-{next(_numbers)}/", force=True)
        while (done := run.counts().finished) < self._images:
            if every is not None and 0.1 < done / self._images < 0.85:
                high.append(self.one(HIGH))
                if len(high) % 4 == 0:
                    normal.append(self.one(NORMAL))
                time.sleep(every)
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        summary = run.wait(stall_timeout=300)
        if summary.done != self._images:
            raise SystemExit(f"{summary.done} of {self._images} done: {summary.failures[:3]}")
        return self._images / seconds, high, normal


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--every", type=float, default=2.0)
    asked = parser.parse_args()
    configure(load_settings(log_format="console"), role="bench")
    alone: list[float] = []
    high: list[float] = []
    normal: list[float] = []
    rates: dict[str, list[float]] = {"without": [], "with": []}
    with LocalStack() as stack, tempfile.TemporaryDirectory() as folder:
        os.environ.update(stack.environment())
        settings = load_settings()
        env = os.environ | {"MATTEMILL_LOG_FORMAT": "json", "MATTEMILL_LOG_LEVEL": "warning"}
        commands = [["producer.commands", "worker", "all", "--devices", f"{FAKE}:5"]]
        with S3Store(settings) as store:
            for bucket in ("photos", "urgent", "out"):
                store.create_bucket(bucket)
            for key, body in crops(asked.images, (0.08, 0.12)):
                store.put("photos", Key(key), body, content_type="image/jpeg")
            urgent = [body for _, body in crops(1000, (0.08, 0.12), seed=1)]
            with workers(commands, env, Path(folder) / "workers.log"):
                sides = Sides(settings, store, asked.images, urgent)
                sides.one(HIGH)  # warm
                for number in range(asked.rounds):
                    for side in ("without", "with")[:: 1 if number % 2 == 0 else -1]:
                        alone += [sides.one(HIGH) for _ in range(10)]
                        rate, some_high, some_normal = sides.sweep(asked.every if side == "with" else None)
                        rates[side].append(rate)
                        high, normal = high + some_high, normal + some_normal
                        console.print(
                            f"round {number + 1} {side}: {rate:.1f} images/s, high {some_high}, {some_normal}"
                        )
    ratios = [one / other for one, other in zip(rates["with"], rates["without"], strict=True)]
    answer = {
        "bench": "fairness",
        "machine": facts(),
        "job": {"images": asked.images, "rounds": asked.rounds, "engine": f"{FAKE}:5"},
        "seconds_of_one_image": {
            "nothing else to do": {**spread(alone), "images": len(alone)},
            "in a sweep, high priority": {**spread(high), "images": len(high)} if high else None,
            "in a sweep, normal priority": {**spread(normal), "images": len(normal)} if normal else None,
        },
        "sweep_images_per_second": {side: [round(rate, 1) for rate in ones] for side, ones in rates.items()},
        "sweep_with_by_without": round(statistics.median(ratios), 3),
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
