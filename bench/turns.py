"""Two or more ways to do one thing, turn by turn, in processor time: what others do on the machine hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run every way once a round, the order turned round each time; processor seconds of each run."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            started = time.process_time()
            ways[name]()
            seconds[name].append(time.process_time() - started)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def caveats(doc: str | None) -> str:
    """What a bench's docstring says after "Caveats:"."""
    return " ".join((doc or "").split("Caveats: ")[1].split())
