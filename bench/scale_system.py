"""All processes of a point of `bench.scale`, started, warmed up and ended."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import boto3

from bench.redis_load import family, ports
from bench.synthetic_store import SOURCES, source, tiny_photo
from pipeline.ids import RunId
from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings, load_settings
from workers.local.process import Child
from workers.local.stack import LocalStack

WARM = 256


@dataclass(frozen=True)
class Point:
    images: int = 10_000
    engine_ms: float = 5.0
    chunk: int = 16
    gpus: int = 1
    matte_only: bool = False
    real: bool = False

    @property
    def name(self) -> str:
        kind = "matte" if self.matte_only else "real" if self.real else "whole"
        return f"{kind}, {self.images} images, {self.engine_ms:g} ms, K {self.chunk}, {self.gpus} GPU workers"


class System:
    """All processes of a point, warm."""

    def __init__(self, point: Point, stack: LocalStack, folder: Path, closing: ExitStack) -> None:
        self.point = point
        self._log = folder / "log"
        self._env = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MATTEMILL_"))}
        self._env |= stack.environment() | {
            "MATTEMILL_HOME": str(folder / "home"),
            "MATTEMILL_CHUNK": str(point.chunk),
            "MATTEMILL_LOG_FORMAT": "json",
        }
        if point.matte_only:
            self._env["MATTEMILL_ENCODE_MARK"] = "10000000"
        self.settings = self._load_settings()
        self.client = connect(self.settings)
        closing.callback(self.client.close)
        self.ledger = Ledger(self.client, self.settings)
        instant = {} if point.real else {"MATTEMILL_LOADERS": "1", "MATTEMILL_LOADER_SLOTS": "64"}
        module = "workers.gpu" if point.real else "bench.instant_worker"
        self._gpus = [
            closing.enter_context(self._child(f"gpu {n}", [module, f"fake:{point.engine_ms:g}"], instant))
            for n in range(point.gpus)
        ]
        self._encoder = None
        if not point.matte_only:
            cores = str(len(os.sched_getaffinity(0)))
            command = ["workers.cpu", cores] if point.real else ["bench.scale_part", "encoder", cores]
            self._encoder = closing.enter_context(self._child("encoder", command))
        self._valkey = cast(int, stack.valkey.pid)
        self._store = "real" if point.real else "made-up"
        log = closing.enter_context(self._log.open("a"))
        self._house = subprocess.Popen(
            [sys.executable, "-m", "bench.scale_part", "house", self._store],
            stdin=subprocess.PIPE, env=self._env, text=True, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        closing.callback(self._end_house)

    def _load_settings(self) -> Settings:
        env = self._env
        return load_settings(
            redis_url=env["MATTEMILL_REDIS_URL"], s3_endpoint_url=env["MATTEMILL_S3_ENDPOINT_URL"], log_level="error"
        )

    def _child(self, name: str, command: list[str], env: dict[str, str] | None = None) -> Child:
        return Child([sys.executable, "-m", *command], name=name, log=self._log, env=self._env | (env or {}))

    def _end_house(self) -> None:
        assert self._house.stdin is not None
        self._house.stdin.close()
        self._house.wait(60)

    def feed(self, go: bool) -> None:
        """Let the feeder go, or hold it."""
        assert self._house.stdin is not None
        self._house.stdin.write("go\n" if go else "hold\n")
        self._house.stdin.flush()

    def sweep(self, images: int, prefix: str) -> dict[str, object]:
        command = [sys.executable, "-m", "bench.scale_part", "producer", str(images), prefix, self._store]
        done = subprocess.run(command, env=self._env, stdout=subprocess.PIPE, text=True, check=True)
        return cast("dict[str, object]", json.loads(done.stdout))

    def roles(self) -> dict[int, str]:
        """What each process is; those of one kind are told apart by a number."""
        found: dict[int, str] = {}
        for number, gpu in enumerate(self._gpus):
            found |= family(f"matte {number}", gpu.pid, f"loaders {number}")
        if self._encoder is not None:
            found |= family("encode parent", self._encoder.pid, "encode children")
        return found | {self._house.pid: "housekeeping", self._valkey: "redis"}

    def finished(self, run: RunId) -> int:
        if self.point.matte_only:
            return int(self.client.zcard(f"mm:{{{run}}}:waiting:encode"))
        return self.ledger.counts(run).finished

    def ready(self) -> bool:
        """Whether every GPU worker waits for messages."""
        waits = {one["addr"].rpartition(":")[2] for one in self.client.client_list() if one["cmd"] == "brpop"}
        by_role = {role for port, role in ports(self.roles()).items() if str(port) in waits}
        return {f"matte {n}" for n in range(self.point.gpus)} <= by_role


def until(predicate: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise SystemExit(f"not so within {seconds:g} s; see the log of the workers")
        time.sleep(0.02)


@contextmanager
def warm(point: Point) -> Iterator[System]:
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        stack = closing.enter_context(LocalStack())
        if point.real:
            upload(stack, point.images)
        system = System(point, stack, folder, closing)
        system.feed(go=True)
        until(system.ready, 60)
        images = min(WARM * point.gpus, point.images)
        run = RunId(str(system.sweep(images, "in/" if point.real else "warm/")["run"]))
        if point.matte_only:
            until(lambda: system.finished(run) >= images, 120)
        else:  # with its reports
            until(lambda: system.ledger.counts(run).state == "finished", 120)
        system.feed(go=False)
        yield system


def upload(stack: LocalStack, images: int) -> None:
    env = stack.environment()
    client = boto3.client(
        "s3", endpoint_url=env["MATTEMILL_S3_ENDPOINT_URL"], aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"],
    )  # fmt: skip
    for bucket in (SOURCES, "cutouts"):
        client.create_bucket(Bucket=bucket)
    with ThreadPoolExecutor(4) as pool:
        keys = [source("in/", number).key for number in range(images)]
        list(pool.map(lambda n: client.put_object(Bucket=SOURCES, Key=keys[n], Body=tiny_photo(n)), range(images)))
    client.close()
