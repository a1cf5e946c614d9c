"""What can go wrong around the workers: Redis, connections, S3, disks, clocks, messages."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from tests.chaos.day import Day
from tests.chaos.system import System
from tests.proxy import Fault, Rule
from workers.app import lists


def nothing(day: Day) -> None:
    """A quiet day, to compare with."""


def rolling_restart(day: Day) -> None:
    """TERM to every worker, one after the other, twice."""
    codes: list[int] = []
    for share in (5, 2):
        day.wait_for(day.run.counts().listed // share)
        day.harm("TERM to all workers", lambda: codes.extend(day.system.restart()))
    if any(codes):
        day.notes.append(f"exit codes {codes}")


def redis_killed(day: Day, times: int = 3) -> None:
    """kill -9 and start again."""
    for _ in range(times):
        day.wait_for(day.finished() + (day.run.counts().listed - day.finished()) // (times + 2))

        def again() -> None:
            day.system.valkey.kill()
            time.sleep(2)
            day.system.valkey.start()

        day.harm("Redis killed", again)


def redis_paused(day: Day) -> None:
    """SIGSTOP for 20 s."""
    day.wait_for(day.run.counts().listed // 4)
    pid = day.system.valkey.pid or 0

    def pause() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(20)
        os.kill(pid, signal.SIGCONT)

    day.harm("Redis paused", pause)


def connections_cut(day: Day, times: int = 10) -> None:
    """Redis throws everybody out."""
    for _ in range(times):
        day.wait_for(day.finished() + (day.run.counts().listed - day.finished()) // (times + 2), 5)
        day.harm("connections cut", lambda: day.system.client.client_kill_filter(_type="normal", skipme=True))
        day.harm("listeners cut", lambda: day.system.client.client_kill_filter(_type="pubsub", skipme=True))


def s3(fault: Fault, share: float, seconds: float, methods: tuple[str, ...] = ()) -> Callable[[Day], None]:
    """A share of all requests goes wrong for some seconds; only those of these methods, if any are named."""

    def harm(day: Day) -> None:
        day.wait_for(day.run.counts().listed // 5)
        hits = 0

        def rule(method: str, path: str) -> Fault:
            nonlocal hits
            if (methods and method not in methods) or day.random.random() >= share:
                return ""
            hits += 1
            return fault

        day.harm(fault, lambda: _sick(day.system, rule, seconds))
        day.notes.append(f"{hits} requests hit")

    return harm


def _sick(system: System, rule: Rule, seconds: float) -> None:
    system.proxy.rule = rule
    time.sleep(seconds)
    system.proxy.rule = lambda method, path: ""


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    """Not a byte is free in a folder, which must be a small file system of its own."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


def redis_disk_full(day: Day) -> None:
    """Redis cannot write its append-only file for 20 s."""
    day.wait_for(day.run.counts().listed // 4)

    def fill() -> None:
        with _full(day.system.folder / "valkey"):
            time.sleep(20)

    day.harm("disk full", fill)


def home_full(day: Day) -> None:
    """MATTEMILL_HOME is full, and all workers start anew in it."""
    day.wait_for(day.run.counts().listed // 4)

    def fill() -> None:
        with _full(day.system.home):
            codes = day.system.restart()
            day.wait_for(day.run.counts().listed * 3 // 4)
        if any(codes):
            day.notes.append(f"exit codes {codes}")

    day.harm("disk full", fill)


def disk_full_at_the_end(day: Day) -> None:
    """The workers' TMPDIR is full while the reports are written, until ten seconds after they could have been."""
    day.wait_for(day.run.counts().listed // 4)

    def fill() -> None:
        with _full(day.system.folder / "tmp"):
            day.wait_for(day.run.counts().listed, 300)
            time.sleep(10)

    day.harm("disk full", fill)


def memory_full(day: Day) -> None:
    """Redis at its memory limit for 20 s."""
    day.wait_for(day.run.counts().listed // 4)
    client = day.system.client

    def full() -> None:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used - (1 << 20))
        time.sleep(20)
        client.config_set("maxmemory", 0)

    day.harm("memory limit", full)


def clocks_jump(day: Day) -> None:
    """The GPU worker's clock jumps an hour ahead, a CPU worker's an hour back; then a day the other way; then home."""
    for hours in (1, -24, 0):
        day.wait_for(day.finished() + (day.run.counts().listed - day.finished()) // 4)

        def jump(hours: int = hours) -> None:
            for name, sign in (("gpu-0", 1), ("cpu-0", -1)):
                day.system.clock(name).write_text(str(sign * hours * 3600))

        day.harm(f"clocks {hours:+d} h", jump)


def messages_doubled(day: Day, times: int = 20) -> None:
    """Copies of what waits, old ones too, pushed into shuffled lists."""
    client, kept = day.system.client, dict[str, list[bytes]]()
    spec = day.run.spec
    queues = ["encode", *(f"matte.{spec.model}.{size}" for size in spec.size_buckets)]
    copies = 0

    def shuffle() -> None:
        nonlocal copies
        for name in (name for queue in queues for name in lists(queue)):
            with suppress(redis.ResponseError):
                found: list[bytes] = client.lrange(name, 0, -1)  # type: ignore[assignment]
                kept.setdefault(name, []).extend(found[:40])
                more = day.random.sample(kept[name], min(len(kept[name]), 60))
                both = found + more
                day.random.shuffle(both)
                with client.pipeline(transaction=True) as pipe:
                    # What a worker pulls in between is there once more: a copy like the others.
                    pipe.delete(name)
                    if both:
                        pipe.rpush(name, *both)
                    pipe.execute()
                copies += len(more)

    for _ in range(times):
        day.wait_for(day.finished() + (day.run.counts().listed - day.finished()) // (times + 2), 3)
        day.harm("copies in another order", shuffle)
    day.notes.append(f"{copies} copies")


def mount(folder: Path, size: str) -> bool:
    """Make a folder a small file system of its own; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    """The end of `mount`."""
    subprocess.run(["umount", str(folder)], check=False)
