"""What only the housekeeping leader shows Prometheus: queues, runs and sweeps, looked up when its page is read."""

import threading
from collections.abc import Iterator

import redis
import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.errors import SetupError
from pipeline.jobs import ENCODE_QUEUE
from pipeline.ledger import Ledger
from pipeline.runs import matte_queue
from pipeline.settings import Settings
from producer.sweeps.file import load_sweeps
from producer.sweeps.nights import Nights
from workers.app import length, oldest

log = structlog.get_logger(__name__)
_SECONDS = 5.0
_GAUGES: dict[str, tuple[str, list[str]]] = {
    "leader": ("Whether this supervisor keeps house: 1 on one of them.", []),
    "queue_messages": ("Messages that wait in a queue of an open run.", ["queue"]),
    "queue_oldest_seconds": ("How long the oldest of them has waited.", ["queue"]),
    "open_runs": ("Runs that are not finished.", []),
    "open_run_images": ("Images of the open runs: listed, and by outcome.", ["outcome"]),
    "open_run_places": ("Images of the open runs without an outcome, by where they are.", ["place"]),
    "sweep_late_seconds": ("Since the scheduled time of a named sweep that is owed; 0 when none is.", ["sweep"]),
    "sweep_finished_timestamp_seconds": ("When the last run of a named sweep was finished.", ["sweep"]),
    "sweep_images": ("Images of the last run of a named sweep: listed, and by outcome.", ["sweep", "outcome"]),
}  # fmt: skip
_OUTCOMES = ("listed", "done", "skipped", "failed")


class HouseGauges:
    """A Prometheus collector; asks Redis only while `leads` is true.

    Attributes:
        leads: set by the housekeeping: whether this process leads it.
    """

    def __init__(self, settings: Settings) -> None:
        self.leads = False
        self._settings = settings
        # Fails at once when Redis is away: whoever reads the page does not wait longer than that.
        client = redis.Redis.from_url(
            settings.redis_url.get_secret_value(), socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        self._ledger = Ledger(client, settings)
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Every gauge there is, without values."""
        return list(_families().values())

    def collect(self) -> Iterator[Metric]:
        """The values of this moment; only `mattemill_leader` where another leads or Redis is away."""
        found = _families()
        found["leader"].add_metric([], float(self.leads))
        if self.leads:
            with self._lock:
                try:
                    self._look_at_runs(found)
                    self._look_at_sweeps(found)
                except (redis.RedisError, SetupError, ValueError) as error:
                    log.warning("house_unseen", error=str(error))
        yield from found.values()

    def _look_at_runs(self, found: dict[str, GaugeMetricFamily]) -> None:
        ledger, queues = self._ledger, {ENCODE_QUEUE}
        runs = ledger.runs(active=True)
        sums, places = dict.fromkeys(_OUTCOMES, 0), dict.fromkeys(("todo", "waiting", "held"), 0)
        for run in runs:
            try:
                spec, counts = ledger.spec(run), ledger.counts(run)
            except SetupError:
                continue  # it has just gone
            queues.update(matte_queue(spec.model, size) for size in spec.size_buckets)
            for outcome in _OUTCOMES:
                sums[outcome] += getattr(counts, outcome)
            for place, items in ledger.places(run).items():
                places[place.partition(":")[0]] += items
        found["open_runs"].add_metric([], len(runs))
        for outcome, images in sums.items():
            found["open_run_images"].add_metric([outcome], images)
        for place, images in places.items():
            found["open_run_places"].add_metric([place], images)
        seconds, micros = ledger.client.time()
        for queue in sorted(queues):
            found["queue_messages"].add_metric([queue], length(ledger.client, queue))
            fed = oldest(ledger.client, queue)  # microseconds, by the same clock
            age = max(seconds + (micros - fed) / 1e6, 0) if fed is not None else 0
            found["queue_oldest_seconds"].add_metric([queue], age)

    def _look_at_sweeps(self, found: dict[str, GaugeMetricFamily]) -> None:
        if self._settings.sweeps is None:
            return
        nights = Nights(self._ledger, self._settings.home)
        for name, sweep in load_sweeps(self._settings).sweeps.items():
            late, counts = nights.progress(sweep)
            found["sweep_late_seconds"].add_metric([name], late)
            if counts is None:
                continue
            if counts.state == "finished":
                found["sweep_finished_timestamp_seconds"].add_metric([name], counts.moved)
            for outcome in _OUTCOMES:
                found["sweep_images"].add_metric([name, outcome], getattr(counts, outcome))


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(f"mattemill_{name}", about, labels=labels) for name, (about, labels) in _GAUGES.items()
    }
