"""The pool of loader processes of a GPU worker, seen from the parent."""

import contextlib
import json
import mmap
import os
import queue
import signal
import threading
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MattemillError
from pipeline.ids import SizeBucket
from workers.last_words import ending
from workers.loads import Loaded, Request, answer
from workers.nursery import Nursery

_START_SECONDS = 60.0


class LoaderDiedError(MattemillError):
    """The process that worked on this image crashed, was killed, or took too long."""


class LoaderStoppedError(MattemillError):
    """The process that worked on this image was told to stop from outside: that says nothing of the image."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A loaded image in shared memory; give it back with `Loaders.free`."""

    index: int
    image: NDArray[np.uint8]  # [H, W, 3] uint8
    loaded: Loaded


class Loaders:
    """Child processes that each load one image at a time into slots of one anonymous shared memory.

    Slots bound the memory: `load` waits for a free one. A child that crashes or passes the deadline fails the one image
    that it worked on with `LoaderDiedError` and is replaced.

    Args:
        count: child processes.
        slots: images in shared memory.
        largest: the largest size bucket.
        deadline: seconds for one image.
    """

    def __init__(self, count: int, slots: int, largest: SizeBucket, deadline: float) -> None:
        self._slot_bytes = largest.height * largest.width * 3
        self._deadline = deadline
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(slots):
            self._free.put(index)
        size = self._slot_bytes * slots
        self._fd = os.memfd_create("mattemill-slots", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, size)
        self._memory = mmap.mmap(self._fd, size)
        self._pixels = np.frombuffer(self._memory, np.uint8)
        self._requests: queue.SimpleQueue[tuple[Request, Future[Slot]] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._nursery = Nursery(self._fd, size)
        self._last = threading.Barrier(count)
        self._threads = [threading.Thread(target=self._run, name=f"loader-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load(self, request: Request) -> Future[Slot]:
        """Ask for an image. The future raises `ItemError`, `LoaderDiedError` or `LoaderStoppedError`."""
        future: Future[Slot] = Future()
        self._requests.put((request, future))
        return future

    def free(self, slot: Slot) -> None:
        """Give a slot back once its pixels are used."""
        self._free.put(slot.index)

    def bytes_in_use(self) -> int:
        """Shared memory that holds images, or waits for what is being loaded, in bytes."""
        return len(self._memory) - self._free.qsize() * self._slot_bytes

    def close(self) -> None:
        """End the children; images that are asked for and not begun fail as cancelled."""
        if self._closing.is_set():
            return
        self._closing.set()
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()
        self._nursery.close()
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._requests.get_nowait()
                if entry is not None:
                    entry[1].cancel()
        os.close(self._fd)

    def _run(self) -> None:
        child: _Child | None = None
        while (entry := self._requests.get()) is not None:
            request, future = entry
            if self._closing.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            index = self._free.get()
            try:
                if child is not None and child.ended_idle():
                    child.end()  # killed with no image in its hands: none is to blame
                    child = None
                if child is None:
                    child = _Child(self._nursery)
                loaded = child.ask(request, index * self._slot_bytes, self._slot_bytes, self._deadline)
                future.set_result(Slot(index, self._view(index, SizeBucket.parse(loaded.size_bucket)), loaded))
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to this image, and the thread must live
                self._free.put(index)
                if child is not None and not child.alive:
                    child.end()
                    child = None
                future.set_exception(error)
        if child is not None:
            child.end()
        self._last.wait()  # all loaders would end with the thread that has started the process they are forked from

    def _view(self, index: int, size: SizeBucket) -> NDArray[np.uint8]:
        start = index * self._slot_bytes
        count = size.height * size.width * 3
        return self._pixels[start : start + count].reshape(size.height, size.width, 3)


class _Child:
    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._process = nursery.fork()
        self._connection = self._process.pipe
        self.alive = True
        try:
            self._receive(_START_SECONDS, "start")
        except (LoaderDiedError, LoaderStoppedError) as error:
            self._connection.close()
            # No image was in its hands yet: none is to blame.
            raise MattemillError(f"No loader can start: {error}") from error

    def ended_idle(self) -> bool:
        return self._connection.poll()  # it says nothing unasked

    def ask(self, request: Request, offset: int, count: int, deadline: float) -> Loaded:
        try:
            self._connection.send_bytes(json.dumps({**asdict(request), "offset": offset, "count": count}).encode())
        except OSError as error:
            raise self._died() from error
        return answer(self._receive(deadline, "load the image"))

    def end(self) -> None:
        self._connection.close()
        if self.alive:
            self._nursery.end(self._process)

    def _receive(self, deadline: float, what: str) -> bytes:
        try:
            if not self._connection.poll(deadline):
                self._died()
                raise LoaderDiedError(f"the loader took more than {deadline:g} s to {what}")
            return self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> LoaderDiedError | LoaderStoppedError:
        self.alive = False
        status = self._nursery.end(self._process)
        if status is None:
            return LoaderStoppedError("the loader ended with the process that it was forked from")
        error = LoaderStoppedError if -status in (signal.SIGTERM, signal.SIGHUP) else LoaderDiedError
        return error(f"the loader ended with {ending(status)}")
