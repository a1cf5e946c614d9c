"""The matte stage of a GPU worker: items taken ▸ inference ▸ alpha handed over, one outcome for each."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

import structlog

from model.codecs.alpha import PackedAlpha, pack_alpha
from model.engines.base import Engine, EngineLostError
from model.preprocess import content, settled
from pipeline.errors import Code, ItemError, MattemillError, TransientError
from pipeline.jobs import ENCODE_QUEUE, Job
from pipeline.ledger import Ledger, Taken
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from workers.batcher import Matte
from workers.engine_record import EngineRecord
from workers.inference import Inference
from workers.last_words import say
from workers.lifecycle import LOST
from workers.loaders import LoaderDiedError, LoaderStoppedError, Slot
from workers.metrics import MatteMetrics

log = structlog.get_logger(__name__)
_GIVE_BACK_SECONDS = 5.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Loaded:
    taken: Taken
    slot: Slot
    repeated: bool  # its matte was or is computed for another image


@dataclass(frozen=True, slots=True)
class _Broken:
    taken: Taken
    error: Exception


_Ended: TypeAlias = "tuple[_Loaded, Future[Matte]] | _Broken"


class MatteStage:
    """Runs jobs through one engine. `process` is called from many threads; the engine from its own thread alone.

    Args:
        ledger: who is told what became of each item.
        publish: sends jobs with a priority.
        engine: open and warm.
        settings: batches, loaders and deadlines.
        cores: processors of this machine.
        record: told what is in the engine.
        weights: sha256 of the engine's weights; None for an engine that has none. A run with others is not worked on.
        leave: ends the process at once with an exit code.
        metrics: counts what becomes of images.
    """

    def __init__(
        self,
        ledger: Ledger,
        publish: Callable[[Sequence[Job], int], None],
        engine: Engine,
        settings: Settings,
        cores: int,
        record: EngineRecord,
        weights: str | None = None,
        leave: Callable[[int], object] = os._exit,
        metrics: MatteMetrics | None = None,
    ) -> None:
        self._ledger = ledger
        self._publish = publish
        self._engine_name = engine.name
        self._settings = settings
        self._record = record
        self._weights = weights
        self._leave_process = leave
        self._metrics = metrics or MatteMetrics("", engine.max_batch)
        self._inference = Inference(engine, settings, cores, record, self._engine_lost)
        self.slots = self._inference.slots
        self._held: set[Taken] = set()
        self._coming = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._leaving = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._inference.start()
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inference.close()
        self._stopped.set()
        self._watcher.join()
        self.give_back()
        log.info("matte_stage_ended", **self.figures())

    def held(self) -> list[Taken]:
        """The items that this stage works on now."""
        with self._lock:
            return list(self._held)

    def give_back(self) -> int:
        """Return what it works on to the ledger, without blame, and how many those were; for a process that ends."""
        held = self.held()
        self._ledger.give_back(held)
        return len(held)

    def expect(self, images: int) -> None:
        """Count a message of that many as in hand: it has been pulled, and `process` will be called with its job."""
        with self._lock:
            self._coming += images

    def in_hand(self) -> int:
        """How many items it works on now, or is about to take."""
        with self._lock:  # an item that is taken right now is counted once
            return len(self._held) + self._coming

    def figures(self) -> dict[str, float]:
        """What its inference did so far and holds now, and how many images it works on."""
        return {**self._inference.figures(), "in_hand": len(self._held)}

    def process(self, job: Job) -> None:
        """Take the items of a job that was expected and see each to its outcome; late copies drop out."""
        taken = self._take(job)
        try:
            self._metrics.late(job, len(taken))
            if not taken:
                return
            spec = self._ledger.spec(job.run_id)
            if self._weights is not None and spec.weights != self._weights:
                # The fingerprint of its outputs would lie. Another worker may have the right ones.
                reason = (
                    f"This worker has {spec.model} with weights {self._weights[:12]}…, the run {spec.weights[:12]}…."
                )
                for one in taken:
                    self._failed(one, TransientError(Code.ENGINE_ERROR, reason))
                return
            self._see_through(spec, taken)
        finally:
            # Whatever happened: what is not touched any more comes back by the ledger.
            with self._lock:
                self._held.difference_update(taken)

    def _take(self, job: Job) -> list[Taken]:
        taken: list[Taken] = []
        try:
            taken = self._ledger.take(job.run_id, job.queue, job.fed, job.item_ids)
        finally:
            with self._lock:
                self._coming -= len(job.items)
                self._held.update(taken)
        return taken

    def _see_through(self, spec: RunSpec, taken: Sequence[Taken]) -> None:
        ended: SimpleQueue[_Ended] = SimpleQueue()
        for one in taken:
            self._inference.load(spec.source_bucket, one).add_done_callback(partial(self._loaded, one, ended))
        left = len(taken)
        while left:
            # The images of a batch are ready together and go on together.
            ready: list[tuple[_Loaded, Future[Matte]]] = []
            for end in _all_of(ended):
                left -= 1
                if isinstance(end, _Broken):
                    self._failed(end.taken, end.error)
                else:
                    ready.append(end)
            if ready:
                self._hand_over(spec, ready)

    def _loaded(self, one: Taken, ended: "SimpleQueue[_Ended]", loading: "Future[Slot]") -> None:
        """Pass an image on to the engine, in the thread that has loaded it."""
        try:
            slot = loading.result()
            matte, repeated = self._inference.compute(one, slot)
        except Exception as error:  # noqa: BLE001 - one image's error must not reach its neighbours
            ended.put(_Broken(one, error))
            return
        loaded = _Loaded(one, slot, repeated)  # without the future, which keeps its callbacks: that would be a circle
        matte.add_done_callback(lambda future: ended.put((loaded, future)))

    def _hand_over(self, spec: RunSpec, ready: "list[tuple[_Loaded, Future[Matte]]]") -> None:
        started = time.perf_counter()
        packed: list[tuple[_Loaded, dict[str, float], bytes]] = []
        for loaded, future in ready:
            try:
                matte = future.result()
                waited, computed = (0.0, 0.0) if loaded.repeated else (matte.waited, matte.computed)
                milliseconds = {
                    **loaded.slot.loaded.milliseconds,
                    "wait": round(waited * 1000, 2),
                    "infer": round(computed * 1000, 2),
                }
                alpha = settled(content(matte.alpha, loaded.slot.loaded.box))
                body = pack_alpha(PackedAlpha(alpha, milliseconds, self._engine_name))
                packed.append((loaded, milliseconds, body))
            except Exception as error:  # noqa: BLE001 - one image's error must not reach its neighbours
                self._failed(loaded.taken, error, loaded.slot.loaded.milliseconds)
        feds = self._ledger.hand_over(spec.run, [(loaded.taken, body) for loaded, _, body in packed])
        jobs = []
        for (loaded, _, _), fed in zip(packed, feds, strict=True):
            item = loaded.taken.item
            if fed is not None:
                jobs.append(Job(spec.run, [item.id], [item.key], fed, ENCODE_QUEUE))
        self._publish(jobs, spec.priority)
        # Only now: until they wait for encoding they are in hand, or the mark would be run over.
        for loaded, _, _ in packed:
            self._release(loaded.taken)
        took = round((time.perf_counter() - started) * 1000 / len(ready), 2)
        for loaded, milliseconds, _ in packed:
            times = {**milliseconds, "hand over": took}
            self._metrics.matted(times, loaded.slot, loaded.repeated)
            image = loaded.slot.loaded
            log.info(
                "matte",
                run=spec.run,
                key=loaded.taken.item.key,
                width=image.width,
                height=image.height,
                size_bucket=image.size_bucket,
                ms=times,
            )

    def _failed(self, one: Taken, error: Exception, milliseconds: Mapping[str, float] | None = None) -> None:
        self._release(one)
        if isinstance(error, LoaderStoppedError):
            self._ledger.give_back([one])
            return
        if isinstance(error, LoaderDiedError):
            code, answer = Code.ATTEMPTS_EXHAUSTED, self._ledger.blame(one, str(error), self._engine_name)
        elif isinstance(error, ItemError):
            code, answer = error.code, self._ledger.fail(one, error, self._engine_name)
        else:
            reason = str(error) if isinstance(error, MattemillError) else f"{type(error).__name__}: {error}"
            again = TransientError(Code.ENGINE_ERROR, reason)
            again.milliseconds = milliseconds or {}
            code, answer = again.code, self._ledger.fail(one, again, self._engine_name)
        self._metrics.failed(code, answer)
        log.warning("matte_failed", run=one.run, key=one.item.key, code=code, error=str(error), outcome=answer)

    def _release(self, one: Taken) -> None:
        with self._lock:
            self._held.discard(one)

    def _watch(self) -> None:
        """Touch what is held, and leave the process when an engine call takes too long."""
        touched = time.monotonic()
        while not self._stopped.wait(min(1.0, self._settings.touch_interval)):
            stuck = self._inference.stuck_for()
            if stuck > self._settings.engine_deadline:
                self._leave("engine_stuck", seconds=round(stuck, 1))
            if time.monotonic() - touched < self._settings.touch_interval:
                continue
            touched = time.monotonic()
            held = self.held()
            for run in {one.run for one in held}:
                try:
                    self._ledger.touch(run, [(one.item.id, one.fed) for one in held if one.run == run])
                except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the next touch may get through
                    log.warning("touch_failed", error=str(error))

    def _engine_lost(self, error: EngineLostError) -> None:
        self._leave("engine_lost", error=str(error))

    def _leave(self, event: str, **values: object) -> None:
        """End the process: what is in the engine is the supervisor's to judge, the rest goes back without blame."""
        with self._leaving:
            guilty = {(one.run, one.item.id) for one in self._record.read()[0]}
            innocent = [one for one in self.held() if (one.run, one.item.id) not in guilty]
            say(" ".join([event, *(f"{name}={value}" for name, value in values.items())]))
            log.critical(event, **values, in_engine=len(guilty), given_back=len(innocent))
            # Redis may be away: the ledger takes back what is not given back.
            giving = threading.Thread(target=self._ledger.give_back, args=(innocent,), daemon=True)
            giving.start()
            giving.join(_GIVE_BACK_SECONDS)
            self._leave_process(LOST)


def _all_of(queue: "SimpleQueue[_T]") -> list[_T]:
    """What is in a queue; waits for the first."""
    taken = [queue.get()]
    with contextlib.suppress(Empty):
        while True:
            taken.append(queue.get_nowait())
    return taken
