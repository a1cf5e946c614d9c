"""What the live page and beat count for Prometheus, on a page like the workers' (`workers.metrics_page`)."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class WebMetrics:
    """What the live page counts; safe to use from many threads."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._seconds = Histogram(
            "mattemill_web_seconds", "What an answer of the live page took, by its status.", ["status"],
            buckets=_SECONDS, registry=registry or CollectorRegistry(),
        )  # fmt: skip
        self._seconds.labels("200")

    def answered(self, status: int, seconds: float) -> None:
        """The page has answered."""
        self._seconds.labels(str(status)).observe(seconds)


class BeatMetrics:
    """What beat counts.

    Args:
        sweeps: names of all that it may start.
        registry: where to register.
    """

    def __init__(self, sweeps: Iterable[str] = (), registry: CollectorRegistry | None = None) -> None:
        self._starts = Counter(
            "mattemill_sweep_starts", "Processes of beat that started a sweep or the cleaning, by how they ended.",
            ["sweep", "outcome"], registry=registry or CollectorRegistry(),
        )  # fmt: skip
        # All there are from the beginning: the rate of a series that is born at 1 is 0.
        for sweep in sweeps:
            for outcome in ("ok", "failed"):
                self._starts.labels(sweep, outcome)

    def started(self, sweep: str, *, well: bool) -> None:
        """A process that was to start this sweep has ended."""
        self._starts.labels(sweep, "ok" if well else "failed").inc()
