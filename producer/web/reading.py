"""Everything the live page knows; it reads, and a look never scans the ledger's items.

A look at the list of runs reads the counts of the runs that go on; what is finished does not change and is remembered.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from pipeline.errors import SetupError
from pipeline.ids import ETag, ItemId, Key, RunId
from pipeline.jobs import ENCODE_QUEUE
from pipeline.ledger import LEADER, RUNS, Counts, LedgerReader
from pipeline.runs import NewerRunError, RunSpec
from pipeline.settings import Settings
from pipeline.storage import Fetched, Head, ObjectStore, Page
from producer.report import Card
from producer.web.heartbeats import Heartbeats, Worker
from producer.web.previews import Previews
from producer.web.rates import Rates, average, seconds_left
from producer.web.results import Results, RunResults

RUNS_SHOWN = 50
_FRESH = 1.0
_REMEMBERED = 512
_FOLLOWED = 64
_STILL = 60.0
_T = TypeVar("_T")


class ReadOnly:
    """An `ObjectStore` that refuses to write."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def check_bucket(self, bucket: str) -> None:
        """As the store."""
        self._store.check_bucket(bucket)

    def list_page(self, bucket: str, prefix: str, token: str | None = None) -> Page:
        """As the store."""
        return self._store.list_page(bucket, prefix, token)

    def head(self, bucket: str, key: Key) -> Head | None:
        """As the store."""
        return self._store.head(bucket, key)

    def get(self, bucket: str, key: Key, *, etag: ETag | None = None, max_bytes: int) -> Fetched:
        """As the store."""
        return self._store.get(bucket, key, etag=etag, max_bytes=max_bytes)

    def peek(self, bucket: str, key: Key, most: int, *, etag: ETag) -> bytes:
        """As the store."""
        return self._store.peek(bucket, key, most, etag=etag)

    def put(
        self,
        bucket: str,
        key: Key,
        body: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        if_match: ETag | None = None,
        if_none_match: bool = False,
    ) -> NoReturn:
        """Raises PermissionError."""
        raise PermissionError("the live page writes nothing")

    def delete(self, bucket: str, key: Key) -> NoReturn:
        """Raises PermissionError."""
        raise PermissionError("the live page deletes nothing")


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in the list.

    Attributes:
        state: "listing", "working", "closing", "finished", "cancelled" or "incomplete".
        rate: images per second, of the last minute while it goes on, else of the whole run.
        left: seconds until its end, None when nobody can say.
        still: seconds since anything moved; 0 when that is less than a minute, or the run is finished.
    """

    spec: RunSpec
    counts: Counts
    state: str
    rate: float
    left: float | None
    still: float


@dataclass(frozen=True, slots=True)
class Overview:
    """The list of runs, newest first, and how things stand.

    Attributes:
        known: how many runs there are; `lines` and `newer` have the newest 50.
        newer: runs that a newer version has started, of which this one knows no more.
        led: whether anybody keeps house.
        settled: whether every living worker must have been heard by now.
        waiting: images that wait for the network, in all runs that are shown.
        encoding: images that wait for encoding.
        rate: images per second, of all runs in which some are pending.
    """

    lines: tuple[RunLine, ...]
    newer: tuple[RunId, ...]
    known: int
    led: bool
    settled: bool
    workers: tuple[Worker, ...]
    waiting: int
    encoding: int
    rate: float


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run; `places` says how many unfinished images are where."""

    line: RunLine
    places: Mapping[str, int]
    results: Results


class _Fresh(Generic[_T]):
    """Gives everybody who asks within a second the same answer, and has it made once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[float, _T] | None = None

    def get(self, make: Callable[[], _T]) -> _T:
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > _FRESH:
                self._made = (time.monotonic(), make())
            return self._made[1]


class Reader:
    """Answers what the page asks; safe to use from many threads, and bounded in what it remembers."""

    def __init__(self, ledger: LedgerReader, store: ObjectStore, settings: Settings, heartbeats: Heartbeats) -> None:
        self._ledger = ledger
        self._store = ReadOnly(store)
        self._heartbeats = heartbeats
        self._previews = Previews(self._store, settings, settings.web_preview_bytes)
        self._rates = Rates()
        self._lock = threading.Lock()
        self._finished: OrderedDict[RunId, RunLine] = OrderedDict()
        self._followed: OrderedDict[RunId, tuple[RunResults, _Fresh[RunPage]]] = OrderedDict()
        self._overview = _Fresh[Overview]()

    def overview(self) -> Overview:
        """How things stand, at most a second old.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        return self._overview.get(self._look_around)

    def run(self, run: RunId) -> RunPage:
        """One run, at most a second old.

        Raises:
            SetupError: when the ledger does not know it (any more).
            redis.RedisError: Redis does not answer.
        """
        results, fresh = self._follow(run)
        return fresh.get(lambda: self._look_at(run, results))

    def preview(self, run: RunId, item: ItemId) -> Card | None:
        """The small pictures of an image that is, or was lately, among a run's newest results.

        Raises:
            SetupError: when the ledger does not know the run (any more).
            redis.RedisError: Redis does not answer.
        """
        page = self.run(run)  # fills the results of a page that was loaded before this process began
        row = self._follow(run)[0].row(item)
        return self._previews.get(page.line.spec, row) if row is not None else None

    def healthy(self) -> None:
        """Raises redis.RedisError when Redis does not answer."""
        self._ledger.client.ping()

    def _look_around(self) -> Overview:
        client = self._ledger.client
        lines, newer = [], []
        for run in self._ledger.runs(most=RUNS_SHOWN):
            try:
                lines.append(self._line(run))
            except NewerRunError:
                newer.append(run)
            except SetupError:
                continue  # its time is over
        places = [self._ledger.places(line.spec.run) for line in lines if line.counts.state != "finished"]
        return Overview(
            lines=tuple(lines),
            newer=tuple(newer),
            known=client.zcard(RUNS),
            led=client.exists(LEADER) == 1,
            settled=self._heartbeats.settled,
            workers=tuple(self._heartbeats.workers()),
            waiting=sum(
                count for place in places for name, count in place.items() if name == "todo" or ":matte." in name
            ),
            encoding=sum(place["todo:encode"] + place.get(f"waiting:{ENCODE_QUEUE}", 0) for place in places),
            rate=sum(line.rate for line in lines if line.counts.pending),
        )

    def _look_at(self, run: RunId, results: RunResults) -> RunPage:
        line = self._line(run)
        finished = line.counts.state == "finished"
        return RunPage(line, {} if finished else self._ledger.places(run), results.look(finished=finished))

    def _line(self, run: RunId) -> RunLine:
        with self._lock:
            if run in self._finished:
                return self._finished[run]
        spec, counts = self._ledger.spec(run), self._ledger.counts(run)
        finished = counts.state == "finished"
        with self._lock:
            rate = average(counts) if finished else self._rates.note(run, counts)
            still = 0.0 if finished or counts.now - counts.moved < _STILL else counts.now - counts.moved
            line = RunLine(spec, counts, _state(counts), rate, seconds_left(counts, rate), still)
            if finished:
                self._finished[run] = line
                while len(self._finished) > _REMEMBERED:
                    self._finished.popitem(last=False)
        return line

    def _follow(self, run: RunId) -> tuple[RunResults, _Fresh[RunPage]]:
        with self._lock:
            if run in self._followed:
                self._followed.move_to_end(run)
                return self._followed[run]
        made = RunResults(self._ledger, self._store, self._ledger.spec(run)), _Fresh[RunPage]()
        with self._lock:
            made = self._followed.setdefault(run, made)
            while len(self._followed) > _FOLLOWED:
                self._followed.popitem(last=False)
        return made


def _state(counts: Counts) -> str:
    if counts.error:
        return "incomplete"
    if counts.cancelled:
        return "cancelled"
    if counts.state == "listed":
        return "working" if counts.pending else "closing"
    return counts.state
