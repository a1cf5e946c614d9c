"""How fast runs move now, and when they will be done."""

from collections import OrderedDict, deque

from pipeline.ids import RunId
from pipeline.ledger import Counts

_WINDOW = 60.0
_APART = 2.0
_MOST_RUNS = 256


class Rates:
    """Remembers of each run some counts of the last minute; only while somebody looks."""

    def __init__(self) -> None:
        self._seen: OrderedDict[RunId, deque[tuple[float, int]]] = OrderedDict()

    def note(self, run: RunId, counts: Counts) -> float:
        """Take a look at a run; gives images per second, of the last minute or else since the run began."""
        samples = self._seen.setdefault(run, deque(maxlen=round(_WINDOW / _APART) + 1))
        self._seen.move_to_end(run)
        while len(self._seen) > _MOST_RUNS:
            self._seen.popitem(last=False)
        if not samples or counts.now - samples[-1][0] >= _APART:
            samples.append((counts.now, counts.finished))
        while len(samples) > 1 and counts.now - samples[0][0] > _WINDOW:
            samples.popleft()
        at, finished = samples[0]
        if counts.now - at >= _APART:
            return max(counts.finished - finished, 0) / (counts.now - at)
        return average(counts)


def average(counts: Counts) -> float:
    """Images that were done per second, as a summary has it, from the run's beginning to its last move."""
    return counts.done / max(counts.moved - counts.created, 0.001)


def seconds_left(counts: Counts, rate: float) -> float | None:
    """Seconds until the last image; None while nobody can say: it is still listed, or nothing moves."""
    if counts.state != "listed" or not counts.pending or rate <= 0:
        return None
    return counts.pending / rate
