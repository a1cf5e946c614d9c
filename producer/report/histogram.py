"""The latency histogram: its numbers, then its geometry.

Bins are left-closed, `[start, end)`, of one width from the series 1, 2, 5 x 10^k. A long tail would squeeze
everything else into the first bar, so what lies beyond the 99th percentile may share one last, open bar.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_FEWEST_BINS = 6
_MOST_BINS = 30
_TAIL_FACTOR = 2.0  # the slowest image must be this much beyond the 99th percentile to open the last bar


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar: `count` latencies in [start_ms, end_ms); an open bin holds everything from start_ms on."""

    start_ms: float
    end_ms: float
    count: int
    open: bool = False


@dataclass(frozen=True, slots=True)
class Histogram:
    """Latencies in bins, with the figures a reader wants named.

    Attributes:
        count: number of latencies.
        fastest: milliseconds.
        median: milliseconds; the mean of the middle two of an even count.
        p95: milliseconds; nearest rank, so it is the time of a real image.
        slowest: milliseconds.
        bins: adjacent, ascending; only the last may be open.
    """

    count: int
    fastest: float
    median: float
    p95: float
    slowest: float
    bins: tuple[Bin, ...]


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """Find a percentile by nearest rank: the smallest value that at least `percent` of all do not exceed.

    Args:
        ordered: ascending, not empty.
        percent: above 0, up to 100.
    """
    # Rounding first: a product a hair above a whole number would make ceil add a rank.
    return ordered[max(0, math.ceil(round(percent * len(ordered) / 100, 9)) - 1)]


def round_step(raw: float) -> float:
    """Find the smallest of 1, 2, 5 x 10^k that is at least `raw` (above 0)."""
    power = math.floor(math.log10(raw))
    for exponent in (power, power + 1):
        for digit in (1, 2, 5):
            # Dividing keeps 0.2 the nearest float; 2 * 10**-1 would do so by luck only.
            step = digit * 10.0**exponent if exponent >= 0 else digit / 10.0**-exponent
            if step >= raw * (1 - 1e-9):
                return step
    raise AssertionError(f"no step for {raw!r}")


def make_histogram(latencies_ms: Sequence[float]) -> Histogram | None:
    """Sort latencies into bins.

    Args:
        latencies_ms: finite, not negative; any order.

    Returns:
        None if there is no latency.
    """
    ordered = sorted(latencies_ms)
    if not ordered:
        return None
    p99 = nearest_rank(ordered, 99)
    has_tail = ordered[-1] > _TAIL_FACTOR * p99 > 0
    last_closed = p99 if has_tail else ordered[-1]
    # Rice's rule, 2 * n^(1/3) bins: few images get few bars.
    wanted = min(_MOST_BINS, max(_FEWEST_BINS, math.ceil(2 * len(ordered) ** (1 / 3))))
    # The floor keeps equal latencies from asking for bars of no width.
    width = round_step(max((last_closed - ordered[0]) / wanted, last_closed / 100, 1e-3))

    def index(value: float) -> int:
        return math.floor(round(value / width, 9))

    first, last = index(ordered[0]), index(last_closed)
    while last - first + 1 < _FEWEST_BINS:
        last += 1
        if last - first + 1 < _FEWEST_BINS and first > 0:
            first -= 1
    counts = [0] * (last - first + 1)
    beyond = 0
    for value in ordered:
        if index(value) > last:
            beyond += 1
        else:
            counts[index(value) - first] += 1
    bins = [
        Bin(round((first + i) * width, 9), round((first + i + 1) * width, 9), counted)
        for i, counted in enumerate(counts)
    ]
    if beyond:
        bins.append(Bin(bins[-1].end_ms, ordered[-1], beyond, open=True))
    return Histogram(
        count=len(ordered),
        fastest=ordered[0],
        median=statistics.median(ordered),
        p95=nearest_rank(ordered, 95),
        slowest=ordered[-1],
        bins=tuple(bins),
    )
