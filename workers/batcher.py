"""Groups images of one size into batches for the engine. No thread and no clock of its own."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.ids import SizeBucket

Image = NDArray[np.uint8]
Label = TypeVar("Label")


class ClosedError(Exception):
    """The batcher takes no more images."""


@dataclass(frozen=True, slots=True)
class Matte:
    """What the engine made of an image: its alpha, uint8 [H, W], and the seconds it waited and was computed."""

    alpha: Image
    waited: float
    computed: float


@dataclass(frozen=True, slots=True)
class Waiting(Generic[Label]):
    """An image that waits for its batch; `label` says whose it is, `future` gets its matte."""

    image: Image  # [H, W, 3] uint8
    since: float
    label: Label
    future: Future[Matte]


@dataclass(frozen=True, slots=True)
class Batch(Generic[Label]):
    """Images of one size bucket, in the order in which they came."""

    size_bucket: SizeBucket
    items: tuple[Waiting[Label], ...]


class DynamicBatcher(Generic[Label]):
    """A queue per size bucket; hands out full batches first, and no image waits past its delay while it is asked.

    An image that was submitted to run alone is a batch of its own, due at once and first.
    Otherwise the first of these is due: the size whose oldest image has waited for `deadline`, so that none starves
    behind full batches; a full batch, of the size whose oldest image waits longest; when no batch is full, the size
    whose oldest image has waited for `max_delay`; when the batcher is closed, what is left.

    Args:
        max_batch: the most images in a batch.
        max_delay: seconds that the first image of a batch waits for company while the engine has nothing better to do.
        capacity: images that may wait; `submit` blocks beyond.
        deadline: seconds after which an image goes before full batches of other sizes.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        max_batch: int,
        max_delay: float,
        capacity: int,
        deadline: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_batch < 1 or capacity < max_batch:
            raise ValueError(f"max_batch is 1 to capacity; got {max_batch} of {capacity}")
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._capacity = capacity
        self._deadline = max(deadline, max_delay)
        self._clock = clock
        self._queues: dict[SizeBucket, deque[Waiting[Label]]] = {}
        self._loners: deque[Waiting[Label]] = deque()
        self._count = 0
        self._closed = False
        lock = threading.Lock()
        self._filled, self._room = threading.Condition(lock), threading.Condition(lock)

    def submit(self, image: Image, label: Label, *, alone: bool = False) -> Future[Matte]:
        """Queue an image, uint8 [H, W, 3]; it stays the caller's until the future has its answer.

        Raises:
            ClosedError: after `close`.
        """
        item = Waiting(image, self._clock(), label, Future[Matte]())
        with self._room:
            self._room.wait_for(lambda: self._closed or self._count < self._capacity)
            if self._closed:
                raise ClosedError
            size_bucket = SizeBucket(image.shape[0], image.shape[1])
            queue = self._loners if alone else self._queues.setdefault(size_bucket, deque())
            queue.append(item)
            self._count += 1
            # Only what may change the answer wakes the engine: a first image sets a deadline, a last one fills a batch.
            if alone or len(queue) == 1 or len(queue) % self._max_batch == 0:
                self._filled.notify()
        return item.future

    def poll(self) -> Batch[Label] | None:
        """The batch that is due now, or None. Cancelled images drop out here."""
        with self._filled:
            return self._cut(idle=True)

    def take(self, idle: Callable[[], bool] = lambda: True) -> Batch[Label] | None:
        """Wait for the next batch; None when the batcher is closed and empty.

        Args:
            idle: whether the engine has nothing else to do; until then a batch that is not full may still fill up.
        """
        with self._filled:
            while True:
                free = idle()
                batch = self._cut(free)
                if batch is not None:
                    return batch
                if self._closed and not self._count:
                    return None
                self._filled.wait(self._next_deadline(free))

    def wake(self) -> None:
        """Have `take` ask again whether the engine is idle."""
        with self._filled:
            self._filled.notify()

    def close(self) -> None:
        """Take no more images; those that wait are still handed out, at once."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._room.notify_all()

    def __len__(self) -> int:
        """Images that wait."""
        return self._count

    def _due(self, idle: bool) -> SizeBucket | None:
        now = self._clock()
        waiting = [(queue[0].since, size_bucket) for size_bucket, queue in self._queues.items() if queue]
        if not waiting:
            return None
        since, oldest = min(waiting, key=lambda entry: entry[0])
        if now - since >= self._deadline:
            return oldest
        full = [entry for entry in waiting if len(self._queues[entry[1]]) >= self._max_batch]
        if full:
            return min(full, key=lambda entry: entry[0])[1]
        return oldest if self._closed or (idle and now - since >= self._max_delay) else None

    def _cut(self, idle: bool) -> Batch[Label] | None:
        """Take the first batch that is due and not all cancelled out of its queue."""
        while True:
            if self._loners:
                queue, most = self._loners, 1
            else:
                size_bucket = self._due(idle)
                if size_bucket is None:
                    return None
                queue, most = self._queues[size_bucket], self._max_batch
            items: list[Waiting[Label]] = []
            while queue and len(items) < most:
                item = queue.popleft()
                self._count -= 1
                if item.future.set_running_or_notify_cancel():
                    items.append(item)
            self._room.notify(most)
            if items:
                height, width = items[0].image.shape[:2]
                return Batch(SizeBucket(height, width), tuple(items))

    def _next_deadline(self, idle: bool) -> float | None:
        oldest = [queue[0].since for queue in self._queues.values() if queue]
        delay = self._max_delay if idle else self._deadline
        return max(min(oldest) + delay - self._clock(), 0) if oldest else None
