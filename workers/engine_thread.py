"""The one thread that uses the engine, those that fill and empty it, and what is known of the call that it is in."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
import structlog
from numpy.typing import NDArray

from model.engines.base import Engine, EngineError, EngineLostError
from pipeline.ledger import Taken
from workers.batcher import Batch, DynamicBatcher, Matte, Waiting
from workers.engine_record import EngineRecord

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Staged:
    batch: Batch[Taken]
    images: NDArray[np.uint8]  # [N, H, W, 3], a view of `memory`
    memory: NDArray[np.uint8]


class EngineThread:
    """Takes batches from the batcher until it is closed and empty; every image gets its matte or its error.

    The engine must not wait for Python: while it works, another thread lays the next batch into memory and a third one
    hands out the mattes of the last. A batch that is not full is not cut before the engine has nothing to do.

    Args:
        engine: open and warm.
        batcher: images labelled with the item that they are of.
        record: told what is in the engine.
        lost: called once, from the engine's thread, when the engine is lost for good; no image gets an answer then.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        engine: Engine,
        batcher: DynamicBatcher[Taken],
        record: EngineRecord,
        lost: Callable[[EngineLostError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._batcher = batcher
        self._record = record
        self._lost = lost
        self._clock = clock
        self._since: float | None = None
        self._idle = False
        # Two pieces of memory for all batches, one in the engine, one being filled; fresh pages are dearer than copies.
        largest = engine.max_batch * max(size.height * size.width for size in engine.size_buckets) * 3
        self._memory: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
        for _ in range(2):
            self._memory.put(np.empty(largest, np.uint8))
        self._staged: SimpleQueue[_Staged | None] = SimpleQueue()
        self._finished: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        steps = {"staging": self._stage, "engine": self._run, "answers": self._answer}
        self._threads = [threading.Thread(target=step, name=name, daemon=True) for name, step in steps.items()]
        self.batches = 0
        self.images = 0
        self.busy_seconds = 0.0
        self.span_seconds = 0.0
        self._first: float | None = None

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until the batcher is closed and empty, and every answer given."""
        for thread in self._threads:
            thread.join()

    def stuck_for(self) -> float:
        """Seconds that the present call takes so far; 0 outside of one."""
        since = self._since
        return self._clock() - since if since is not None else 0.0

    def _stage(self) -> None:
        while True:
            memory = self._memory.get()  # first: a batch is cut as late as can be
            batch = self._batcher.take(lambda: self._idle)
            if batch is None:
                self._staged.put(None)
                return
            shape = (len(batch.items), *batch.items[0].image.shape)
            images = memory[: math.prod(shape)].reshape(shape)
            np.stack([item.image for item in batch.items], out=images)
            self._staged.put(_Staged(batch, images, memory))

    def _run(self) -> None:
        lost = False
        while (staged := self._next()) is not None:
            try:
                if not lost:  # afterwards nothing is computed any more, and whoever closes the batcher need not wait
                    self._infer(staged.images, staged.batch.items)
            except EngineLostError as error:
                lost = True
                self._lost(error)
            self._memory.put(staged.memory)
        self._finished.put(None)

    def _next(self) -> _Staged | None:
        with contextlib.suppress(Empty):
            return self._staged.get_nowait()
        self._idle = True
        self._batcher.wake()
        staged = self._staged.get()
        self._idle = False
        return staged

    def _infer(self, images: NDArray[np.uint8], items: Sequence[Waiting[Taken]]) -> None:
        try:
            self._call(images, items)
        except EngineLostError:
            raise
        except Exception as error:  # noqa: BLE001 - the images get the reason; the engine goes on with the next
            if len(items) == 1:
                self._finished.put(partial(items[0].future.set_exception, EngineError(f"The engine failed: {error}")))
                return
            size_bucket = f"{images.shape[1]}x{images.shape[2]}"
            log.warning("batch_failed", size_bucket=size_bucket, images=len(items), error=str(error))
            for index in range(len(items)):  # each alone, so that only the guilty one fails
                self._infer(images[index : index + 1], items[index : index + 1])

    def _call(self, images: NDArray[np.uint8], items: Sequence[Waiting[Taken]]) -> None:
        self._record.enter([item.label for item in items], self._engine.name)
        started = self._since = self._clock()
        try:
            alpha = self._engine.infer(images)  # [N, H, W] uint8
        except EngineLostError:
            raise  # the record stays: the supervisor reads it
        except Exception:
            self._record.leave()
            raise
        finally:
            self._since = None
        self._record.leave(finished=True)
        took = self._clock() - started
        self.batches, self.images = self.batches + 1, self.images + len(items)
        self.busy_seconds += took
        self._first = started if self._first is None else self._first
        self.span_seconds = started + took - self._first
        self._finished.put(partial(_give, items, alpha, started, took))

    def _answer(self) -> None:
        while (give := self._finished.get()) is not None:
            give()


def _give(items: Sequence[Waiting[Taken]], alpha: NDArray[np.uint8], started: float, took: float) -> None:
    for item, one in zip(items, alpha, strict=True):
        # A copy: a slice that somebody keeps would keep the whole batch.
        item.future.set_result(Matte(one.copy(), max(started - item.since, 0.0), took))
