"""What keeps runs moving: feeding, feeding again, finishing. One leader at a time; two for a moment harm nothing."""

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from types import TracebackType
from typing import Self

import structlog
from redis.exceptions import RedisError

from pipeline.errors import SetupError
from pipeline.ids import RunId
from pipeline.jobs import ENCODE_QUEUE, LONGEST, Job
from pipeline.ledger import FEEDING_LIMIT, LEADER, WAKE, Fed, Ledger, fill, impatient
from pipeline.manifest import PART_ROWS
from pipeline.runs import NewerRunError, RunSpec
from pipeline.settings import Settings
from workers.app import length, oldest
from workers.metrics import Metrics

log = structlog.get_logger(__name__)
_PAGE = 500
_LEASE_MS = 5000
_RECLAIM_SECONDS = 2.0
_REPORT_PAUSES = (2.0, 5.0, 15.0, 30.0, 60.0)
_RENEW = """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0"""
_RELEASE = """if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"""


class StoppedError(Exception):
    """The reports were not finished because this process ends; another leader writes them."""


class Housekeeper:
    """Does the housekeeping while it leads; a context manager, at whose end another may lead at once.

    Args:
        ledger: the ledger.
        publish: sends jobs with a priority.
        finish: writes the reports of a run whose last item is finished; called in a thread of its own, so that a
            large report neither costs the lead nor holds up other runs. After StoppedError the next leader does it
            again, after any other error but a SetupError this one does, after `pauses`; the last error is kept with
            the run.
        settings: marks and timeouts.
        part: moves rows of a long run from Redis into a part of its manifest; called beside `finish`.
        metrics: counts what it does.
        pauses: seconds before each further try to write reports: a full disk, a sick S3 or a kill passes.
    """

    def __init__(
        self,
        ledger: Ledger,
        publish: Callable[[Sequence[Job], int], None],
        finish: Callable[[RunId], None],
        settings: Settings,
        part: Callable[[RunId], None] = lambda run: None,
        metrics: Metrics | None = None,
        pauses: Sequence[float] = _REPORT_PAUSES,
    ) -> None:
        self._ledger = ledger
        self._publish = publish
        self._finish = finish
        self._settings = settings
        self._me = secrets.token_hex(8)
        self._renew = ledger.client.register_script(_RENEW)
        self._reclaimed = 0.0
        self._reports = ThreadPoolExecutor(1, thread_name_prefix="reports")
        self._closing: dict[RunId, Future[None]] = {}
        self._pauses = pauses
        self._failures: dict[RunId, int] = {}
        self._again: dict[RunId, float] = {}
        self._parts: dict[RunId, Future[None]] = {}
        self._part = part
        self._metrics = metrics or Metrics()
        self._full = False
        self._leads = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reports.shutdown(cancel_futures=True)
        if self._leads:
            # Without it the next one waits until the lease has run out; that is no reason to wait for Redis here.
            with contextlib.suppress(RedisError, OSError), impatient(self._settings) as client:
                client.eval(_RELEASE, 1, LEADER, self._me)

    def step(self) -> bool:
        """Lead, if nobody else does, and do what is due now; returns whether this one leads."""
        self._leads = False
        self._leads = self._renew(keys=[LEADER], args=[self._me, _LEASE_MS]) == 1
        if not self._leads:
            return False
        reclaim = time.monotonic() - self._reclaimed >= _RECLAIM_SECONDS
        if reclaim:
            self._reclaimed = time.monotonic()
        self._look_at_memory()
        failed: list[Exception] = []
        for run in reversed(self._ledger.runs(active=True)):
            try:
                self._tend(run, reclaim)
            except Exception as error:  # noqa: BLE001 - what cannot be sent or read of one run holds up no other
                failed.append(error)
        if failed:
            raise failed[0]
        return True

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as somebody has work for a feeder."""
        leads, self._leads = self._leads, False  # and so it stays where Redis is away: there is nothing to give up
        self._ledger.client.brpop([WAKE], timeout=seconds)
        self._leads = leads

    def _look_at_memory(self) -> None:
        share = fill(self._ledger.client)
        if self._full != (share >= FEEDING_LIMIT):
            self._full = not self._full
            if self._full:
                log.warning("redis_full", used=round(share, 3), limit=FEEDING_LIMIT)
            else:
                log.info("redis_has_room", used=round(share, 3))

    def _tend(self, run: RunId, reclaim: bool) -> None:
        try:
            spec = self._ledger.spec(run)
        except NewerRunError as error:
            log.warning("run_refused", run=run, error=str(error))
            return
        except SetupError:
            self._ledger.forget_expired()
            return
        if reclaim:
            if self._ledger.abandon_listing(run):
                self._metrics.kept_house("listing_abandoned")
                log.warning("listing_abandoned", run=run)
            back = self._ledger.reclaim(run, self._oldest(run))
            self._metrics.kept_house("reclaimed", back)
            if back:
                log.warning("reclaimed", run=run, items=back)
        self._feed(spec)
        counts = self._ledger.counts(run)
        if counts.state == "listed" and counts.pending == 0:
            self._close(run)
        elif reclaim and self._ledger.row_count(run) >= (_PAGE if self._full else PART_ROWS):
            self._write_part(run)

    def _feed(self, spec: RunSpec) -> None:
        """Fill the matte queues up to the mark when they are half empty: seldom and much makes full messages.

        When Redis is nearly full, engines get nothing more; what waits for encoding goes on, because it frees memory.
        """
        client = self._ledger.client
        queues = [f"matte.{spec.model}.{size_bucket}" for size_bucket in spec.size_buckets]
        waiting = sum(length(client, queue) for queue in queues) * max(self._chunk(spec), 1)
        room = self._settings.queue_mark - waiting
        if 2 * waiting > self._settings.queue_mark or length(client, ENCODE_QUEUE) >= self._settings.encode_mark:
            room = 0
        if self._full:
            room = 0
        while True:
            fed = self._ledger.feed(spec, _PAGE, max(min(room, _PAGE), 0))
            self._send(spec, fed)
            room -= len(fed)
            if len(fed) < _PAGE or room <= 0:
                return

    def _send(self, spec: RunSpec, fed: list[Fed]) -> None:
        jobs: list[Job] = []
        for queue, group in groupby(sorted(fed, key=lambda one: one.queue), key=lambda one: one.queue):
            chunk = 1 if queue == ENCODE_QUEUE else self._chunk(spec)
            items = list(group)
            for start in range(0, len(items), chunk):
                part = items[start : start + chunk]
                jobs.append(Job(spec.run, [o.item.id for o in part], [o.item.key for o in part], part[0].fed, queue))
        if jobs:
            self._publish(jobs, spec.priority)
            self._metrics.kept_house("fed", len(fed))

    def _chunk(self, spec: RunSpec) -> int:
        """Keys in a message: one while a run is small, so that each is a row in Flower; up to 32 for large ones."""
        wanted = spec.chunk or self._settings.chunk
        return wanted or min(max(self._ledger.counts(spec.run).listed // 200, 1), LONGEST)

    def _oldest(self, run: RunId) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for queue in self._ledger.queues(run):
            try:
                found[queue] = oldest(self._ledger.client, queue)
            except ValueError as error:
                log.warning("queue_unreadable", queue=queue, error=str(error))
        return found

    def _write_part(self, run: RunId) -> None:
        writing = self._parts.get(run)
        if writing is not None and not writing.done():
            return
        if writing is not None and (reason := writing.exception()) is not None:
            log.warning("part_failed", run=run, error=str(reason))  # the rows stay in Redis; now once more
        self._parts[run] = self._reports.submit(self._part, run)

    def _close(self, run: RunId) -> None:
        """Start writing the reports, or close the run when they are written."""
        closing = self._closing.get(run)
        if closing is None:
            if time.monotonic() < self._again.get(run, 0.0):
                return
            closing = self._closing[run] = self._reports.submit(self._finish, run)
            closing.add_done_callback(lambda _: self._ledger.wake())
        if not closing.done():
            return
        del self._closing[run]
        self._parts.pop(run, None)
        reason = closing.exception()
        if isinstance(reason, StoppedError):
            return
        if reason is not None:
            self._metrics.kept_house("report_failed")
            tried = self._failures[run] = self._failures.get(run, 0) + 1
            if not isinstance(reason, SetupError) and tried <= len(self._pauses):
                log.warning("report_broke_off", run=run, tried=tried, error=str(reason))
                self._again[run] = time.monotonic() + self._pauses[tried - 1]
                return
            log.error("report_failed", run=run, exc_info=reason)
        self._failures.pop(run, None)
        self._again.pop(run, None)
        self._ledger.close(run, str(reason) if reason else "")
        counts = self._ledger.counts(run)
        self._metrics.kept_house("run_finished")
        log.info("run_finished", run=run, listed=counts.listed, done=counts.done, failed=counts.failed)
