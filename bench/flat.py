"""Whether memory stays flat: bytes by which each process grows for an image, over a long run of one set of workers.

    python -m bench.flat [--images 20000] [--engine-ms 5] [--matte-only]

Real workers, Redis, housekeeping and messages of 16 keys (32 for the GPU worker alone); no pixels (loads, the engine's
answer and uploads are made up), so that nothing but what is kept for an image can grow. The slope is that of the
straight line through the memory without file pages (PSS, each half second) over the images finished, from a third of
the run on: before, caches fill that are bounded (100 mattes are kept, which is 10 MB).

Caveats: an allocator takes memory in steps and fills them for long: a slope that halves in a longer run is no leak;
what a library keeps for a real photo is not seen here; the housekeeping of the whole job keeps in its own memory what
a real one writes to S3 as parts of the manifest.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench.machine import facts
from bench.scale_system import Point, System, warm
from bench.turns import caveats
from pipeline.ids import RunId


def own_bytes(pid: int) -> int:
    """Proportional memory of a process that no file backs."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("this kernel does not tell")


def watched(system: System, images: int) -> Mapping[str, list[tuple[int, int]]]:
    """Images finished, and bytes then, of every role until a run is finished."""
    run = RunId(str(system.sweep(images, "flat/")["run"]))
    points: dict[str, list[tuple[int, int]]] = defaultdict(list)
    system.feed(go=True)
    while (finished := system.finished(run)) < images:
        for pid, role in system.roles().items():
            if role != "redis":
                points[role].append((finished, own_bytes(pid)))
        time.sleep(0.5)
    return points


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--engine-ms", type=float, default=5.0)
    parser.add_argument("--matte-only", action="store_true", help="the GPU worker without what follows it")
    asked = parser.parse_args()
    chunk = 32 if asked.matte_only else 16
    with warm(Point(asked.images, asked.engine_ms, chunk, matte_only=asked.matte_only)) as system:
        points = watched(system, asked.images)
    roles = {}
    for role, found in points.items():
        late = [point for point in found if point[0] >= asked.images // 3]
        line = statistics.linear_regression([x for x, _ in late], [y for _, y in late])
        roles[role] = {
            "bytes_an_image": round(line.slope, 1),
            "mb": {"first": round(found[0][1] / 1e6, 2), "a third": round(late[0][1] / 1e6, 2),
                   "last": round(found[-1][1] / 1e6, 2), "most": round(max(y for _, y in found) / 1e6, 2)},
            "points": len(late),
        }  # fmt: skip
    answer = {
        "bench": "flat",
        "machine": facts(),
        "images": asked.images,
        "engine_ms": asked.engine_ms,
        "matte_only": asked.matte_only,
        "roles": roles,
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
