"""Which workers are alive, from the heartbeats that they publish; listening changes nothing in Redis.

Asking (Celery's ping) would: a question and its answers are keys in Redis.
"""

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

import redis
from redis.client import PubSub

_CHANNEL = "/{db}.celeryev/worker.*"  # how kombu names a fanout exchange's channels
_SILENT = 10.0
"""Seconds: a worker speaks every 2, a busy one later."""
_FORGET = 600.0
_MOST, _NAME = 1000, 200


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker said last.

    Attributes:
        name: such as "gpu-4711@host".
        role: "gpu", "cpu" or "".
        host: its machine.
        engine: what it runs the network with; "" for a CPU worker.
        active: tasks it works on; each has one or more images.
        processed: tasks it has taken since it started.
        alive: whether it was heard lately.
    """

    name: str
    role: str
    host: str
    engine: str
    active: int
    processed: int
    alive: bool = True


class Heartbeats:
    """Listens in a thread of its own; a context manager. Remembers at most 1000 workers, each for ten minutes.

    Args:
        client: the broker's Redis.
        clock: seconds that only grow.
    """

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[str, tuple[float, Worker]] = {}
        self._since = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="heartbeats", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)

    @property
    def settled(self) -> bool:
        """Whether it has listened long enough for every living worker to have spoken."""
        return self._clock() - self._since >= _SILENT

    def workers(self) -> list[Worker]:
        """Every worker heard in the last ten minutes, by name."""
        now = self._clock()
        with self._lock:
            self._heard = {name: entry for name, entry in self._heard.items() if now - entry[0] < _FORGET}
            heard = list(self._heard.values())
        workers = [
            Worker(
                one.name, one.role, one.host, one.engine, one.active, one.processed, one.alive and now - at < _SILENT
            )
            for at, one in heard
        ]
        return sorted(workers, key=lambda worker: worker.name)

    def hear(self, data: bytes) -> None:
        """Take one message as it comes from the channel; what is no heartbeat is left out."""
        worker = _parse(data)
        with self._lock:
            if worker is not None and (worker.name in self._heard or len(self._heard) < _MOST):
                self._heard[worker.name] = (self._clock(), worker)

    def _listen(self) -> None:
        channel = _CHANNEL.format(db=self._client.connection_pool.connection_kwargs.get("db", 0))
        while not self._stop.is_set():
            try:
                with cast(Callable[..., PubSub], self._client.pubsub)(ignore_subscribe_messages=True) as reader:
                    reader.psubscribe(channel)
                    while not self._stop.is_set():
                        message = reader.get_message(timeout=0.5)
                        if message is not None:
                            self.hear(message["data"])
            except (redis.RedisError, OSError):  # Redis may be away for a while
                self._stop.wait(1)


def _parse(data: bytes) -> Worker | None:
    try:
        event = json.loads(base64.b64decode(json.loads(data)["body"]))
        name = str(event["hostname"])[:_NAME]
        return Worker(
            name,
            next((role for role in ("gpu", "cpu") if name.startswith(f"{role}-")), ""),
            name.partition("@")[2],
            str(event.get("engine", ""))[:_NAME],
            int(event.get("active", 0)),
            int(event.get("processed", 0)),
            event["type"] != "worker-offline",
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
