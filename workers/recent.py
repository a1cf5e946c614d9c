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
        self._known: OrderedDict[bytes, Future[Matte]] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def claim(self, digest: bytes) -> tuple[Future[Matte], bool]:
        """The matte of these pixels, and whether the caller has to compute it (and then `settle` it)."""
        with self._lock:
            known = self._known.get(digest)
            if known is not None and not known.cancelled():
                self._known.move_to_end(digest)
                self.hits += 1
                return known, False
            self.misses += 1
            future = self._known[digest] = Future()
            return future, True

    def settle(self, digest: bytes, future: Future[Matte], computed: Future[Matte]) -> None:
        """Pass the outcome of `computed` on to `future`, and remember it when it is a matte."""
        error = None if computed.cancelled() else computed.exception()
        if computed.cancelled() or error is not None:
            with self._lock:
                if self._known.get(digest) is future:
                    del self._known[digest]
            if error is None:
                future.cancel()
            else:
                future.set_exception(error)
            return
        future.set_result(computed.result())
        with self._lock:
            self._bytes += computed.result().alpha.nbytes
            finished = [digest for digest, known in self._known.items() if known.done()]
            for oldest in finished[: max(len(finished) - self._most, 0)]:
                self._forget(oldest)
            for oldest in finished[max(len(finished) - self._most, 0) :]:
                if self._bytes <= self._most_bytes:
                    break
                self._forget(oldest)

    def _forget(self, digest: bytes) -> None:
        self._bytes -= self._known.pop(digest).result().alpha.nbytes
