"""Where the histogram's bars, ticks and markers stand in the SVG.

Across, everything is a percentage of the plot, down it is pixels: the chart stretches with the page while
its text keeps its size, which a viewBox could not give.
"""

import math
from dataclasses import dataclass

from producer.report.histogram import Bin, Histogram, round_step

TOP = 44.0  # two rows of marker labels
BOTTOM = 204.0  # the axis; tick labels stand below it
HEIGHT = 228.0
_MOST_TICKS_ACROSS = 6
_MOST_TICKS_DOWN = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: x and width in percent, y and height in pixels."""

    x: float
    width: float
    y: float
    height: float
    bin: Bin


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick: `at` in percent (across) or pixels (down)."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All geometry of one histogram.

    Attributes:
        bars: those with a count.
        across: ticks of the time axis.
        down: ticks of the count axis, zero included.
        unit: unit of the time axis' labels, `ms` or `s`.
        median_x: percent.
        p95_x: percent.
        top: pixels.
        bottom: pixels, the axis.
        height: pixels of the whole drawing.
    """

    bars: tuple[Bar, ...]
    across: tuple[Tick, ...]
    down: tuple[Tick, ...]
    unit: str
    median_x: float
    p95_x: float
    top: float = TOP
    bottom: float = BOTTOM
    height: float = HEIGHT


def lay_out(histogram: Histogram) -> Chart:
    """Place a histogram's parts."""
    closed = [b for b in histogram.bins if not b.open]
    opened = [b for b in histogram.bins if b.open]
    start = closed[0].start_ms
    width_ms = (closed[-1].end_ms - start) / len(closed)
    unit_percent = 100 / (len(closed) + 1.5 * len(opened))  # half a bar of air before the open one

    def across(value_ms: float) -> float:
        return round((value_ms - start) / width_ms * unit_percent, 3)

    tallest = max(b.count for b in histogram.bins)
    step = max(1, int(round_step(tallest / _MOST_TICKS_DOWN)))
    ceiling = math.ceil(tallest / step) * step

    def down(number: int) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * number / ceiling, 2)

    def bar(x: float, counted: Bin) -> Bar:
        # A single image in a run of thousands must still be seen.
        y = min(down(counted.count), BOTTOM - 2)
        gap = 0.04 * unit_percent
        return Bar(round(x + gap, 3), round(unit_percent - 2 * gap, 3), y, round(BOTTOM - y, 2), counted)

    bars = [bar(across(b.start_ms), b) for b in closed if b.count]
    bars += [bar(100 - unit_percent, b) for b in opened]

    seconds = closed[-1].end_ms >= 10_000
    # A whole number of bars between ticks, so that every label names an edge.
    tick_ms = width_ms * max(1, round(round_step(len(closed) / _MOST_TICKS_ACROSS)))
    first = math.ceil(round(start / tick_ms, 9))
    final = math.floor(round(closed[-1].end_ms / tick_ms, 9))
    ticks = [
        Tick(across(i * tick_ms), f"{round(i * tick_ms / (1000 if seconds else 1), 6):,g}")
        for i in range(first, final + 1)
    ]
    return Chart(
        bars=tuple(bars),
        across=tuple(ticks),
        down=tuple(Tick(down(n), f"{n:,}") for n in range(0, ceiling + 1, step)),
        unit="s" if seconds else "ms",
        median_x=across(histogram.median),
        p95_x=across(histogram.p95),
    )
