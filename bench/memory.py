"""Where the memory of a job lies: proportional memory of every process, at the moment when all together have most.

    python -m bench.memory [--photos 100] [--megapixels 1 2] [--model cvunet-lite-s]

Every half second the kernel is asked what each process of Mattemill has (PSS of /proc/PID/smaps_rollup: a page that n
processes share counts as 1/n of a page for each). Redis and S3 are left out. `own` is memory that no file backs
(anonymous), `files` code and data mapped from files, `shared` the slots of decoded images.

Caveats: asking costs processor time and misses peaks that are shorter than half a second; the S3 server and Redis run
on the same machine; what a library takes depends on the machine's cores.
"""

import argparse
import contextlib
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

from bench.machine import facts
from bench.photos import crops
from bench.trees import workers
from bench.turns import caveats
from pipeline.ids import Key
from pipeline.log import configure
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from workers.local.stack import LocalStack

_PAUSE = 0.5
_FIELDS = {"Pss": "all", "Pss_Anon": "own", "Pss_File": "files", "Pss_Shmem": "shared"}


class Watch(threading.Thread):
    """Looks at some processes, by name, and all that they have started, until stopped.

    Attributes:
        peak: megabytes by kind of process at the moment when all together had most, and how many processes they are.
    """

    def __init__(self, roots: dict[str, int]) -> None:
        super().__init__(name="watch", daemon=True)
        self._roots = roots
        self._ended = threading.Event()
        self.peak: dict[str, dict[str, float]] = {}

    def total(self) -> float:
        """Megabytes of all processes at the peak."""
        return sum(one["all"] for one in self.peak.values())

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(_PAUSE):
            found = self._look()
            if sum(one["all"] for one in found.values()) > self.total():
                self.peak = found

    def _look(self) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for kind, pid in self._processes():
            with contextlib.suppress(OSError):
                found[kind]["processes"] += 1
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name = _FIELDS.get(line.partition(":")[0])
                    if name is not None:
                        found[kind][name] += int(line.split()[1]) * 1024 / 1_000_000
        return {kind: {name: round(value, 1) for name, value in one.items()} for kind, one in found.items()}

    def _processes(self) -> list[tuple[str, int]]:
        found = []
        for name, pid in self._roots.items():
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                found.append((name, pid))
                for process in root.children():
                    command = process.cmdline()
                    kind = command[command.index("-m") + 1] if "-m" in command else Path(command[0]).name
                    found.append((kind, process.pid))
                    found += [(f"children of {kind}", child.pid) for child in process.children(recursive=True)]
        return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--megapixels", type=float, nargs=2, default=(1.0, 2.0))
    parser.add_argument("--model", default="cvunet-lite-s")
    asked = parser.parse_args()
    configure(load_settings(log_format="console"), role="bench")
    with LocalStack() as stack, tempfile.TemporaryDirectory() as folder:
        os.environ.update(stack.environment())
        settings = load_settings(model=asked.model)
        env = os.environ | {"MATTEMILL_LOG_FORMAT": "json", "MATTEMILL_MODEL": asked.model}
        commands = {
            "supervisor, with the housekeeping": ["worker", "all", "--devices", "cpu"],
            "producer": ["sweep", "s3://photos/", "--to", "s3://out/job/", "--wait"],
        }
        with S3Store(settings) as store:
            for bucket in ("photos", "out"):
                store.create_bucket(bucket)
            for key, body in crops(asked.photos, tuple(asked.megapixels)):
                store.put("photos", Key(key), body, content_type="image/jpeg")
        log = Path(folder) / "log"
        with workers([["producer.commands", *command] for command in commands.values()], env, log) as children:
            watch = Watch({name: child.pid for name, child in zip(commands, children, strict=True)})
            watch.start()
            while (status := children[-1].poll()) is None:
                time.sleep(0.1)
            watch.stop()
        if status:
            raise SystemExit(f"the sweep ended with status {status}:\n{log.read_text()[-2000:]}")
    answer = {
        "bench": "memory",
        "machine": facts(),
        "photos": asked.photos,
        "megapixels": asked.megapixels,
        "model": asked.model,
        "peak_mb": round(watch.total(), 1),
        "peak_mb_by_process": watch.peak,
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
