"""The mattes of the last images, so that a picture that comes again skips the engine."""

import threading
from collections import OrderedDict
from concurrent.futures import Future

from workers.batcher import Matte


class RecentMattes:
    """Remembers the last mattes by what went into the engine; one that is being computed counts too.

    Safe to use from many threads. Failures and cancelled computations are forgotten at once.

    Args:
        most: mattes to remember; 0 remembers none, but still computes what is asked for twice at once only once.
        most_bytes: pixels to remember, in bytes.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._sizes: dict[bytes, int] = {}
        self._computing: dict[bytes, Future[Matte]] = {}
        self._finished: OrderedDict[bytes, Future[Matte]] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def claim(self, digest: bytes) -> tuple[Future[Matte], bool]:
        """The matte of these pixels, and whether the caller has to compute it (and then `settle` it)."""
        with self._lock:
            known = self._finished.get(digest)
            if known is not None:
                self._finished.move_to_end(digest)
            else:
                known = self._computing.get(digest)
            if known is not None:
                self.hits += 1
                return known, False
            self.misses += 1
            future = self._computing[digest] = Future()
            return future, True

    def settle(self, digest: bytes, future: Future[Matte], computed: Future[Matte]) -> None:
        """Pass the outcome of `computed` on to `future`, and remember it when it is a matte."""
        error = None if computed.cancelled() else computed.exception()
        with self._lock:
            del self._computing[digest]
            if not computed.cancelled() and error is None:
                self._remember(digest, future, computed.result().alpha.nbytes)
        if computed.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(computed.result())

    def _remember(self, digest: bytes, future: Future[Matte], size: int) -> None:
        if size > self._most_bytes or not self._most:
            return
        self._finished[digest] = future
        self._sizes[digest] = size
        self._bytes += size
        while len(self._finished) > self._most or self._bytes > self._most_bytes:
            oldest, _ = self._finished.popitem(last=False)
            self._bytes -= self._sizes.pop(oldest)
