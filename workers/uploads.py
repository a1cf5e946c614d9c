"""The uploads of an encode child, that go on while the next cutout is made: S3's answer is a long way off."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from pipeline.ledger import Ledger, Taken

log = structlog.get_logger(__name__)
MOST = 4
"""Uploads at once in one child: enough for an answer that takes four times as long as a cutout."""
MOST_BYTES = 16 << 20


class Uploads:
    """Runs up to four uploads of 16 MB together, or a single larger one, each in a thread.

    What is on its way stays held by touches from here: its message is worked off when the next cutout is begun.

    Args:
        ledger: is touched.
        interval: seconds between two touches.
    """

    def __init__(self, ledger: Ledger, interval: float) -> None:
        self._ledger = ledger
        self._interval = interval
        self._going: dict[Taken, int] = {}
        self._changed = threading.Condition()
        self._threads = ThreadPoolExecutor(MOST, thread_name_prefix="upload")
        self._closed = threading.Event()
        threading.Thread(target=self._touch, name="touch uploads", daemon=True).start()

    def start(self, taken: Taken, size: int, upload: Callable[[], object]) -> None:
        """Begin an upload, of `size` bytes, once there is room; what it raises is logged, the ledger brings it back."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size))
            self._going[taken] = size
        self._threads.submit(contextvars.copy_context().run, self._run, taken, upload)

    def close(self) -> None:
        """Wait until all have ended. Idempotent."""
        self._threads.shutdown()
        self._closed.set()

    def _has_room(self, size: int) -> bool:
        return not self._going or (len(self._going) < MOST and sum(self._going.values()) + size <= MOST_BYTES)

    def _run(self, taken: Taken, upload: Callable[[], object]) -> None:
        try:
            upload()
        except Exception:
            log.exception("upload_broke", run=taken.run, key=taken.item.key)
        finally:
            with self._changed:
                del self._going[taken]
                self._changed.notify()

    def _touch(self) -> None:
        while not self._closed.wait(self._interval):
            with self._changed:
                going = list(self._going)
            for taken in going:
                try:
                    self._ledger.touch(taken.run, [(taken.item.id, taken.fed)])
                except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the next touch may get through
                    log.warning("touch_failed", error=str(error))
