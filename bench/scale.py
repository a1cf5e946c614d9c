"""How cost grows with the number of images, the keys in a message and the GPU workers.

    python -m bench.scale run [--images 10000] [--engine-ms 5] [--chunk 16] [--gpus 1] [--matte-only] [--real]
    python -m bench.scale commands [--chunk 16]      Redis commands an image by role, overheard; no times
    python -m bench.scale standard                   every standard point that has no result yet; may be broken off
    python -m bench.scale check                      the model against the points
    python -m bench.scale write-docs                the tables of docs/scale.md

Every point is merged into bench/results/scale.json. Real: Redis protocol server (Valkey), ledger, producer, feeder,
Celery, batcher, hand-over, prefork encode children, full decode, refining, PNG. Made up, unless --real is given: S3
(sources are named while they are listed, every encode child has the same JPEG of 64 x 64 in memory, outputs are
forgotten) and the loaders (a load takes no time and no processor). The engine is always a clock that waits. A small run
warms all processes up first; then the run is listed while the feeder holds, and the clock runs from the feeder's start
to the last image. --matte-only leaves the encode stage out and ends when all alphas are handed over.

Caveats: everything shares the machine's cores, Redis too, so images/s are those of one box and CPU-ms is what to
compare. CPU-ms of the matte process stands for the milliseconds that it holds the interpreter lock: it is the upper
limit of these. Memory is each process's resident set: its own memory alone would seem to grow where pages that were
shared since a fork are written to. Its slope is the least-squares line over the images done, from a tenth of the run
on, and means little below 100 000 images: up to some 5000 rows wait in Redis, and buffers fill. The final manifest and
report come after the last image and are not in the seconds; parts of the manifest are. With --real, SeaweedFS works on
the same cores and is in no role.
"""

import argparse
import contextlib
import json
import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import redis

from bench.machine import facts
from bench.redis_load import between, look, overheard, ports
from bench.scale_model import Result, check, ledger_memory, written
from bench.scale_system import Point, until, warm
from bench.turns import caveats
from pipeline.ids import RunId

RESULT = Path(__file__).parent / "results" / "scale.json"
DOCS = Path(__file__).parent.parent / "docs"


STANDARD = [
    *(Point(images, ms) for ms in (5.0, 1.0) for images in (1000, 10_000)),
    *(Point(10_000, 5.0, chunk) for chunk in (1, 8, 32)),
    *(Point(6000, ms, gpus=gpus, matte_only=True) for ms in (5.0, 1.0) for gpus in (1, 2, 4)),
    Point(1000, real=True),
    Point(100_000, 5.0),
    Point(100_000, 1.0),
]


def cpu_of(roles: dict[int, str]) -> Counter[str]:
    """Processor seconds by kind of process, those of ended children included."""
    seconds = Counter[str]()
    for pid, role in roles.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            ended = 0.0 if role == "encode parent" else times.children_user + times.children_system
            seconds[kind(role)] += times.user + times.system + ended
    return seconds


def kind(role: str) -> str:
    return role.rstrip(" 0123456789")


def resident(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def run_point(point: Point, limit: float) -> dict[str, object]:
    with warm(point) as system:
        used = memory(system.client)
        listing = system.sweep(point.images, "in/")
        run = RunId(str(listing["run"]))
        bytes_per_item = (memory(system.client) - used) / point.images
        roles = system.roles()
        seen, cpu, started = look(system.client, roles), cpu_of(roles), time.perf_counter()
        samples: list[tuple[int, dict[int, int]]] = []
        system.feed(go=True)
        pause = 0.02
        while (done := system.finished(run)) < point.images and time.perf_counter() - started < limit:
            if time.perf_counter() - started > len(samples) * max(limit / 400, 0.5):
                samples.append((done, {pid: resident(pid) for pid in roles}))
            time.sleep(pause)
        seconds = time.perf_counter() - started
        spent, asked = cpu_of(roles), between(seen, look(system.client, roles))
        failed = system.ledger.counts(run).failed
    each = {role: (spent[role] - cpu[role]) * 1000 / done for role in spent}
    each["producer"] = cast(float, listing["cpu_seconds"]) * 1000 / point.images
    loads: dict[str, dict[str, float]] = {}
    for role, load in asked.items():
        into = loads.setdefault(kind(role), dict.fromkeys(asdict(load), 0.0))
        for field, value in asdict(load).items():
            into[field] = round(into[field] + value / done, 3)
    return {
        **asdict(point),
        "done": done,
        "failed": failed,
        "seconds": round(seconds, 2),
        "images_per_second": round(done / seconds, 1),
        "listing_seconds": round(cast(float, listing["seconds"]), 2),
        "cpu_ms_per_image": {role: round(value, 3) for role, value in sorted(each.items())},
        "redis_bytes_per_item": round(bytes_per_item, 1),
        "redis_per_image": loads,
        "memory": {role: slope(samples, pid, done) for pid, role in numbered(roles).items()},
    }


def numbered(roles: dict[int, str]) -> dict[int, str]:
    """The roles, with a number where two processes have the same."""
    times = Counter(roles.values())
    seen, named = Counter[str](), {}
    for pid, role in roles.items():
        seen[role] += 1
        named[pid] = f"{role} {seen[role]}" if times[role] > 1 else role
    return named


def slope(samples: list[tuple[int, dict[int, int]]], pid: int, done: int) -> dict[str, float]:
    """Megabytes at the end, and bytes an image by which a process grows."""
    points = [(images, used[pid]) for images, used in samples if images >= done / 10 and used[pid]]
    if len(points) < 5:
        return {"mb": round(points[-1][1] / 1e6, 1)} if points else {}
    images, used = np.array(points, float).T
    return {"mb": round(used[-1] / 1e6, 1), "bytes_per_image": round(float(np.polyfit(images, used, 1)[0]), 1)}


def memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def overhear(point: Point) -> dict[str, object]:
    """Commands that each role sends for an image, by name; a script is one."""
    with warm(point) as system:
        run = RunId(str(system.sweep(point.images, "in/")["run"]))
        with overheard(system.client) as heard:
            system.feed(go=True)
            until(lambda: system.finished(run) >= point.images, 300)
            role_of = ports(system.roles())
    commands: dict[str, Counter[str]] = {}
    for port, names in heard.items():
        if port in role_of:
            commands.setdefault(kind(role_of[port]), Counter()).update(names)
    return {
        **asdict(point),
        "commands_per_image": {role: round(names.total() / point.images, 2) for role, names in commands.items()},
        "by_name": {
            role: {name: round(times / point.images, 3) for name, times in names.most_common()}
            for role, names in commands.items()
        },
    }


def saved() -> Result:
    return cast(Result, json.loads(RESULT.read_text())) if RESULT.exists() else {}


def merge(section: str, name: str, point: dict[str, object]) -> None:
    """Put a point into the result; each has the machine and commit that it was measured on."""
    result = saved()
    result.setdefault(section, {})[name] = {"machine": facts(), "load_average": round(os.getloadavg()[0], 1), **point}
    RESULT.write_text(json.dumps({"bench": "scale", **result, "caveats": caveats(__doc__)}, indent=1) + "\n")
    print(json.dumps({name: point}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "commands", "standard", "check", "write-docs"])
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--engine-ms", type=float, default=5.0)
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--matte-only", action="store_true")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--limit", type=float, default=480, help="seconds after which a point is broken off")
    asked = parser.parse_args()
    point = Point(asked.images or 10_000, asked.engine_ms, asked.chunk, asked.gpus, asked.matte_only, asked.real)
    if asked.what == "run":
        merge("points", point.name, run_point(point, asked.limit))
    elif asked.what == "commands":
        heard = Point(asked.images or 1024, asked.engine_ms, asked.chunk)
        merge("commands", f"K {heard.chunk}", overhear(heard))
    elif asked.what == "standard":
        for point in STANDARD:
            if point.name not in saved().get("points", {}):
                merge("points", point.name, run_point(point, asked.limit))
        for chunk in (1, 8, 32):
            if f"K {chunk}" not in saved().get("commands", {}):
                merge("commands", f"K {chunk}", overhear(Point(1024, 5.0, chunk)))
    elif asked.what == "check":
        print("\n".join(check(saved())))
    else:
        page = DOCS / "scale.md"
        page.write_text(written(page.read_text(), saved(), ledger_memory()))


if __name__ == "__main__":
    main()
