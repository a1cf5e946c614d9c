"""From an image's key to its matte: loaders ▸ DynamicBatcher ▸ engine, past the engine where the matte is known."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from model.engines.base import Engine, EngineLostError
from pipeline.ledger import Taken
from pipeline.settings import Settings
from workers.batcher import DynamicBatcher, Matte
from workers.engine_record import EngineRecord
from workers.engine_thread import EngineThread
from workers.loaders import Loaders, Slot
from workers.loads import Request
from workers.recent import RecentMattes


class Inference:
    """Loads images and computes their mattes, both behind futures; thread-safe.

    Args:
        engine: open and warm.
        settings: batches, loaders and deadlines.
        cores: processors of this machine.
        record: told what is in the engine.
        lost: called once, from the engine's thread, when the engine is lost for good.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        cores: int,
        record: EngineRecord,
        lost: Callable[[EngineLostError], None],
    ) -> None:
        self._sizes = tuple(str(size) for size in engine.size_buckets)
        largest = max(engine.size_buckets, key=lambda size: size.height * size.width)
        self.slots = slots(engine, settings)
        self._loaders = Loaders(settings.loaders or max(cores, 2), self.slots, largest, settings.loader_deadline)
        self._batcher = DynamicBatcher[Taken](
            engine.max_batch,
            settings.max_delay_ms / 1000,
            max(self.slots, engine.max_batch),
            settings.max_wait_ms / 1000,
        )
        self._engine = EngineThread(engine, self._batcher, record, lost)
        self._recent = RecentMattes(settings.recent_mattes, settings.recent_bytes)

    def start(self) -> None:
        """Let the engine work."""
        self._engine.start()

    def close(self) -> None:
        """End loaders and engine; what was asked for fails, but for what the batcher has already."""
        self._loaders.close()
        self._batcher.close()
        self._engine.join()

    def load(self, source_bucket: str, one: Taken) -> Future[Slot]:
        """The pixels of an image, in a slot that `compute` gives back; the future raises what `Loaders.load` names."""
        return self._loaders.load(Request(source_bucket, one.item.key, one.item.etag, self._sizes))

    def compute(self, one: Taken, slot: Slot) -> tuple[Future[Matte], bool]:
        """The matte of a loaded image, and whether it skips the engine; gives the slot back once its pixels are used.

        Raises:
            ClosedError: when this ends.
        """
        # Not after the job's loop: other images of the job may wait for this very slot.
        digest = slot.loaded.digest.encode()
        if one.suspect:
            computed = self._batcher.submit(slot.image, one, alone=True)
            computed.add_done_callback(partial(self._free, slot))
            return computed, False
        try:
            future, mine = self._recent.claim(digest)
        except BaseException:
            self._loaders.free(slot)
            raise
        if not mine:
            self._loaders.free(slot)
            return future, True
        try:
            computed = self._batcher.submit(slot.image, one)
        except BaseException:
            computed = Future()
            computed.cancel()
            self._recent.settle(digest, future, computed)
            raise
        computed.add_done_callback(partial(self._free, slot))
        computed.add_done_callback(partial(self._recent.settle, digest, future))
        return future, False

    def stuck_for(self) -> float:
        """Seconds that the engine has been in one call; 0 when it is in none."""
        return self._engine.stuck_for()

    def figures(self) -> dict[str, float]:
        """What it did so far: batches, images in them, seconds in the engine of how many, images that skipped it.

        And bytes of decoded images that it holds now.
        """
        engine = self._engine
        return {
            "batches": engine.batches,
            "images": engine.images,
            "busy_seconds": round(engine.busy_seconds, 3),
            "span_seconds": round(engine.span_seconds, 3),
            "recent_hits": self._recent.hits,
            "loader_bytes": self._loaders.bytes_in_use(),
        }

    def _free(self, slot: Slot, _: Future[Matte]) -> None:
        self._loaders.free(slot)


def slots(engine: Engine, settings: Settings) -> int:
    """Images in shared memory: two full batches of every size bucket, within the bytes allowed, at least one batch."""
    if settings.loader_slots:
        return settings.loader_slots
    largest = max(size.height * size.width * 3 for size in engine.size_buckets)
    wanted = max(4, 2 * len(engine.size_buckets)) * engine.max_batch
    return max(min(wanted, settings.loader_bytes // largest), engine.max_batch)
