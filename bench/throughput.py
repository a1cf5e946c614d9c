"""How busy the cores are with a job, and how much of that is work that nobody could leave out.

    python -m bench.throughput [--photos 1000] [--megapixels 1 2] [--model u2netp] [--away 0]
    python -m bench.throughput_plot

Seconds run from the first call of the producer to the last output. Busy: the share of all cores' time in which anything
ran on the machine. Efficiency: the sum of the processor seconds that one thread needs for the unavoidable steps of a
sample of the photos, each alone (fetch, decode and letterbox, infer, cutout, upload), divided by cores and seconds. The
S3 server shares the cores: `efficiency_with_s3` also counts as unavoidable what it needs for one GET and one PUT.
`first_seconds`: from the call to the first image that is done. `peak_mb`: proportional memory of the workers and all
that they start, looked at after 1, 2.5, 4.75 and so on, then every ten seconds: a look takes some 30 ms, which are
time of the cores. With `--away MS` each answer of S3 reaches the workers so many milliseconds later (`bench.far`).

Caveats: Redis, S3 and whatever else runs on the machine count as busy, so let nothing else run; S3 is on loopback, so
there is hardly a network to wait for; the unavoidable steps are measured with one half of the sample before the job
and the other half after it, on a machine that is quieter, and whose speed may be another in between.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import psutil
from rich.console import Console

from bench.far import far_away
from bench.machine import facts
from bench.photos import crops, model_image
from bench.trees import Tree, cpu_seconds, workers
from bench.turns import caveats
from model.codecs.scratch import Scratch
from model.cutout import make_cutout, warm_up
from model.engines.onnx import OnnxEngine
from model.preprocess import content, settled
from model.store import ModelStore
from pipeline.ids import Key
from pipeline.log import configure
from pipeline.recipe import Recipe
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer import Producer
from workers.local.stack import LocalStack

LARGEST = 1 << 26
LOOKS = 1.0, 1.5, 10.0  # seconds until the first look; growth of the pause, and its end
SERVER = "S3 server"
console = Console(stderr=True)


@dataclass(frozen=True)
class Done:
    """What the job took; processor seconds of our own processes, and of every kind of process by name."""

    seconds: float
    first_seconds: float
    cpu_seconds: float
    busy: float
    peak_mb: float
    by_process: dict[str, float]


def job(
    settings: Settings, store: S3Store, env: dict[str, str], log: Path, count: int, model: str, stack: LocalStack
) -> Done:
    commands = [["producer.commands", "worker", "all", "--devices", "cpu"]]
    with workers(commands, env, log) as children:
        producer = Producer(settings, store)
        producer.sweep("s3://warm/", "s3://out/warm/", model=model, force=True).wait(stall_timeout=300)
        kinds = by_process(stack, [child.pid for child in children])
        before, start, idle = cpu_seconds(children), time.perf_counter(), psutil.cpu_times()
        tree = Tree([child.pid for child in children])
        run = producer.sweep("s3://photos/", "s3://out/job/", model=model)
        first, peak = 0.0, 0.0
        pause, growth, longest = LOOKS
        look = start + pause
        while (finished := run.counts().finished) < count:
            moment = time.perf_counter()
            first = first or (moment - start if finished else 0.0)
            if moment > look:
                tree.look()
                peak, pause = max(peak, tree.memory_mb()), min(pause * growth, longest)
                look = moment + pause
            time.sleep(0.3 if first else 0.01)
        seconds, now = time.perf_counter() - start, psutil.cpu_times()
        waited = (now.idle - idle.idle) + (now.iowait - idle.iowait)
        cpu = cpu_seconds(children) - before
        after = by_process(stack, [child.pid for child in children])
        summary = run.wait()
        if summary.done != count:
            raise SystemExit(f"{summary.done} of {count} done: {summary.failures[:3]}")
    spent = {kind: used - kinds.get(kind, 0.0) for kind, used in after.items()}
    return Done(seconds, first, cpu, 1 - waited / psutil.cpu_count() / seconds, peak, spent)


def by_process(stack: LocalStack, supervisors: list[int]) -> dict[str, float]:
    """Processor seconds so far of every kind of process: the servers, this one, and what supervisors have started."""
    spent = {"producer": time.process_time()}

    def add(kind: str, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            spent[kind] = spent.get(kind, 0.0) + times.user + times.system

    for kind, pid in (("Redis", stack.valkey.pid), ("S3", stack.seaweed.pid)):
        add(kind, psutil.Process(pid))
    for pid in supervisors:
        supervisor = psutil.Process(pid)
        add("supervisors", supervisor)
        for process in supervisor.children():
            command = process.cmdline()
            kind = command[command.index("-m") + 1] if "-m" in command else Path(command[0]).name
            add(kind, process)
            for child in process.children(recursive=True):
                add(f"children of {kind}", child)
    return spent


class Steps:
    """Adds up the processor seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def start(self) -> None:
        self._last = time.process_time()

    def end(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def unavoidable(store: S3Store, keys: list[str], settings: Settings, server_pid: int) -> dict[str, float]:
    """Processor seconds of each step for one image, the mean over `keys`; and, as SERVER, of the S3 server."""
    models = ModelStore(settings.home)
    path, spec = models.path(settings.model), models.spec(settings.model)
    with OnnxEngine(path, spec, max_batch=1, threads=1) as engine:
        return _unavoidable(store, keys, engine, server_pid)


def _unavoidable(store: S3Store, keys: list[str], engine: OnnxEngine, server_pid: int) -> dict[str, float]:
    cv2.setNumThreads(1)
    warm_up()
    server = psutil.Process(server_pid)
    size = engine.size_buckets[0]
    engine.warm_up()
    steps, scratch = Steps(), Scratch()
    before = server.cpu_times()
    for key in keys:
        steps.start()
        body = store.get("photos", Key(key), max_bytes=LARGEST).body
        steps.end("fetch")
        image, box = model_image(body, size)
        steps.end("decode and letterbox")
        alpha = settled(content(engine.infer(image[None])[0], box))
        steps.end("infer")
        made = make_cutout(body, alpha, Recipe(), None, 100, scratch=scratch)
        steps.end("cutout")
        store.put("out", Key(f"alone/{key}"), made.body, content_type="image/png")
        steps.end("upload")
    after = server.cpu_times()
    steps.seconds[SERVER] = after.user + after.system - before.user - before.system
    return {name: seconds / len(keys) for name, seconds in steps.seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--megapixels", type=float, nargs=2, default=[1.0, 2.0])
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--model", default="u2netp")
    parser.add_argument("--away", type=float, default=0.0, help="milliseconds to S3 and back, beyond what there are")
    asked = parser.parse_args()
    if min(asked.sample, asked.photos) < 2:
        parser.error("a sample has at least two photos")
    configure(load_settings(log_format="console"), role="bench")
    with LocalStack() as stack, tempfile.TemporaryDirectory() as folder:
        os.environ.update(stack.environment())
        settings = load_settings(model=asked.model)
        env = os.environ | {"MATTEMILL_LOG_FORMAT": "json", "MATTEMILL_MODEL": asked.model}
        with S3Store(settings) as store:
            for bucket in ("photos", "warm", "out"):
                store.create_bucket(bucket)
            keys = []
            for key, body in crops(asked.photos, tuple(asked.megapixels)):
                keys.append(key)
                store.put("photos", Key(key), body, content_type="image/jpeg")
                if len(keys) <= 4:
                    store.put("warm", Key(key), body, content_type="image/jpeg")
            sample = keys[:: max(1, len(keys) // asked.sample)]
            assert stack.seaweed.pid
            console.print("the steps alone")
            before = unavoidable(store, sample[::2], settings, stack.seaweed.pid)
            console.print("the job")
            with far_away(stack.seaweed.endpoint_url, asked.away) as url:
                env["MATTEMILL_S3_ENDPOINT_URL"] = url
                done = job(settings, store, env, Path(folder) / "workers.log", len(keys), asked.model, stack)
            console.print("the steps alone")
            after = unavoidable(store, sample[1::2], settings, stack.seaweed.pid)
    steps = {name: (before[name] + after[name]) / 2 for name in before}
    of_server = steps.pop(SERVER)
    needed = sum(steps.values()) * len(keys)
    capacity = len(os.sched_getaffinity(0)) * done.seconds
    answer = {
        "bench": "throughput",
        "machine": facts(),
        "photos": len(keys),
        "megapixels": asked.megapixels,
        "model": asked.model,
        "s3_away_ms": asked.away,
        "images_per_second": round(len(keys) / done.seconds, 3),
        "first_seconds": round(done.first_seconds, 2),
        "peak_mb": round(done.peak_mb),
        "busy": round(done.busy, 3),
        "efficiency": round(needed / capacity, 3),
        "efficiency_with_s3": round((needed + of_server * len(keys)) / capacity, 3),
        "efficiency_of_our_own_cpu": round(needed / done.cpu_seconds, 3),
        "unavoidable_cpu_ms_an_image": {name: round(1000 * seconds, 2) for name, seconds in steps.items()},
        "s3_cpu_ms_an_image": round(1000 * of_server, 2),
        "cpu_ms_an_image_by_process": {
            kind: round(1000 * seconds / len(keys), 2) for kind, seconds in done.by_process.items()
        },
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
