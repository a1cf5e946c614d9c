"""The uploads of an encode child, that go on while the next cutout is made: S3's answer is a long way off."""

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pipeline.ledger import Ledger, Taken

log = structlog.get_logger(__name__)
MOST = 4
"""Uploads at once in one child: enough for an answer that takes four times as long as a cutout."""
MOST_BYTES = 16 << 20
"""Of all of them together."""


@dataclass(slots=True)
class _Going:
    size: int
    began: float
    late: Callable[[], object] | None


class Uploads:
    """Runs up to four uploads, of 16 MB together, each in a thread; a larger one is waited for.

    What is on its way stays held by touches from here: its message is worked off when the next cutout is begun.
    `start` is for one thread.

    Args:
        ledger: is touched.
        interval: seconds between two touches.
        deadline: seconds after which an upload is late.
    """

    def __init__(self, ledger: Ledger, interval: float, deadline: float) -> None:
        self._ledger = ledger
        self._interval = interval
        self._deadline = deadline
        self._going: dict[Taken, _Going] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watch uploads", daemon=True).start()

    def start(self, taken: Taken, size: int, upload: Callable[[], object], late: Callable[[], object]) -> None:
        """Begin an upload of `size` bytes once there is room; where that takes too long the image is given back.

        Args:
            taken: whose it is.
            size: of what is uploaded.
            upload: what it raises is logged, and the ledger brings the image back.
            late: called once, from another thread, when it takes too long; the image is not touched any more then.
        """
        if size > MOST_BYTES:  # the next cutout would have to be kept beside it
            self._run(taken, upload)
            return
        with self._changed:
            # Whoever holds up the others is late by then or soon will be; this one must not be blamed for it.
            if not self._changed.wait_for(lambda: self._has_room(size), self._deadline / 2):
                self._ledger.give_back([taken])
                log.warning("uploads_stuck", run=taken.run, key=taken.item.key)
                return
            self._going[taken] = _Going(size, time.monotonic(), late)
        context = contextvars.copy_context()
        try:
            threading.Thread(target=context.run, args=(self._run, taken, upload), name="upload", daemon=True).start()
        except RuntimeError:  # no thread can be had
            self._run(taken, upload)

    def close(self, patience: float) -> None:
        """Wait until all have ended, for so many seconds; what has not is given back. Idempotent."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._going, patience):
                log.warning("uploads_left", given_back=len(self._going))
                self._ledger.give_back(self._going)
        self._closed.set()

    def _has_room(self, size: int) -> bool:
        return len(self._going) < MOST and sum(one.size for one in self._going.values()) + size <= MOST_BYTES

    def _run(self, taken: Taken, upload: Callable[[], object]) -> None:
        try:
            upload()
        except Exception:
            log.exception("upload_broke", run=taken.run, key=taken.item.key)
        finally:
            with self._changed:
                self._going.pop(taken, None)
                self._changed.notify_all()

    def _watch(self) -> None:
        while not self._closed.wait(self._interval):
            with self._changed:
                going = list(self._going.items())
            for taken, one in going:
                try:
                    if time.monotonic() - one.began < self._deadline:
                        self._ledger.touch(taken.run, [(taken.item.id, taken.fed)])
                    elif (late := one.late) is not None:
                        one.late = None
                        late()
                except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the next touch may get through
                    log.warning("touch_failed", error=str(error))
