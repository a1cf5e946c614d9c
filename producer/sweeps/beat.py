"""Celery's beat, which starts nothing but the sweeps of the file, and the nightly clean-up.

It sends no messages: listing a million keys would hold up whoever takes them. What is due is started as a process of
its own, `mattemill sweeps run NAME --due`, which asks the ledger once more; so any number of beats may run.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import FrameType
from typing import IO, NoReturn

import structlog
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler, Service
from celery.schedules import BaseSchedule, schedstate

from producer.metrics import BeatMetrics
from producer.sweeps.nights import Nights, Scheduled

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 15.0
_RUNNING_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 30.0, 900.0
_GRACE = 5.0


class Starter:
    """Starts the process of one schedule when a night is due, and again, with growing pauses, when that failed."""

    def __init__(self, nights: Nights, scheduled: Scheduled, arguments: Sequence[str], metrics: BeatMetrics) -> None:
        self._nights = nights
        self._metrics = metrics
        self._scheduled = scheduled
        self._arguments = arguments
        self._child: subprocess.Popen[bytes] | None = None
        self._told: IO[bytes] | None = None
        self._failures = 0
        self._again = 0.0
        self._said = ""

    @property
    def name(self) -> str:
        """What it starts."""
        return self._scheduled.name

    def look(self) -> tuple[bool, float]:
        """Whether to start now, and in how many seconds to look again."""
        if self._child is not None and not self._ended(self._child):
            return False, _RUNNING_SECONDS
        if (pause := self._again - time.monotonic()) > 0:
            return False, pause
        outlook = self._nights.look(self._scheduled)
        if outlook.what == "waits":
            self._say(f"{outlook.night} {outlook.record.run}", run=outlook.record.run)
        return outlook.what == "due", max(min(outlook.next - outlook.now, _LOOK_SECONDS), _RUNNING_SECONDS)

    def start(self) -> None:
        """Start the process; from the thread that lives as long as this process."""
        log.info("sweep_due", sweep=self.name)
        command = [sys.executable, "-m", "producer.commands", *self._arguments]
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._told
        )  # fmt: skip

    def end(self) -> None:
        """Stop the process: what it has not listed is listed again."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _ended(self, child: subprocess.Popen[bytes]) -> bool:
        if child.poll() is None:
            return False
        self._child = None
        self._metrics.started(self.name, well=child.returncode == 0)
        *before, last = self._what_it_told() or [""]
        if child.returncode == 0:
            self._failures = 0
            before.append(last)
        else:
            pause = min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE)
            self._failures, self._again = self._failures + 1, time.monotonic() + pause
            reason = last.removeprefix("mattemill: ") or f"its process ended with status {child.returncode}"
            log.warning(
                "sweep_not_started", sweep=self.name, status=child.returncode, again_in=pause, error=reason
            )  # fmt: skip
        for line in before:
            if line:
                print(line, file=sys.stderr)  # noqa: T201 - its own log
        return True

    def _what_it_told(self) -> list[str]:
        """The lines on its standard error; the last is the sentence that it ended with."""
        if self._told is None:
            return []
        with self._told as file:
            file.seek(0)
            self._told = None
            return file.read().decode(errors="replace").splitlines()

    def _say(self, what: str, **values: object) -> None:
        if what != self._said:
            self._said = what
            log.warning("sweep_waits", sweep=self.name, **values)


class _Timer(BaseSchedule):
    """Asks a starter instead of a clock of its own."""

    def __init__(self, starter: Starter, app: Celery) -> None:
        super().__init__(app=app)
        self.starter = starter

    def is_due(self, last_run_at: datetime) -> schedstate:
        due, again = self.starter.look()
        return schedstate(due, _RUNNING_SECONDS if due else again)


class _Starters(Scheduler):
    """A scheduler that starts processes; the ledger is its memory."""

    starters: Sequence[Starter] = ()
    max_interval = 5
    producer = None  # type: ignore[assignment]  # nothing is sent: no connection to the broker is opened

    def setup_schedule(self) -> None:
        self.data = {
            starter.name: ScheduleEntry(
                starter.name, task="start", schedule=_Timer(starter, self.app), app=self.app
            )
            for starter in self.starters
        }  # fmt: skip

    def apply_entry(self, entry: ScheduleEntry, producer: object = None) -> None:
        next(starter for starter in self.starters if starter.name == entry.name).start()


def run_beat(app: Celery, starters: Iterable[Starter]) -> None:
    """Start what is due until SIGTERM or SIGINT, or until whoever started this process is gone."""
    mine = tuple(starters)
    parent = os.getppid()

    class Here(_Starters):
        starters = mine

        def tick(self, *args: object, **kwargs: object) -> float:
            if os.getppid() != parent:
                raise SystemExit(0)
            return super().tick()

    def stop(_: int, __: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("beat_started", sweeps=[starter.name for starter in mine])
    try:
        Service(app, scheduler_cls=Here).start()
    finally:
        for starter in mine:
            starter.end()
