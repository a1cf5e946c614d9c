"""Mattemill against a naive Celery worker: the same photos, model, S3 and Redis, turn by turn in one run.

    python -m bench.against_naive [--photos 200] [--rounds 3]

Seconds run from the first call of the producer to the last output; workers are up and warm. CPU-seconds are those of
the producer and of all worker processes, not of Redis and S3, which serve both alike. `closed_seconds` is Mattemill's
time until manifest and report are written too; the naive worker writes none.

Caveats: both sides and the servers share the machine's cores. The naive worker squashes the photo to the model's
square, upsamples bilinearly and leaves edge colours as they are, which is less work than Mattemill does. Photos are
crops of 17 originals; their S3 is on loopback. With a slow model both sides mostly wait for the same network.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import redis
from rich.console import Console

from bench.machine import facts
from bench.photos import crops
from model.store import ModelStore
from pipeline.ids import Key
from pipeline.log import configure
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer.api import Producer
from workers.local.process import Child
from workers.local.stack import LocalStack

MODEL = "u2netp"
console = Console(stderr=True)


@dataclass(frozen=True)
class Round:
    """One job of one side."""

    seconds: float
    cpu_seconds: float
    images_per_second: float
    peak_mb: float
    closed_seconds: float | None = None


def cpu_seconds(children: list[Child]) -> float:
    """CPU time of this process and of all worker processes so far."""
    total = time.process_time()
    for child in children:
        for process in _tree(child):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def memory_mb(children: list[Child]) -> float:
    """Proportional memory of all worker processes, in megabytes."""
    total = 0
    for child in children:
        for process in _tree(child):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total / 1e6


def pause(children: list[Child], peak: float) -> float:
    """Wait a moment between two looks at the job; looks at memory seldom, for it costs processor time."""
    time.sleep(0.1)
    return max(peak, memory_mb(children)) if time.monotonic() % 5 < 0.1 else peak


def _tree(child: Child) -> list[psutil.Process]:
    try:
        parent = psutil.Process(child.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


@contextlib.contextmanager
def workers(commands: list[list[str]], env: dict[str, str], log: Path) -> Iterator[list[Child]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Child([sys.executable, "-m", *command], name=command[0], log=log, env=env))
            for command in commands
        ]


def mattemill(settings: Settings, store: S3Store, env: dict[str, str], log: Path, count: int) -> Round:
    commands = [["producer.commands", "worker", "gpu", "--devices", "cpu"], ["producer.commands", "worker", "cpu"]]
    with workers(commands, env, log) as children:
        producer = Producer(settings, store)
        producer.sweep("s3://warm/", "s3://out/warm/", model=MODEL, force=True).wait(stall_timeout=120)
        before, start, peak = cpu_seconds(children), time.perf_counter(), 0.0
        run = producer.sweep("s3://photos/", "s3://out/ours/", model=MODEL, force=True)
        while run.counts().finished < count:
            peak = pause(children, peak)
        seconds, cpu = time.perf_counter() - start, cpu_seconds(children) - before
        summary = run.wait()
        if summary.done != count:
            raise SystemExit(f"Mattemill finished {summary.done} of {count}: {summary.failures[:3]}")
        return Round(seconds, cpu, count / seconds, peak, time.perf_counter() - start)


def naive(settings: Settings, keys: list[str], env: dict[str, str], log: Path) -> Round:
    os.environ.update(env)
    from bench.naive import app, remove_background

    app.conf.broker_url = env["MATTEMILL_REDIS_URL"]
    client = redis.Redis.from_url(env["MATTEMILL_REDIS_URL"])
    cores = str(len(os.sched_getaffinity(0)))
    command = ["celery", "-A", "bench.naive", "worker", "--concurrency", cores, "--loglevel", "WARNING"]
    with workers([command], env, log) as children:

        def job(source: str, names: list[str], target: str) -> tuple[float, float, float]:
            client.set("naive:done", 0)
            before, start, peak = cpu_seconds(children), time.perf_counter(), 0.0
            for key in names:
                remove_background.delay(source, "out", key)
            while int(client.get("naive:done") or 0) < len(names):
                peak = pause(children, peak)
            return time.perf_counter() - start, cpu_seconds(children) - before, peak

        job("warm", [f"{n:05d}.jpg" for n in range(4)], "warm")
        seconds, cpu, peak = job("photos", keys, "naive")
    return Round(seconds, cpu, len(keys) / seconds, peak)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    configure(load_settings(log_format="console"), role="bench")
    rounds: dict[str, list[Round]] = {"mattemill": [], "naive": []}
    with LocalStack() as stack, tempfile.TemporaryDirectory() as folder:
        servers = stack.environment()
        os.environ.update(servers)
        settings = load_settings(model=MODEL)
        log = Path(folder) / "workers.log"
        env = os.environ | {"NAIVE_MODEL": str(ModelStore(settings.home).path(MODEL)), "MATTEMILL_LOG_FORMAT": "json"}
        with S3Store(settings) as store:
            for bucket in ("photos", "warm", "out"):
                store.create_bucket(bucket)
            keys, megapixels = [], (1.0, 2.0)
            for key, body in crops(asked.photos, megapixels):
                keys.append(key)
                store.put("photos", Key(key), body, content_type="image/jpeg")
                if len(keys) <= 4:
                    store.put("warm", Key(key), body, content_type="image/jpeg")
            for number in range(asked.rounds):
                sides = ["mattemill", "naive"] if number % 2 == 0 else ["naive", "mattemill"]
                for side in sides:
                    one = (
                        mattemill(settings, store, env, log, len(keys))
                        if side == "mattemill"
                        else naive(settings, keys, env, log)
                    )
                    rounds[side].append(one)
                    console.print(f"round {number + 1} {side}: {one}")
    ratios = [ours.images_per_second / theirs.images_per_second for ours, theirs in zip(*rounds.values(), strict=True)]
    cpu = [theirs.cpu_seconds / ours.cpu_seconds for ours, theirs in zip(*rounds.values(), strict=True)]
    answer = {
        "bench": "against_naive",
        "machine": facts(),
        "job": {"photos": len(keys), "megapixels": megapixels, "model": MODEL},
        "rounds": {side: [asdict(one) for one in ones] for side, ones in rounds.items()},
        "speedup": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "cpu_saving": {"median": statistics.median(cpu), "min": min(cpu), "max": max(cpu)},
        "caveats": (__doc__ or "").split("Caveats: ")[1].strip(),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
