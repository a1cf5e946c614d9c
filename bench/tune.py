"""Which knob moves what: `python -m bench.tune --picture docs/tune.webp`.

Five curves. One GPU worker whose loads cost no processor: keys in a message (`MATTEMILL_CHUNK`), decoded images held
(`MATTEMILL_LOADER_SLOTS`) with 30 ms of simulated I/O each, and, with single images that come one by one, how long a
batch waits for company (`MATTEMILL_MAX_DELAY_MS`). With real photos of 1 to 2 megapixels from a real S3 server: loader
processes (`MATTEMILL_LOADERS`), and encode processes (`--concurrency` of `worker cpu`), each alone; with `--away MS`
each answer of S3 reaches them so much later.

Caveats: fake engines, so no figure says anything of a network; what is encoded are ellipses with a soft edge. Servers
and feeder share the cores with the worker, and S3 is on the same machine: elsewhere loads and uploads take longer, of
the same processor time. Where a curve turns flat says more than how high it lies.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from bench.far import far_away
from bench.flow import feeding
from bench.machine import facts
from bench.photos import crops
from bench.turns import caveats, spread
from model.codecs.alpha import pack_alpha, unpack_alpha
from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, Listing, connect
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from workers.local.process import Child
from workers.local.stack import LocalStack

BUCKET = "tune"
FAST, SLOW = ("bench.instant_worker", "fake:1"), ("bench.instant_worker", "fake:20")
REAL = ("workers.gpu", "fake:1")
_DEADLINE = 120.0
Point = dict[str, float]


@dataclass(frozen=True)
class Curve:
    """Points of one knob; `unit` is what is drawn."""

    name: str
    values: Sequence[int]
    unit: str


CURVES = (
    Curve("MATTEMILL_CHUNK", (1, 2, 4, 8, 16, 32), "images/s"),
    Curve("MATTEMILL_LOADER_SLOTS", (8, 12, 16, 32, 64), "images/s"),
    Curve("MATTEMILL_MAX_DELAY_MS", (0, 10, 20, 50, 100), "ms of waiting"),
    Curve("MATTEMILL_LOADERS", (1, 2, 3, 4, 8), "images/s"),
    Curve("worker cpu --concurrency", (1, 2, 3, 4, 8), "images/s"),
)


class Bench:
    """Servers, photos and a ledger; `measure` gives one point."""

    def __init__(self, stack: LocalStack, scale: float, photos: int) -> None:
        self.settings = load_settings(log_level="error", encode_mark=10_000_000)
        self.client = connect(self.settings)
        self.ledger = Ledger(self.client, self.settings)
        self._folder = stack.directory
        self._scale = scale
        self._sources: list[tuple[Key, ETag, int]] = []
        with S3Store(self.settings) as store:
            store.create_bucket(BUCKET)
            for key, body in crops(photos, (1.0, 2.0)):
                etag = store.put(BUCKET, Key(key), body, content_type="image/jpeg")
                self._sources.append((Key(key), etag, len(body)))

    def measure(self, curve: Curve, value: int) -> Point:
        self.client.flushall()
        match curve.name:
            case "MATTEMILL_CHUNK":
                run = self._made_up(int(6000 * self._scale), chunk=value)
                return self._matte(run, FAST, {"MATTEMILL_LOADERS": "1", "MATTEMILL_LOADER_SLOTS": "64"})
            case "MATTEMILL_LOADER_SLOTS":
                run = self._made_up(int(1500 * self._scale), chunk=16)
                waits = {"MATTEMILL_BENCH_IO": "0.03", "MATTEMILL_LOADERS": "32", curve.name: str(value)}
                return self._matte(run, SLOW, waits)
            case "MATTEMILL_MAX_DELAY_MS":
                env = {"MATTEMILL_LOADERS": "8", "MATTEMILL_LOADER_SLOTS": "64", curve.name: str(value)}
                return self._trickle(int(300 * self._scale), SLOW, env)
            case "MATTEMILL_LOADERS":
                return self._matte(self._real(), REAL, {curve.name: str(value)})
            case _:
                run = self._real()
                self._matte(run, REAL, {})
                self._round_mattes(run[0])
                return self._encode(run, value)

    def _spec(self, chunk: int) -> RunSpec:
        run = new_run_id()  # with outputs of its own: to replace those of the last point would be other work
        spec = RunSpec(run, BUCKET, "", BUCKET, f"{run}/", "u2netp", "0" * 64, ("320x320",), chunk=chunk)
        self.ledger.create(spec)
        return spec

    def _list(self, spec: RunSpec, sources: Sequence[tuple[Key, ETag, int]], page: int = 0) -> None:
        entries = [
            Listing("todo", Item(item_id(spec.output_key(key)), key, etag, size, "320x320"), short_hash(key))
            for key, etag, size in sources
        ]
        for number, start in enumerate(range(0, len(entries), 500), page):
            self.ledger.list_page(spec.run, number, entries[start : start + 500])

    def _made_up(self, images: int, chunk: int) -> tuple[RunSpec, int]:
        spec = self._spec(chunk)
        self._list(spec, [(Key(f"{number:07d}.jpg"), ETag("e"), 1) for number in range(images)])
        self.ledger.close_listing(spec.run, images)
        return spec, images

    def _real(self) -> tuple[RunSpec, int]:
        spec = self._spec(chunk=8)
        self._list(spec, self._sources)
        self.ledger.close_listing(spec.run, len(self._sources))
        return spec, len(self._sources)

    def _matte(self, run: tuple[RunSpec, int], command: Sequence[str], env: Mapping[str, str]) -> Point:
        spec, images = run
        with self._worker(command, env) as log, feeding(self.ledger, self.settings, 0.005):
            rate = self._rate(lambda: self._waiting(spec), images)
        return {"images/s": rate, **fill(log)}

    def _trickle(self, images: int, command: Sequence[str], env: Mapping[str, str]) -> Point:
        """Single images at random moments, 60 a second in the mean."""
        spec, dice = self._spec(chunk=1), random.Random(0)
        with self._worker(command, env) as log, feeding(self.ledger, self.settings, 0.005):
            self._list(spec, [(Key("first.jpg"), ETag("e"), 1)])
            wait(lambda: self._waiting(spec) == 1)
            due = time.monotonic()
            for number in range(1, images):
                due += dice.expovariate(60)
                time.sleep(max(due - time.monotonic(), 0))
                self._list(spec, [(Key(f"{number:07d}.jpg"), ETag("e"), 1)], page=number)
            self.ledger.close_listing(spec.run, images)
            wait(lambda: self._waiting(spec) == images)
        waits = [line["ms"]["wait"] for line in lines(log) if line["event"] == "matte" and line["key"] != "first.jpg"]
        return {"ms of waiting": statistics.median(waits), **fill(log)}

    def _encode(self, run: tuple[RunSpec, int], processes: int) -> Point:
        spec, images = run
        with self._worker(("workers.cpu", str(processes)), {}):
            return {"images/s": self._rate(lambda: self.ledger.counts(spec.run).done, images)}

    def _round_mattes(self, spec: RunSpec) -> None:
        """Put a subject with a soft edge in place of each matte: the fake engine's are edges all over."""
        place = f"mm:{{{spec.run}}}:alpha"
        for item, body in cast(dict[str, bytes], self.client.hgetall(place)).items():
            packed = unpack_alpha(body)
            height, width = packed.alpha.shape
            alpha = np.zeros((height, width), np.uint8)
            cv2.ellipse(alpha, (width // 2, height // 2), (width // 3, height * 2 // 5), 0, 0, 360, (255,), -1)
            alpha = cv2.GaussianBlur(alpha, (0, 0), 2).astype(np.uint8)
            self.client.hset(place, item, pack_alpha(replace(packed, alpha=alpha)))

    def _waiting(self, spec: RunSpec) -> int:
        return int(self.client.zcard(f"mm:{{{spec.run}}}:waiting:encode"))

    def _rate(self, reached: Callable[[], int], images: int) -> float:
        """Images a second, from the first tenth to the last."""
        wait(lambda: reached() >= images // 10)
        first, start = reached(), time.perf_counter()
        wait(lambda: reached() >= images)
        return (images - first) / (time.perf_counter() - start)

    @contextlib.contextmanager
    def _worker(self, command: Sequence[str], env: Mapping[str, str]) -> Iterator[Path]:
        log = self._folder / "worker.log"
        log.unlink(missing_ok=True)
        env = {"MATTEMILL_ENCODE_MARK": "10000000", "MATTEMILL_LOG_FORMAT": "json", **env}
        with Child([sys.executable, "-m", *command], name=command[0], log=log, env=os.environ | env) as child:
            try:
                yield log
            finally:
                child.stop(60)


def wait(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came of it in {_DEADLINE:g} s")
        time.sleep(0.005)


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def fill(log: Path) -> Point:
    (figures,) = (line for line in lines(log) if line["event"] == "matte_stage_ended")
    return {"images in a batch": figures["images"] / figures["batches"]}


def draw(results: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]], path: Path) -> None:
    """A panel for each curve: medians, and a whisker from least to greatest."""
    width, height, font = 430, 250, cv2.FONT_HERSHEY_SIMPLEX
    canvas = np.full((2 * height + 10, 3 * width, 3), 255, np.uint8)
    for number, curve in enumerate(CURVES):
        points = [(value, results[curve.name][str(value)]) for value in curve.values]
        top, left = number // 3 * height + 44, number % 3 * width + 60
        high = max(point[curve.unit]["max"] for _, point in points) * 1.1 or 1.0
        cv2.putText(canvas, curve.name, (left, top - 24), font, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        cv2.putText(canvas, curve.unit, (left, top - 7), font, 0.4, (110, 110, 110), 1, cv2.LINE_AA)
        bottom, right = top + height - 84, left + width - 90
        for share in (0.0, 0.5, 1.0):
            y = round(bottom - share * (bottom - top))
            cv2.line(canvas, (left, y), (right, y), (220, 220, 220), 1)
            cv2.putText(canvas, f"{share * high:.0f}", (left - 44, y + 4), font, 0.4, (110, 110, 110), 1, cv2.LINE_AA)
        line = []
        for place, (value, point) in enumerate(points):  # as far apart as there are points: most of them double
            x = round(left + 14 + place * (right - left - 28) / (len(points) - 1))
            median, low, most = (
                round(bottom - point[curve.unit][part] / high * (bottom - top)) for part in ("median", "min", "max")
            )
            cv2.line(canvas, (x, low), (x, most), (190, 160, 120), 2, cv2.LINE_AA)
            cv2.putText(canvas, str(value), (x - 8, bottom + 18), font, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
            if "images in a batch" in point and curve.name == "MATTEMILL_MAX_DELAY_MS":
                text = f"{point['images in a batch']['median']:.1f} a batch"
                cv2.putText(canvas, text, (x - 26, bottom + 34), font, 0.33, (110, 110, 110), 1, cv2.LINE_AA)
            line.append((x, median))
        for one, two in pairwise(line):
            cv2.line(canvas, one, two, (150, 90, 20), 2, cv2.LINE_AA)
        for middle in line:
            cv2.circle(canvas, middle, 4, (150, 90, 20), -1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), canvas, [cv2.IMWRITE_WEBP_QUALITY, 101]):
        raise OSError(f"{path} cannot be written")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--knob", choices=[curve.name for curve in CURVES], help="this curve alone, and no picture")
    parser.add_argument("--away", type=float, default=0.0, help="milliseconds to S3 and back, beyond what there are")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of made-up images")
    parser.add_argument("--picture", type=Path, help="where to draw the curves, such as docs/tune.webp")
    asked = parser.parse_args()
    found: dict[str, dict[str, list[Point]]] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home, LocalStack() as stack, contextlib.ExitStack() as between:
        os.environ |= stack.environment() | {"MATTEMILL_HOME": home}
        bench = Bench(stack, asked.scale, asked.photos)
        os.environ["MATTEMILL_S3_ENDPOINT_URL"] = between.enter_context(
            far_away(stack.seaweed.endpoint_url, asked.away)
        )
        for _ in range(asked.rounds):
            for curve in [one for one in CURVES if asked.knob in (None, one.name)]:
                for value in curve.values:
                    point = bench.measure(curve, value)
                    found.setdefault(curve.name, {}).setdefault(str(value), []).append(point)
                    print(curve.name, value, point, file=sys.stderr)
        bench.client.close()
    results = {
        name: {
            value: {unit: spread([point[unit] for point in points]) for unit in points[0]}
            for value, points in values.items()
        }
        for name, values in found.items()
    }
    if asked.picture and asked.knob is None:
        draw(results, asked.picture)
    answer = {
        "bench": "tune",
        "machine": facts(),
        "job": {
            "rounds": asked.rounds,
            "photos": asked.photos,
            "scale": asked.scale,
            "batch": 8,
            "s3_away_ms": asked.away,
        },
        "seconds": round(time.monotonic() - began),
        "curves": results,
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
