"""How long the main process of a GPU worker holds the interpreter lock for an image: `python -m bench.lock`.

    pip install py-spy; python -m bench.lock [--chunks 1 8 16 32] [--images 16000]

`bench.flow`'s job (engine of 1 ms, loads that take no time), while py-spy looks 250 times a second for the thread that
holds the lock, for eight seconds. Held: the share of looks in which one did, times the seconds, by the images handed
over meanwhile. CPU: the processor time of the same process in the same seconds, what it does without the lock too.

Caveats: py-spy stops the process for each look, which slows it; a thread that holds the lock and has lost its core
counts as well. No S3, no decoding: loaders are processes of their own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import redis

from bench.flow import job
from bench.machine import facts
from bench.turns import caveats
from pipeline.settings import load_settings
from workers.local.valkey import Valkey

RATE, SECONDS = 250, 8
ENGINE_MS = 1.0


def handed_over(client: redis.Redis) -> int:
    """Images that wait for encoding; nobody takes them."""
    for key in client.scan_iter("mm:*:waiting:encode"):
        return int(client.zcard(key))  # type: ignore[arg-type]
    return 0


def watched(client: redis.Redis, spy: str, images: int) -> dict[str, float]:
    """Wait for the worker and its first tenth of images, then look for `SECONDS`."""
    while handed_over(client) < images // 10:
        time.sleep(0.02)
    (worker,) = (one for one in psutil.Process().children() if "bench.instant_worker" in one.cmdline())
    with tempfile.NamedTemporaryFile() as file:
        before, cpu, start = handed_over(client), worker.cpu_times(), time.perf_counter()
        command = [spy, "record", "--gil", "--rate", str(RATE), "--duration", str(SECONDS), "--format", "raw"]
        subprocess.run([*command, "--output", file.name, "--pid", str(worker.pid)], check=True, capture_output=True)
        after, spent, seconds = handed_over(client), worker.cpu_times(), time.perf_counter() - start
        looks = sum(int(line.rsplit(" ", 1)[1]) for line in Path(file.name).read_text().splitlines() if line.strip())
    done = after - before
    if after >= images:
        raise SystemExit("The job ended while it was looked at: give more --images.")
    return {
        "images_per_second": round(done / seconds, 1),
        "held_ms_an_image": round(1000 * looks / RATE / (done * SECONDS / seconds), 3),
        "held_share": round(looks / RATE / SECONDS, 3),
        "cpu_ms_an_image": round(1000 * (spent.user + spent.system - cpu.user - cpu.system) / done, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--images", type=int, default=16_000)
    asked = parser.parse_args()
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}") or shutil.which("py-spy")
    if spy is None:
        raise SystemExit("py-spy is not installed: pip install py-spy")
    found = {}
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
        settings = load_settings(redis_url=server.url, encode_mark=10_000_000, log_level="error")
        for chunk in asked.chunks:
            thread = threading.Thread(target=job, args=(settings, ENGINE_MS, 0.0, asked.images, chunk))
            with redis.Redis.from_url(server.url) as client:
                client.flushall()  # the images of the last one are no sign of this one's
                thread.start()
                found[f"K {chunk}"] = watched(client, spy, asked.images)
            print(chunk, found[f"K {chunk}"], file=sys.stderr)
            thread.join()
    print(json.dumps({"bench": "lock", "machine": facts(), "by_chunk": found, "caveats": caveats(__doc__)}, indent=2))


if __name__ == "__main__":
    main()
