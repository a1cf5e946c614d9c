"""When something is due: a cron line in a time zone.

Five fields as Celery's `crontab` reads them (minute, hour, day of month, month, day of week); where both days are
given, both must fit. A time that the clocks skip in spring comes right after the gap, one that they repeat in autumn
counts once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import product
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from celery.schedules import ParseException, crontab_parser

_DAYS = 4 * 366 + 1
"""How far to look: 29 February is at most eight years away, but who schedules that waits for another day."""


_SIZES = ((60, 0), (24, 0), (31, 1), (12, 1), (7, 0))


@dataclass(frozen=True)
class Timetable:
    """Scheduled times, as seconds since 1970 in UTC.

    Raises:
        ValueError: when the cron line or the time zone is none, or nothing is ever due.
    """

    cron: str
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        if next(self._walk(datetime.now(UTC).timestamp(), 1), None) is None:
            raise ValueError(f"{self.cron!r} is never due")

    def __str__(self) -> str:
        return f"{self.cron} {self.time_zone}"

    def last(self, now: float) -> float:
        """The latest scheduled time that is not after `now`; 0.0 when there is none for years."""
        return next((when for when in self._walk(now, -1) if when <= now), 0.0)

    def next(self, now: float) -> float:
        """The first scheduled time after `now`; infinite when there is none for years."""
        return next((when for when in self._walk(now, 1) if when > now), float("inf"))

    def local(self, when: float) -> str:
        """A scheduled time for people, such as 2026-11-24 02:00 CET."""
        return f"{datetime.fromtimestamp(when, self._zone):%Y-%m-%d %H:%M %Z}"

    def _walk(self, now: float, step: Literal[1, -1]) -> Iterator[float]:
        today, fields = datetime.fromtimestamp(now, self._zone).date(), self._fields
        # Local days may begin on another day of UTC, and a skipped time may fall past midnight: one day to spare.
        day = today - step * timedelta(days=1)
        for _ in range(_DAYS):
            if self._fits(day):
                times = sorted(product(fields.hour, fields.minute), reverse=step < 0)
                yield from (self._at(day, hour, minute) for hour, minute in times)
            day += step * timedelta(days=1)

    def _fits(self, day: date) -> bool:
        fields = self._fields
        return (
            day.month in fields.month and day.day in fields.day_of_month and day.isoweekday() % 7 in fields.day_of_week
        )

    def _at(self, day: date, hour: int, minute: int) -> float:
        return datetime.combine(day, time(hour, minute), self._zone).timestamp()

    @cached_property
    def _zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{self.time_zone!r} is no time zone: write one such as Europe/Berlin") from error

    @cached_property
    def _fields(self) -> "_Fields":
        parts = self.cron.split()
        if len(parts) != 5:
            raise ValueError(f"{self.cron!r} has {len(parts)} fields and not 5: write one such as 30 2 * * *")
        try:
            return _Fields(*(crontab_parser(*size).parse(part) for part, size in zip(parts, _SIZES, strict=True)))
        except (ParseException, ValueError) as error:
            raise ValueError(f"{self.cron!r} is no cron line: {error}") from error


@dataclass(frozen=True, slots=True)
class _Fields:
    minute: set[int]
    hour: set[int]
    day_of_month: set[int]
    month: set[int]
    day_of_week: set[int]
