"""The one thread that uses the engine, and what is known of the call that it is in."""

import threading
import time
from collections.abc import Callable

import numpy as np
import structlog

from model.engines.base import Engine, EngineError, EngineLostError
from pipeline.ledger import Taken
from workers.batcher import Batch, DynamicBatcher, Matte
from workers.engine_record import EngineRecord

log = structlog.get_logger(__name__)


class EngineThread:
    """Takes batches from the batcher until it is closed and empty; every image gets its matte or its error.

    Args:
        engine: open and warm.
        batcher: images labelled with the item that they are of.
        record: told what is in the engine.
        lost: called once, from this thread, when the engine is lost for good; this thread ends then.
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
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.batches = 0
        self.images = 0
        self.busy_seconds = 0.0
        self.span_seconds = 0.0
        self._first: float | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the batcher is closed and empty."""
        self._thread.join()

    def stuck_for(self) -> float:
        """Seconds that the present call takes so far; 0 outside of one."""
        since = self._since
        return self._clock() - since if since is not None else 0.0

    def _run(self) -> None:
        while (batch := self._batcher.take()) is not None:
            try:
                self._answer(batch)
            except EngineLostError as error:
                self._lost(error)
                return

    def _answer(self, batch: Batch[Taken]) -> None:
        try:
            self._infer(batch)
        except EngineLostError:
            raise
        except Exception as error:  # noqa: BLE001 - the images get the reason; the engine goes on with the next
            if len(batch.items) == 1:
                batch.items[0].future.set_exception(EngineError(f"The engine failed: {error}"))
                return
            log.warning("batch_failed", size_bucket=str(batch.size_bucket), images=len(batch.items), error=str(error))
            for item in batch.items:  # each alone, so that only the guilty one fails
                self._answer(Batch(batch.size_bucket, (item,)))

    def _infer(self, batch: Batch[Taken]) -> None:
        images = np.stack([item.image for item in batch.items])  # [N, H, W, 3] uint8
        self._record.enter([item.label for item in batch.items])
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
        self.batches, self.images = self.batches + 1, self.images + len(batch.items)
        self.busy_seconds += took
        self._first = started if self._first is None else self._first
        self.span_seconds = started + took - self._first
        for item, one in zip(batch.items, alpha, strict=True):
            # A copy: a slice that somebody keeps would keep the whole batch.
            item.future.set_result(Matte(one.copy(), max(started - item.since, 0.0), took))
