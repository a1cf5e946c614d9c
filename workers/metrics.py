"""What the processes of a worker count for Prometheus. Names, labels and buckets stand here and in the gauges' modules.

Values are plain floats of this process, or, once `workers.metrics_page` has shared a folder, memory that the
supervisor's page adds up over all its processes. docs/operate.md says what each is for.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pipeline.errors import Code
from pipeline.ids import SizeBucket
from pipeline.jobs import Job

if TYPE_CHECKING:
    from workers.loaders import Slot

STAGES = {
    "fetch": "fetch",
    "decode": "decode",
    "wait": "wait",
    "infer": "infer",
    "hand over": "hand_over",
    "fetch again": "fetch_again",
    "decode full": "decode_full",
    "refine": "refine",
    "encode": "encode",
    "preview": "preview",
    "upload": "upload",
}
"""The stages of an image as its row names them, and as Prometheus does."""
ACTIONS = ("fed", "reclaimed", "listing_abandoned", "run_finished", "report_failed")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one process; safe to use from many threads and after a fork."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        images = Counter(
            "mattemill_images", "Images that workers finished, by outcome and failure code.", ["outcome", "code"],
            registry=registry,
        )  # fmt: skip
        retries = Counter(
            "mattemill_retries", "Images that were sent back to be tried again, by failure code.", ["code"],
            registry=registry,
        )  # fmt: skip
        # All there are from the beginning: the rate of a series that is born at 1 is 0.
        self._done = images.labels("done", "")
        self._failed = {code: images.labels("failed", code) for code in Code}
        self._retries = {code: retries.labels(code) for code in Code}
        self._messages = Counter(
            "mattemill_messages", "Messages that were worked off, by queue.", ["queue"], registry=registry
        )
        self._late = Counter(
            "mattemill_late_copies", "Images of messages whose work was done or given to another.", registry=registry
        )
        stages = Histogram(
            "mattemill_stage_seconds", "What one image took in one stage.", ["stage"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._stages = {ours: stages.labels(theirs) for ours, theirs in STAGES.items()}
        self._housekeeping = Counter(
            "mattemill_housekeeping", "Images, or runs, that the housekeeping moved, by what it did.", ["action"],
            registry=registry,
        )  # fmt: skip
        self._deaths = Counter(
            "mattemill_worker_deaths", "Worker processes that ended without having been asked to.", ["worker"],
            registry=registry,
        )  # fmt: skip
        for action in ACTIONS:
            self._housekeeping.labels(action)

    def took(self, stage: str, milliseconds: float) -> None:
        """An image has passed a stage; `stage` is a key of `STAGES`."""
        self._stages[stage].observe(milliseconds / 1000)

    def worked_off(self, queue: str) -> None:
        """A message is off its queue, whatever came of it."""
        self._messages.labels(queue).inc()

    def late(self, job: Job, taken: int) -> None:
        """Of the job's items only so many were still to be worked on."""
        if taken < len(job.items):
            self._late.inc(len(job.items) - taken)

    def done(self) -> None:
        """An image is finished."""
        self._done.inc()

    def failed(self, code: Code, outcome: str) -> None:
        """An image has failed, as the ledger's answer says: for good, for now, or not at all."""
        if outcome == "failed":
            self._failed[code].inc()
        elif outcome in ("again", "suspect"):
            self._retries[code].inc()

    def kept_house(self, action: str, count: int = 1) -> None:
        """The housekeeping did something with that many images or runs."""
        if count:
            self._housekeeping.labels(action).inc(count)

    def watches(self, worker: str) -> None:
        """This worker is to be kept running."""
        self._deaths.labels(worker)

    def died(self, worker: str) -> None:
        """It ended without having been asked to."""
        self._deaths.labels(worker).inc()


class EncodeMetrics(Metrics):
    """What a CPU worker and its children count."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        super().__init__(registry)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"mattemill_{name}", about, multiprocess_mode="livesum", registry=registry)

        self._images = gauge("encode_images", "Images that encode processes work on.")
        self._bytes = gauge("encode_bytes", "Their files and alphas, in bytes.")

    @contextmanager
    def working_on(self, size: int) -> Iterator[None]:
        """An image of so many bytes, its file and its alpha, is worked on while this lasts."""
        self._images.inc()
        self._bytes.inc(size)
        try:
            yield
        finally:
            self._bytes.dec(size)
            self._images.dec()


class MatteMetrics(Metrics):
    """What one GPU worker counts, and its engine does.

    Args:
        device: what it runs on, as `workers.devices` writes it.
        max_batch: images that fit in a batch.
        registry: where to register.
    """

    def __init__(self, device: str, max_batch: int, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        super().__init__(registry)

        def counter(name: str, about: str) -> Counter:
            return Counter(f"mattemill_{name}", about, ["device"], registry=registry).labels(device)

        def gauge(name: str, about: str) -> Gauge:
            family = Gauge(f"mattemill_{name}", about, ["device"], multiprocess_mode="livesum", registry=registry)
            return family.labels(device)

        self._counters = {
            "batches": counter("engine_batches", "Calls of the engine."),
            "images": counter("engine_images", "Images that went through the engine."),
            "busy_seconds": counter("engine_busy_seconds", "Seconds inside the engine."),
            "recent_hits": counter("recent_matte_hits", "Images whose matte was known or being computed already."),
        }
        self._places = counter("engine_places", "Places for images in the batches that the engine was called with.")
        self._pixels = counter("engine_pixels", "Pixels that the engine was given, without unfilled places.")
        self._padding = counter("engine_padding_pixels", "Those of them that pad a photo to its size bucket.")
        self._gauges = {
            "in_hand": gauge("in_hand_images", "Images that a GPU worker works on."),
            "loader_bytes": gauge("loader_bytes", "Decoded images in shared memory, in bytes."),
        }
        self._max_batch = max_batch
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def follow(self, figures: Mapping[str, float]) -> None:
        """Take over the sums that `MatteStage.figures` gives."""
        with self._lock:
            grown = {name: max(figures[name] - self._last.get(name, 0), 0) for name in self._counters}
            self._last = dict(figures)
            for name, counter in self._counters.items():
                counter.inc(grown[name])
            self._places.inc(grown["batches"] * self._max_batch)
            for name, gauge in self._gauges.items():
                gauge.set(figures[name])

    def matted(self, milliseconds: Mapping[str, float], slot: "Slot", repeated: bool) -> None:
        """An image was handed over; one that was `repeated` did not go through the engine."""
        for stage, took in milliseconds.items():
            if not repeated or stage not in ("wait", "infer"):
                self.took(stage, took)
        if not repeated:
            size, box = SizeBucket.parse(slot.loaded.size_bucket), slot.loaded.box
            self._pixels.inc(size.height * size.width)
            self._padding.inc(size.height * size.width - box.height * box.width)
