"""What one GPU worker process can move when loading costs nothing: `python -m bench.flow`.

Two jobs, turn by turn: an engine of 20 ms a batch with 30 ms of simulated I/O an image (is the engine busy?), and one
of 1 ms a batch with loads that take no time (how many images/s pass through Celery, ledger and hand-over?). A real
Redis protocol server, a real Celery worker, messages of 16 keys, batches of 8, alphas of 320 x 320.

Caveats: no S3, no decoding; alphas are flat and pack to almost nothing. Feeder and server share the machine's cores
with the worker. Busy share is the time inside the engine from the first batch to the last.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.machine import facts
from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, Listing, connect
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.settings import Settings, load_settings
from workers.app import make_app, publish
from workers.housekeeping import Housekeeper
from workers.local.process import Child
from workers.local.valkey import Valkey


@dataclass(frozen=True)
class Round:
    images_per_second: float
    cpu_ms_per_image: float
    busy_share: float
    fill: float


@contextlib.contextmanager
def feeding(ledger: Ledger, settings: Settings, pause: float = 0.05) -> Iterator[None]:
    """Housekeeping that looks every `pause` seconds."""
    app, stop = make_app(settings), threading.Event()
    with Housekeeper(ledger, lambda jobs, priority: publish(app, jobs, priority), lambda run: None, settings) as keeper:

        def lead() -> None:
            while not stop.is_set():
                keeper.step()
                keeper.wait(pause)

        thread = threading.Thread(target=lead)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            app.close()


def job(settings: Settings, engine_ms: float, io: float, images: int, chunk: int) -> Round:
    client = connect(settings)
    client.flushall()
    ledger = Ledger(client, settings)
    spec = RunSpec(new_run_id(), "in", "", "out", "", "u2netp", "0" * 64, ("320x320",), chunk=chunk)
    ledger.create(spec)
    keys = [Key(f"{n:07d}.jpg") for n in range(images)]
    for page, start in enumerate(range(0, images, 500)):
        entries = [
            Listing("todo", Item(item_id(spec.output_key(key)), key, ETag("e"), 1, "320x320"), short_hash(key))
            for key in keys[start : start + 500]
        ]
        ledger.list_page(spec.run, page, entries)
    ledger.close_listing(spec.run, images)
    waiting = f"mm:{{{spec.run}}}:waiting:encode"
    env = os.environ | {
        "MATTEMILL_REDIS_URL": settings.redis_url.get_secret_value(),
        "MATTEMILL_BENCH_IO": str(io),
        "MATTEMILL_LOADERS": "32" if io else "1",  # a load that takes no time needs no company
        "MATTEMILL_LOADER_SLOTS": "64",
        "MATTEMILL_ENCODE_MARK": "10000000",
        "MATTEMILL_LOG_FORMAT": "json",
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "bench.instant_worker", f"fake:{engine_ms}"]
        worker = Child(command, name="worker", log=log, env=env)
        with feeding(ledger, settings):
            process = psutil.Process(worker.pid)
            while (first := int(client.zcard(waiting))) < images // 10:  # type: ignore[arg-type]
                time.sleep(0.005)
            start, cpu = time.perf_counter(), process.cpu_times()
            while (last := int(client.zcard(waiting))) < images:  # type: ignore[arg-type]
                time.sleep(0.005)
            seconds, spent = time.perf_counter() - start, process.cpu_times()
        process.terminate()
        process.wait(60)
        figures = next(
            entry
            for line in log.read_text().splitlines()
            if line.startswith("{") and (entry := json.loads(line)).get("event") == "matte_stage_ended"
        )
        worker.__exit__(None, None, None)
    client.close()
    used = spent.user + spent.system - cpu.user - cpu.system
    return Round(
        images_per_second=(last - first) / seconds,
        cpu_ms_per_image=used * 1000 / (last - first),
        busy_share=figures["busy_seconds"] / figures["span_seconds"],
        fill=figures["images"] / figures["batches"],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=16)
    asked = parser.parse_args()
    jobs = {"20 ms engine, 30 ms I/O": (20.0, 0.03), "1 ms engine, no I/O": (1.0, 0.0)}
    rounds: dict[str, list[Round]] = {name: [] for name in jobs}
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
        settings = load_settings(redis_url=server.url, encode_mark=10_000_000, log_level="error")
        for _ in range(asked.rounds):
            for name, (engine_ms, io) in jobs.items():
                rounds[name].append(job(settings, engine_ms, io, asked.images, asked.chunk))
                print(name, rounds[name][-1], file=sys.stderr)
    answer = {
        "bench": "flow",
        "machine": facts(),
        "job": {"images": asked.images, "chunk": asked.chunk, "batch": 8},
        "rounds": {name: [asdict(one) for one in ones] for name, ones in rounds.items()},
        "median": {
            name: {
                field: statistics.median(asdict(one)[field] for one in ones)
                for field in ("images_per_second", "cpu_ms_per_image", "busy_share", "fill")
            }
            for name, ones in rounds.items()
        },
        "caveats": (__doc__ or "").split("Caveats: ")[1].strip(),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
