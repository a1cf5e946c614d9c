"""The mattes of the last images, so that a picture that comes again skips the engine."""

import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from isal import isal_zlib

from workers.batcher import Matte


@dataclass(frozen=True, slots=True)
class _Packed:
    """A matte in a tenth to a third of its memory: mattes are mostly 0 and 255."""

    alpha: bytes
    shape: tuple[int, ...]
    waited: float
    computed: float

    @classmethod
    def of(cls, matte: Matte) -> "_Packed":
        alpha = isal_zlib.compress(np.ascontiguousarray(matte.alpha), 1)
        return cls(alpha, matte.alpha.shape, matte.waited, matte.computed)

    def unpacked(self) -> Matte:
        alpha = np.frombuffer(isal_zlib.decompress(self.alpha), np.uint8).reshape(self.shape)
        return Matte(alpha, self.waited, self.computed)


class RecentMattes:
    """Remembers the last mattes by what went into the engine; one that is being computed counts too.

    Safe to use from many threads. Failures and cancelled computations are forgotten at once. Mattes are packed by those
    who ask, one for each question: `settle` is called by the engine's thread, which has no time for it.

    Args:
        most: mattes to remember; 0 remembers none, but still computes what is asked for twice at once only once.
        most_bytes: memory for them, in bytes.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._computing: dict[bytes, Future[Matte]] = {}
        self._finished: OrderedDict[bytes, Matte | _Packed] = OrderedDict()
        self._unpacked: deque[bytes] = deque()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def claim(self, digest: bytes) -> tuple[Future[Matte], bool]:
        """The matte of these pixels, and whether the caller has to compute it (and then `settle` it)."""
        self._pack_one()
        with self._lock:
            known = self._finished.get(digest)
            if known is None and digest not in self._computing:
                self.misses += 1
                future = self._computing[digest] = Future()
                return future, True
            self.hits += 1
            if known is None:
                return self._computing[digest], False
            self._finished.move_to_end(digest)
        future = Future()
        future.set_result(known.unpacked() if isinstance(known, _Packed) else known)
        return future, False

    def settle(self, digest: bytes, future: Future[Matte], computed: Future[Matte]) -> None:
        """Pass the outcome of `computed` on to `future`, and remember it when it is a matte."""
        error = None if computed.cancelled() else computed.exception()
        with self._lock:
            del self._computing[digest]
            if not computed.cancelled() and error is None:
                self._remember(digest, computed.result())
        if computed.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(computed.result())

    def _remember(self, digest: bytes, matte: Matte) -> None:
        if _size(matte) > self._most_bytes or not self._most:
            return
        self._finished[digest] = matte
        self._unpacked.append(digest)
        self._bytes += _size(matte)
        while len(self._finished) > self._most or self._bytes > self._most_bytes:
            self._bytes -= _size(self._finished.popitem(last=False)[1])

    def _pack_one(self) -> None:
        with self._lock:
            digest = self._unpacked.popleft() if self._unpacked else b""
            matte = self._finished.get(digest)
        if not isinstance(matte, Matte):  # there is none, or it was forgotten
            return
        try:
            packed = _Packed.of(matte)
        except MemoryError:  # it stays as it is; whoever asks has asked for another
            return
        with self._lock:
            if self._finished.get(digest) is matte:
                self._finished[digest] = packed
                self._bytes += _size(packed) - _size(matte)


def _size(matte: Matte | _Packed) -> int:
    return len(matte.alpha) if isinstance(matte, _Packed) else matte.alpha.nbytes
