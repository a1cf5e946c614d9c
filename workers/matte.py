"""The matte stage of a GPU worker: loaders ▸ DynamicBatcher ▸ engine ▸ alpha handed over, one outcome for each item."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, as_completed
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import structlog
from numpy.typing import NDArray

from model.codecs.alpha import PackedAlpha, pack_alpha
from model.engines.base import Engine, EngineError
from model.preprocess import content
from pipeline.errors import Code, ItemError, MattemillError, TransientError
from pipeline.jobs import ENCODE_QUEUE, Job
from pipeline.ledger import Ledger, Taken
from pipeline.settings import Settings
from workers.batcher import Batch, DynamicBatcher
from workers.loaders import LoaderDiedError, Loaders, Slot
from workers.loading import Request

log = structlog.get_logger(__name__)


class MatteStage:
    """Runs jobs through one engine. `process` is called from many threads; the engine from its owner thread alone.

    Args:
        ledger: who is told what became of each item.
        publish: sends a job with a priority.
        engine: open and warm.
        settings: batches, loaders and deadlines.
        cores: processors of this machine.
    """

    def __init__(
        self, ledger: Ledger, publish: Callable[[Job, int], None], engine: Engine, settings: Settings, cores: int
    ) -> None:
        self._ledger = ledger
        self._publish = publish
        self._engine = engine
        self._settings = settings
        slots = settings.loader_slots or 4 * engine.max_batch
        largest = max(engine.size_buckets, key=lambda size: size.height * size.width)
        self._loaders = Loaders(settings.loaders or max(cores, 2), slots, largest, settings.loader_deadline)
        self._batcher = DynamicBatcher(engine.max_batch, settings.max_delay_ms / 1000, max(slots, engine.max_batch))
        self._held: set[Taken] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._owner = threading.Thread(target=self._run_engine, name="engine", daemon=True)
        self._toucher = threading.Thread(target=self._touch, name="touch", daemon=True)

    def __enter__(self) -> Self:
        self._owner.start()
        self._toucher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._loaders.close()
        self._batcher.close()
        self._owner.join()
        self._toucher.join()
        with self._lock:
            left = list(self._held)
        self._ledger.give_back(left)

    def process(self, job: Job) -> None:
        """Take the job's items and see each to its outcome; late copies drop out."""
        taken = self._ledger.take(job.run_id, job.queue, job.fed, job.item_ids)
        if not taken:
            return
        spec = self._ledger.spec(job.run_id)
        with self._lock:
            self._held.update(taken)
        asked = {
            self._loaders.load(Request(spec.source_bucket, one.item.key, one.item.etag, one.item.size_bucket)): one
            for one in taken
        }
        waiting: dict[Future[NDArray[np.uint8]], tuple[Taken, Slot, float]] = {}
        for loading in as_completed(asked):
            one = asked[loading]
            try:
                slot = loading.result()
            except Exception as error:  # noqa: BLE001 - one image's error must not reach its neighbours
                self._failed(one, error)
                continue
            computed = self._batcher.submit(slot.image)
            # Not after the loop: other images of this job may wait for this very slot.
            computed.add_done_callback(partial(self._free, slot))
            waiting[computed] = (one, slot, time.perf_counter())
        for computed in as_completed(waiting):
            one, slot, since = waiting[computed]
            try:
                self._hand_over(one, slot, computed.result(), since, spec.priority)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(one, error)

    def _hand_over(self, one: Taken, slot: Slot, alpha: NDArray[np.uint8], since: float, priority: int) -> None:
        spent = round((time.perf_counter() - since) * 1000, 2)
        milliseconds = {**slot.loaded.milliseconds, "wait and infer": spent}
        packed = pack_alpha(PackedAlpha(content(alpha, slot.loaded.box), milliseconds, self._engine.name))
        fed = self._ledger.hand_over(one, packed)
        self._release(one)
        if fed is not None:
            self._publish(Job(one.run, [one.item.id], [one.item.key], fed, ENCODE_QUEUE), priority)
        log.info("matte", run=one.run, key=one.item.key, size_bucket=one.item.size_bucket, ms=milliseconds)

    def _failed(self, one: Taken, error: Exception) -> None:
        self._release(one)
        if isinstance(error, LoaderDiedError):
            answer = self._ledger.blame(one, str(error))
        elif isinstance(error, ItemError):
            answer = self._ledger.fail(one, error)
        else:
            reason = str(error) if isinstance(error, MattemillError) else f"{type(error).__name__}: {error}"
            answer = self._ledger.fail(one, TransientError(Code.ENGINE_ERROR, reason))
        log.warning("matte_failed", run=one.run, key=one.item.key, error=str(error), outcome=answer)

    def _free(self, slot: Slot, _: Future[NDArray[np.uint8]]) -> None:
        self._loaders.free(slot)

    def _release(self, one: Taken) -> None:
        with self._lock:
            self._held.discard(one)

    def _run_engine(self) -> None:
        while (batch := self._batcher.take()) is not None:
            try:
                alpha = self._engine.infer(np.stack([item.image for item in batch.items]))
                for item, one in zip(batch.items, alpha, strict=True):
                    item.future.set_result(one)
            except Exception as error:  # noqa: BLE001 - the images get the reason; the engine goes on with the next
                self._alone(batch, error)

    def _alone(self, batch: Batch, error: Exception) -> None:
        """After a failed batch each image runs alone, so that only the guilty one fails."""
        for item in batch.items:
            if item.future.done():
                continue
            try:
                if len(batch.items) == 1:
                    raise EngineError(f"The engine failed: {error}") from error
                item.future.set_result(self._engine.infer(item.image[None].copy())[0])
            except Exception as reason:  # noqa: BLE001 - as above
                item.future.set_exception(reason)

    def _touch(self) -> None:
        while not self._stopped.wait(self._settings.touch_interval):
            with self._lock:
                held = list(self._held)
            for run in {one.run for one in held}:
                try:
                    self._ledger.touch(run, [(one.item.id, one.fed) for one in held if one.run == run])
                except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the next touch may get through
                    log.warning("touch_failed", error=str(error))
