"""Keeps one bad night from filling a disk: of the same warning only so many lines a minute are written."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

_WINDOW = 60.0
_SAMPLED = ("warning", "error", "exception")


@dataclass(slots=True)
class _Window:
    began: float
    method: str
    lines: int = 0
    left_out: int = 0


class Repeats:
    """A structlog processor that leaves out warnings and errors of one event and code beyond `most` a minute.

    How many were left out is said once, by a line `lines_left_out`, with the next line of whatever kind that this
    process writes after the minute, or at its end (`close`). Critical lines are always written.

    Args:
        most: lines a minute of the same event and code.
        say: writes that line, with the method, event and code of those and their count.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        most: int,
        say: Callable[[str, str, str, int], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._say = say
        self._clock = clock
        # No lock: a fork might inherit it held. Each step on the dictionary is atomic; threads that meet cost a count.
        self._windows: dict[tuple[str, str], _Window] = {}

    def __call__(self, logger: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        """Pass the line on, or raise DropEvent."""
        now = self._clock()
        self._end(now - _WINDOW)
        if method not in _SAMPLED:
            return event
        window = self._windows.setdefault((str(event.get("event")), str(event.get("code", ""))), _Window(now, method))
        window.lines += 1
        if window.lines > self._most:
            window.left_out += 1
            raise structlog.DropEvent
        return event

    def close(self) -> None:
        """Say what was left out so far."""
        self._end(self._clock())

    def _end(self, before: float) -> None:
        for key, window in list(self._windows.items()):
            if window.began <= before and self._windows.pop(key, None) is not None and window.left_out:
                self._say(window.method, *key, window.left_out)
