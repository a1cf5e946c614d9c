"""When a GPU worker pulls messages: not while it has enough in hand, nor while encoding is behind."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import redis
import structlog
from celery import Celery, bootsteps

from pipeline.jobs import ENCODE_QUEUE
from workers.app import length

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.2


class _Hub(Protocol):
    def call_soon(self, callback: Callable[[], object]) -> object: ...


class _QoS(Protocol):
    can_consume: Callable[[], bool]


class Flow:
    """Opens and closes the tap of one worker; waiting happens in the queue, never inside a task. A context manager.

    Args:
        client: Redis, for the lengths of queues.
        queues: the queues that this worker serves.
        in_hand: how many images it has pulled that do not wait for encoding yet, failed or dropped out.
        most: it pulls no message while it has that many.
        high: it pulls none once that many images wait for encoding, until half are left.
        stuck_seconds: how long it may have nothing in hand while its queues are not empty.
        stuck: called once when that happens: the consumer is dead and only a new process helps.
    """

    def __init__(
        self,
        client: redis.Redis,
        queues: Sequence[str],
        in_hand: Callable[[], int],
        most: int,
        high: int,
        stuck_seconds: float,
        stuck: Callable[[], object],
    ) -> None:
        self._client = client
        self._queues = queues
        self._in_hand = in_hand
        self._most = most
        self._high = high
        self._stuck_seconds = stuck_seconds
        self._stuck = stuck
        self._behind = False
        self._encoding = 0
        self._left = 0
        self._lock = threading.Lock()
        self._waits = False
        self._moved = time.monotonic()
        self._hub: _Hub | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="flow", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def install(self, app: Celery) -> None:
        """Put the tap into the worker that `app` will start."""
        flow = self

        class Tap(bootsteps.StartStopStep):
            requires = ("celery.worker.consumer.tasks:Tasks",)

            def start(self, c: Any) -> None:  # Celery's types leave out what a consumer has
                """After every connection: the channel is a new one."""
                flow.attach(c.task_consumer.channel.qos, c.hub)

        app.steps["consumer"].add(Tap)

    def attach(self, qos: _QoS, hub: _Hub) -> None:
        """Guard this channel, and wake this event loop when the tap opens."""
        may = qos.can_consume
        qos.can_consume = lambda: self.open() and may()
        self._hub = hub

    def open(self) -> bool:
        """Whether the worker may pull a message now."""
        # What left since the last look is counted as if it all still waited: the mark is not run over in between.
        behind = self._behind or self._encoding + self._left >= self._high
        self._waits = behind or self._in_hand() >= self._most
        return not self._waits

    def moved(self, images: int) -> None:
        """That many images wait for encoding now."""
        with self._lock:
            self._left += images

    def ended(self) -> None:
        """A message has ended: the worker may pull again."""
        self._moved = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        if self._waits and self._hub is not None and self.open():
            self._hub.call_soon(lambda: None)  # the event loop asks again on its next turn

    def look(self) -> None:
        """Look at the queues once."""
        left = self._left
        self._encoding = length(self._client, ENCODE_QUEUE)
        with self._lock:
            self._left -= left
        behind = self._encoding >= self._high if not self._behind else self._encoding > self._high // 2
        if behind != self._behind:
            log.info("encode_behind" if behind else "encode_caught_up", waiting=self._encoding)
        self._behind = behind
        self._wake()
        if behind or self._in_hand() or not any(length(self._client, queue) for queue in self._queues):
            self._moved = time.monotonic()
        elif time.monotonic() - self._moved > self._stuck_seconds:
            log.critical("consumer_stuck", seconds=self._stuck_seconds, queues=list(self._queues))
            self._stuck()

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                self.look()
            except redis.RedisError as error:
                self._moved = time.monotonic()
                log.warning("queues_unseen", error=str(error))
                self._stop.wait(1)
