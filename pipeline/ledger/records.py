"""What the ledger answers and takes: counts, listed keys, held items, fed items, rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import Code
from pipeline.ids import Key, RunId
from pipeline.runs import Item


@dataclass(frozen=True, slots=True)
class Counts:
    """Where a run stands; `pending` items are listed and not finished."""

    listed: int
    done: int
    skipped: int
    failed: int
    retried: int
    state: str
    error: str
    cancelled: bool
    created: float
    moved: float
    now: float

    @property
    def finished(self) -> int:
        """Items with an outcome."""
        return self.done + self.skipped + self.failed

    @property
    def pending(self) -> int:
        """Items without an outcome."""
        return self.listed - self.finished


@dataclass(frozen=True, slots=True)
class Listing:
    """One listed key with what is to become of it.

    `outcome` is "todo", "skipped" (its output is right), "failed", "conflict" (failed, because another source has
    claimed the output) or "no_image" (skipped, and its output is another source's to claim).
    """

    outcome: Literal["todo", "skipped", "failed", "conflict", "no_image"]
    item: Item
    source: str
    row: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """An item that this process holds now, under the feeding `fed`.

    Attributes:
        alpha: what the matte stage left.
        suspect: it was in an engine whose process ended; it must run alone.
    """

    run: RunId
    item: Item
    fed: int
    alpha: bytes | None
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Fed:
    """An item whose message is to be published now."""

    item: Item
    fed: int
    queue: str


def failure_row(
    key: Key, code: Code, reason: str, milliseconds: Mapping[str, float] | None = None, engine: str = ""
) -> dict[str, object]:
    """The row of a failed item, with what its stages took and the engine it met, where that is known."""
    row: dict[str, object] = {"key": key, "outcome": "failed", "code": str(code), "reason": reason}
    if milliseconds:
        row["ms"] = dict(milliseconds)
    if engine:
        row["engine"] = engine
    return row
