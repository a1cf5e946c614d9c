"""Which images have small pictures in the report of their run."""

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final

from pipeline.ids import ItemId, RunId
from pipeline.ledger import Ledger, fill

ALL: Final = 500
"""Up to so many images all have their pictures in the report; of more, a sample has."""
SAMPLE: Final = 100
_MORE: Final = 1.3
"""A sample by hash is now and then a little small."""
_FEW: Final = 100
_SIDE, _SMALL_SIDE = 480, 256
"""Pixels of the longer side, in runs of few images and of more."""
_FULL: Final = 0.5
"""Share of Redis's maxmemory from which no picture is made: long before listing stops."""
_LOOK_SECONDS: Final = 1.0
_RUNS: Final = 100


def sample(items: Sequence[ItemId], most: int) -> list[int]:
    """Which `most` of these to show: the same order by hash that decides who has pictures, so none is ahead."""
    by_hash = sorted(range(len(items)), key=lambda index: zlib.crc32(items[index].encode()))
    return sorted(by_hash[:most])


class PreviewSizes:
    """Says how large the pictures of the images are to be that one process encodes. For one thread.

    How many images a run has is known in the end; until then pictures are made for what it has so far.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._looks: dict[RunId, tuple[float, int]] = {}

    def of(self, run: RunId, item: ItemId) -> int:
        """Pixels of the longer side of this image's pictures; 0 for none."""
        count = self._count(run)
        if not count or (count > ALL and zlib.crc32(item.encode()) * count > _MORE * SAMPLE * (1 << 32)):
            return 0
        return _SIDE if count <= _FEW else _SMALL_SIDE

    def _count(self, run: RunId) -> int:
        """How many images the run has to do, as far as it is listed; 0 where it shall have no pictures."""
        now = self._clock()
        looked, count = self._looks.get(run, (-_LOOK_SECONDS, 0))
        if now - looked >= _LOOK_SECONDS:
            counts = self._ledger.counts(run)
            count = counts.listed - counts.skipped if fill(self._ledger.client) < _FULL else 0
            self._looks.pop(run, None)
            if len(self._looks) >= _RUNS:
                del self._looks[next(iter(self._looks))]
            self._looks[run] = now, count
        return count
