"""One bad day: a run, faults while it goes on, and the table's line at its end."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import redis

from producer import Selection
from producer.run import Run
from tests.chaos.audit import Audit, audit
from tests.chaos.system import BUCKET, System, wait_until

_END_SECONDS = 600


@dataclass(slots=True)
class Fault:
    """Something that was done, when, and what was in somebody's hands then."""

    what: str
    begun: float
    ended: float
    held: set[bytes]
    recovered: float | None = None


@dataclass(slots=True)
class Day:
    """A run in trouble; what does harm gets it.

    Attributes:
        system: where it happens.
        run: what goes on.
        random: where every choice comes from.
        notes: what the table says beside the figures.
    """

    system: System
    run: Run
    random: Random
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    moves: list[tuple[float, int]] = field(default_factory=list)

    def finished(self) -> int:
        """Pictures with an outcome, as last seen."""
        return self.moves[-1][1] if self.moves else 0

    def over(self) -> bool:
        """Whether the run has ended."""
        with suppress(redis.RedisError):
            return self.run.counts().state == "finished"
        return False

    def wait_for(self, finished: int, patience: float = 60) -> bool:
        """Wait until that many pictures have an outcome; False when it takes too long."""
        return wait_until(lambda: self.finished() >= finished, patience)

    def harm(self, what: str, do: Callable[[], object]) -> None:
        """Do it now, and measure from its end."""
        held = self.system.held(self.run.id)
        begun = time.monotonic()
        do()
        self.faults.append(Fault(what, begun, time.monotonic(), held))

    def watch(self, stop: threading.Event) -> None:
        """Note every movement, and when what a fault had caught is finished."""
        while not stop.wait(0.1):
            with suppress(redis.RedisError):
                counts = self.run.counts()
                if not self.moves or counts.finished != self.moves[-1][1]:
                    self.moves.append((time.monotonic(), counts.finished))
                for fault in [one for one in self.faults if one.recovered is None]:
                    fault.held = self.system.unfinished(self.run.id, fault.held)
                    if not fault.held:
                        fault.recovered = time.monotonic()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        fault: what was done.
        times: how often.
        audit: what was left.
        recover: seconds from the end of a fault until all that was in somebody's hands then was finished, the worst.
        still: the longest time without an outcome; None where it was not watched.
        seconds: from the listing's end to the run's.
        ended: the run came to an end.
        notes: what else was seen.
    """

    fault: str
    times: int
    audit: Audit
    recover: float
    still: float | None
    seconds: float
    ended: bool
    notes: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether the bar is met."""
        return self.ended and self.audit.good


def live_through(system: System, name: str, images: int, seed: int, harm: Callable[[Day], object]) -> Line:
    """Sweep `images` pictures, do harm while they are worked on, and see what is left."""
    started = time.monotonic()
    target = f"s3://{BUCKET}/out/{name.replace(' ', '-')}/"
    run = system.producer.sweep(f"s3://{BUCKET}/in/", target, selection=Selection(limit=images))
    day, stop = Day(system, run, Random(seed)), threading.Event()
    watch = threading.Thread(target=day.watch, args=(stop,), daemon=True)
    watch.start()
    try:
        harm(day)
        ended = wait_until(day.over, _END_SECONDS, 0.2)
    finally:
        stop.set()
        watch.join()
    seconds = time.monotonic() - started
    times = [started, *(when for when, _ in day.moves)]
    return Line(
        fault=name,
        times=len(day.faults),
        audit=audit(system, run, system.pictures[:images]),
        recover=max(((one.recovered or time.monotonic()) - one.ended for one in day.faults), default=0.0),
        still=max(later - earlier for earlier, later in pairwise(times)),
        seconds=seconds,
        ended=ended,
        notes=tuple(day.notes),
    )
