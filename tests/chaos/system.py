"""The whole system on this machine, an orchestrator that starts again whoever is gone, and the means to do harm."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import redis

from pipeline.ledger import Ledger, connect
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer import Producer
from tests.chaos.pictures import Picture, put_pictures
from tests.proxy import SickProxy
from workers.local.seaweed import Seaweed
from workers.local.valkey import Valkey

ROOT = Path(__file__).parents[2]
AIM = Path(__file__).parent / "aim"
BUCKET = "chaos"
_LOOK_SECONDS = 0.3

WORKERS: Mapping[str, tuple[str, ...]] = {
    "gpu-0": ("worker", "gpu", "--devices", "fake:5"),
    "cpu-0": ("worker", "cpu", "--concurrency", "2"),
    "cpu-1": ("worker", "cpu", "--concurrency", "1"),
}


class System:
    """Servers, workers and pictures; a context manager, to be entered from the main thread.

    Args:
        folder: an empty folder for all of it.
        count: pictures in the bucket.
        variables: more of the environment of every process, such as shorter timeouts.
    """

    def __init__(self, folder: Path, count: int, variables: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.aims = folder / "aims"
        self.home = folder / "home"
        self.starts: dict[str, int] = {}
        self._count = count
        self._variables = dict(variables or {})
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closing = ExitStack()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._orchestrate, name="orchestrator", daemon=True)

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            for name in ("valkey", "seaweed", "home", "aims", "logs", "tmp"):
                (self.folder / name).mkdir(exist_ok=True)
            self.valkey = closing.enter_context(Valkey(self.folder / "valkey", persistent=True))
            self.seaweed = closing.enter_context(Seaweed(self.folder / "seaweed"))
            self.proxy = SickProxy(self.seaweed.endpoint_url)
            closing.callback(self.proxy.close)
            theirs = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MATTEMILL_"))}
            keys = {
                "AWS_ACCESS_KEY_ID": self.seaweed.access_key,
                "AWS_SECRET_ACCESS_KEY": self.seaweed.secret_key,
                "AWS_REGION": "us-east-1",
            }
            self.environment = theirs | keys | {
                "MATTEMILL_REDIS_URL": self.valkey.url,
                "MATTEMILL_S3_ENDPOINT_URL": self.proxy.url,
                "MATTEMILL_HOME": str(self.home),
                "MATTEMILL_SOURCE_CACHE_BYTES": str(4 << 20),  # the disk may be one of 16 MB
                "MATTEMILL_LOG_FORMAT": "json",
                "TMPDIR": str(self.folder / "tmp"),
                "CHAOS_AIM": str(self.aims),
                "PYTHONPATH": f"{AIM}{os.pathsep}{ROOT}",
                **self._variables,
            }  # fmt: skip
            os.environ.update(keys)
            short = {k.removeprefix("MATTEMILL_").lower(): v for k, v in self._variables.items()}
            self.settings: Settings = load_settings(
                redis_url=self.valkey.url, s3_endpoint_url=self.seaweed.endpoint_url, home=self.home, **short
            )
            self.client = connect(self.settings)
            closing.callback(self.client.close)
            self.ledger = Ledger(self.client, self.settings)
            self.store = closing.enter_context(S3Store(self.settings))
            self.producer = Producer(self.settings, self.store)
            self.store.create_bucket(BUCKET)
            self.pictures: list[Picture] = put_pictures(self.store, BUCKET, self._count)
            closing.callback(self._end)
            for name in WORKERS:
                self._start(name)
            self._watch.start()
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    # --- workers

    def spawn(self, name: str, *arguments: str, extra: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """`mattemill ARGUMENTS`; what it says goes to logs/<name>.log."""
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "producer.commands", *arguments],
                env={**self.environment, "CHAOS_CLOCK": str(self.clock(name)), **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def clock(self, name: str) -> Path:
        """The file that says by how many seconds the clock of a process, and of its children, is ahead."""
        return self.folder / f"clock-{name}"

    def worker(self, name: str) -> psutil.Process:
        """The supervisor of this name, as it runs now."""
        with self._lock:
            return psutil.Process(self._workers[name].pid)

    def restart(self) -> list[int]:
        """TERM to one worker after the other, each started again once it has ended; their exit codes."""
        codes = []
        for name in WORKERS:
            with self._lock:
                old = self._workers[name]
                old.terminate()
                codes.append(old.wait(90))
                self._start_locked(name)
        return codes

    def victims(self, role: str) -> list[psutil.Process]:
        """The processes that play this role now."""
        found: list[psutil.Process] = []
        for name in WORKERS:
            with suppress(psutil.Error):
                supervisor = self.worker(name)
                family = [supervisor, *supervisor.children(recursive=True)]
                if role == "leader":
                    found += [supervisor] if name.startswith("cpu") and self._leads(supervisor) else []
                    continue
                for one in family:
                    with suppress(psutil.Error):  # one that is dead, and that nobody has asked for yet, has no name
                        found += [one] if _role(one, supervisor) == role else []
        return found

    def _leads(self, supervisor: psutil.Process) -> bool:
        ports = {
            str(one["addr"]).rpartition(":")[2]
            for one in self.client.client_list()
            if one["cmd"] in ("brpop", "bzpopmin")
        }
        return any(str(link.laddr.port) in ports for link in supervisor.net_connections() if link.laddr)

    def _start(self, name: str) -> None:
        with self._lock:
            self._start_locked(name)

    def _start_locked(self, name: str) -> None:
        self.starts[name] = self.starts.get(name, 0) + 1
        self._workers[name] = self.spawn(name, *WORKERS[name])

    def _orchestrate(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            for name in WORKERS:
                with self._lock:
                    if self._workers[name].poll() is not None and not self._stop.is_set():
                        self._start_locked(name)

    def _end(self) -> None:
        self._stop.set()
        if self._watch.is_alive():
            self._watch.join()
        with self._lock:
            workers = list(self._workers.values())
        families = [psutil.Process(one.pid).children(recursive=True) for one in workers if one.poll() is None]
        for one in workers:
            one.terminate()
        for one in workers:
            try:
                one.wait(60)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        for member in (member for family in families for member in family):
            with suppress(psutil.Error):
                member.kill()

    # --- seeing

    def held(self, run: str) -> set[bytes]:
        """Ids of what is in somebody's hands."""
        return set(self.client.zrange(f"mm:{{{run}}}:held", 0, -1))

    def unfinished(self, run: str, ids: set[bytes]) -> set[bytes]:
        """Those of `ids` that have no outcome yet."""
        names = list(ids)
        found = self.client.hmget(f"mm:{{{run}}}:items", names) if names else []
        return {name for name, record in zip(names, found, strict=True) if record is not None}


def _role(one: psutil.Process, supervisor: psutil.Process) -> str:
    command = one.cmdline()
    if one.pid == supervisor.pid:
        return "GPU supervisor" if "gpu" in command else "CPU supervisor"
    if "workers.gpu" in command:
        return "GPU worker"
    if "workers.loading" in command:
        return "loader" if "workers.loading" in psutil.Process(one.ppid()).cmdline() else "origin of loaders"
    if "workers.finisher" in command:
        return "finisher"
    if "workers.cpu" in command:
        return "encode parent" if one.ppid() == supervisor.pid else "encode child"
    return ""


def wait_until(predicate: Callable[[], object], timeout: float, pause: float = 0.05) -> bool:
    """Whether it became true in time; Redis may be away in between."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with suppress(redis.RedisError, psutil.Error):
            if predicate():
                return True
        time.sleep(pause)
    return False


def kill(process: psutil.Process) -> None:
    """As `kill -9`."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
