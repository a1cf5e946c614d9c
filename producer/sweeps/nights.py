"""Which night of what is scheduled is due, and who takes it: one record in Redis for each name.

A night is a scheduled time. Whoever takes one changes the record only if it is still the one that was looked at, so of
two that try, one does; only Redis's clock counts. What stands there:

- a night that nobody has taken is due, the last one only: several missed nights are one;
- a night whose predecessor's run is not finished waits for it, so that nothing is done twice and nothing piles up;
- a night whose listing broke off is due again, three times at most.

Times before the name and its timetable were first seen are nobody's. That moment is also kept below MATTEMILL_HOME, so
that after the loss of Redis the last night is started again.
"""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, cast

from pipeline.errors import SetupError
from pipeline.ids import RunId
from pipeline.ledger import Counts, Ledger
from producer.sweeps.timetable import Timetable

_SWAP = """if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2]) return 1"""
_GRACE = 120.0
"""Seconds from the taking of a night to its run, in which buckets are asked."""
_TRIES = 3


class Scheduled(Protocol):
    """What has nights."""

    @property
    def name(self) -> str:
        """Under which its record stands."""

    @property
    def timetable(self) -> Timetable:
        """When it is due."""


@dataclass(frozen=True, slots=True)
class Record:
    """What stands in Redis; times are seconds since 1970 by Redis's clock.

    Attributes:
        timetable: as text; another one begins anew.
        since: when it was first seen.
        night: the last scheduled time that was taken; 0 when none was.
        run: the last run; "" when there was none.
        taken: when that was taken.
        listed: its listing has ended.
        tries: how often this night was taken.
        by_hand: the last run was no night's.
    """

    timetable: str
    since: float
    night: float = 0
    run: str = ""
    taken: float = 0
    listed: bool = False
    tries: int = 0
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be done now.

    Attributes:
        what: "due"; "waits" for the end of the last run; "later" when there is nothing to do.
        night: the scheduled time that is due or waits.
        next: the next scheduled time.
        now: Redis's clock.
        record: what stands there.
    """

    what: Literal["due", "waits", "later"]
    night: float
    next: float
    now: float
    record: Record


class Nights:
    """Looks at nights and takes them.

    Args:
        ledger: the ledger.
        home: MATTEMILL_HOME.
        clock: seconds since 1970; by default Redis's.
    """

    def __init__(self, ledger: Ledger, home: Path, clock: Callable[[], float] | None = None) -> None:
        self._ledger = ledger
        self._seen = home / "sweeps.json"
        self._clock = clock or self._redis_clock
        self._swap = ledger.client.register_script(_SWAP)

    def look(self, scheduled: Scheduled) -> Outlook:
        """What is to be done of `scheduled` now."""
        timetable, now = scheduled.timetable, self._clock()
        text, record = self._read(scheduled.name)
        if record is None or record.timetable != str(timetable):
            fresh = replace(
                record or Record("", 0),
                timetable=str(timetable),
                since=self._first_seen(scheduled.name, timetable, now),
            )
            if not self._write(scheduled.name, text, fresh):
                return self.look(scheduled)
            record = fresh
        else:
            self._first_seen(scheduled.name, timetable, record.since)
        night = timetable.last(now)
        return Outlook(self._judge(record, night, now), night, timetable.next(now), now, record)

    def take(self, scheduled: Scheduled, outlook: Outlook, run: str, *, by_hand: bool = False) -> bool:
        """Take the night that is due, or none by hand, for this run; False when another was quicker."""
        old = outlook.record
        night = old.night if by_hand else outlook.night
        tries = 0 if by_hand or night != old.night else old.tries
        new = replace(
            old, night=night, run=run, taken=outlook.now, listed=False, tries=tries + 1, by_hand=by_hand
        )  # fmt: skip
        return self._write(scheduled.name, _dump(old), new)

    def listed(self, scheduled: Scheduled, run: str) -> None:
        """The listing of this run has ended."""
        text, record = self._read(scheduled.name)
        if record is not None and record.run == run:
            self._write(scheduled.name, text, replace(record, listed=True))

    def give_back(self, scheduled: Scheduled, run: str, before: Record) -> None:
        """This run did not come to be, with an error that was told: the night is as it was."""
        text, record = self._read(scheduled.name)
        if record is not None and record.run == run:
            self._write(scheduled.name, text, before)

    def progress(self, scheduled: Scheduled) -> tuple[float, Counts | None]:
        """Seconds since the first night that is owed, 0 when none is, and how the last run stands; changes nothing.

        A night is owed until its run is finished, without an error of its listing.
        """
        now, (_, record) = self._clock(), self._read(scheduled.name)
        if record is None or record.timetable != str(scheduled.timetable):
            return 0.0, None
        night, counts = scheduled.timetable.last(now), self._counts(record)
        if record.night and not record.by_hand and (self.unfinished(record, now) or self._broke_off(record, now)):
            return now - record.night, counts
        return (now - night if night > max(record.since, record.night) else 0.0), counts

    def unfinished(self, record: Record, now: float) -> bool:
        """Whether the record's run still goes on, or is only just coming to be."""
        counts = self._counts(record)
        if counts is None:
            return bool(record.run) and not record.listed and now - record.taken < _GRACE
        return counts.state != "finished"

    def _judge(self, record: Record, night: float, now: float) -> Literal["due", "waits", "later"]:
        if night <= record.since:
            return "later"
        if record.night >= night:
            return "due" if record.tries < _TRIES and self._broke_off(record, now) else "later"
        return "waits" if self.unfinished(record, now) else "due"

    def _broke_off(self, record: Record, now: float) -> bool:
        if record.by_hand or not record.run:
            return False
        counts = self._counts(record)
        if counts is None:  # a run that was listed may have left Redis since
            return not record.listed and now - record.taken >= _GRACE
        return counts.state == "finished" and bool(counts.error)

    def _counts(self, record: Record) -> Counts | None:
        if not record.run:
            return None
        try:
            return self._ledger.counts(RunId(record.run))
        except SetupError:
            return None

    def _read(self, name: str) -> tuple[str, Record | None]:
        raw = cast(bytes | None, self._ledger.client.get(_key(name)))
        return ("", None) if raw is None else (raw.decode(), Record(**json.loads(raw)))

    def _write(self, name: str, before: str, record: Record) -> bool:
        return bool(self._swap(keys=[_key(name)], args=[before, _dump(record)]) == 1)

    def _first_seen(self, name: str, timetable: Timetable, when: float) -> float:
        """When this was first seen by this home; says that it is `when` if it never was."""
        seen: dict[str, list[object]] = {}
        with contextlib.suppress(OSError, ValueError):  # a home that cannot be used forgets, and no more
            seen = json.loads(self._seen.read_text("utf-8"))
        known = seen.get(name)
        if known is not None and known[0] == str(timetable):
            return float(cast(float, known[1]))
        seen[name] = [str(timetable), when]
        with contextlib.suppress(OSError):
            self._seen.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._seen.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(seen), "utf-8")
            fresh.replace(self._seen)
        return when

    def _redis_clock(self) -> float:
        seconds, micros = self._ledger.client.time()
        return seconds + micros / 1e6


def _key(name: str) -> str:
    return f"mm:nights:{name}"


def _dump(record: Record) -> str:
    return json.dumps(asdict(record), separators=(",", ":"))
