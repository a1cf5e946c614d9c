"""What is shown of a run's rows: the newest results and failures. A look reads what is new since the last one."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import ItemError, SetupError
from pipeline.ids import ItemId, Key
from pipeline.ledger import LedgerReader
from pipeline.manifest import list_keys, read_lines
from pipeline.runs import RunSpec, short_hash
from pipeline.storage import ObjectStore

SHOWN = 24
FAILURES = 200
_KEPT = 4 * SHOWN
"""A page that was loaded a moment ago still asks for pictures that have left the gallery since."""
_PAGE, _PAGES = 1000, 10
_PARTS = 2
_LARGEST = 64 << 20
"""Bytes of a summary or manifest that are read; those of larger runs are for the command line."""


@dataclass(frozen=True, slots=True)
class Results:
    """The newest results of a run.

    Attributes:
        pictures: item and row of the newest finished images, newest first; at most 24.
        failures: rows of the newest failures, newest first; at most 200.
        error: why there is less than there could be, or "".
    """

    pictures: tuple[tuple[ItemId, dict[str, object]], ...]
    failures: tuple[dict[str, object], ...]
    error: str = ""


class RunResults:
    """Follows the rows of one run while they come, and reads them from S3 when the run is closed.

    Args:
        ledger: has the newest rows of a run that goes on.
        store: has the others.
        spec: the run.
    """

    def __init__(self, ledger: LedgerReader, store: ObjectStore, spec: RunSpec) -> None:
        self._ledger = ledger
        self._store = store
        self._spec = spec
        self._after = ""
        self._begun = self._closed = False
        self._done: OrderedDict[ItemId, dict[str, object]] = OrderedDict()
        self._failures: OrderedDict[str, dict[str, object]] = OrderedDict()
        self._error = ""

    def look(self, *, finished: bool) -> Results:
        """What there is now.

        Args:
            finished: whether the run is closed.
        """
        if finished and not self._closed:
            self._read_closed()
        elif not finished:
            self._follow()
        newest = [*reversed(self._done.items())][:SHOWN]
        return Results(tuple(newest), tuple(reversed(self._failures.values())), self._error)

    def row(self, item: ItemId) -> dict[str, object] | None:
        """The row of an image that was shown lately."""
        return self._done.get(item)

    def _follow(self) -> None:
        if not self._begun:
            self._begun = True
            try:
                for key in sorted(self._keys("parts/"))[-_PARTS:]:
                    self._add(map(json.loads, self._lines(key)))
            except (ItemError, SetupError) as error:
                self._error = _reason(error)
        for _ in range(_PAGES):
            page = self._ledger.row_page(self._spec.run, _PAGE, self._after)
            self._add(json.loads(line) for _, line in page)
            if page:
                self._after = page[-1][0]
            if len(page) < _PAGE:
                return

    def _read_closed(self) -> None:
        if self._ledger.report_error(self._spec.run):  # there is no manifest; the rows stay in Redis
            self._follow()
            return
        try:
            place = self._spec.reports
            summary = json.loads(
                self._store.get(place.bucket, Key(place.key + "summary.json"), max_bytes=_LARGEST).body
            )
            shards = sorted(key for key in self._keys("manifest") if key.endswith(".jsonl"))
            lines = self._lines(shards[-1]) if shards else []
        except (ItemError, SetupError, ValueError) as error:
            self._error = _reason(error)
            return
        newest: list[dict[str, object]] = []
        for line in reversed(lines):
            row = json.loads(line)
            if row["outcome"] == "done":
                newest.append(row)
            if len(newest) == _KEPT:
                break
        self._done.clear()
        self._failures.clear()
        self._error = ""
        self._add(reversed(newest))
        self._add({**row, "outcome": "failed"} for row in summary["failures"])
        self._closed = True

    def _add(self, rows: Iterable[dict[str, object]]) -> None:
        for row in rows:
            if row["outcome"] == "done":
                self._done[ItemId(short_hash(str(row["output"])))] = row
            elif row["outcome"] == "failed":
                self._failures[str(row["key"])] = row
            while len(self._done) > _KEPT:
                self._done.popitem(last=False)
            while len(self._failures) > FAILURES:
                self._failures.popitem(last=False)

    def _keys(self, name: str) -> list[Key]:
        place = self._spec.reports
        return [row.key for row in list_keys(self._store, place.bucket, place.key + name)]

    def _lines(self, key: Key) -> list[bytes]:
        return read_lines(self._store, self._spec.reports.bucket, key, _LARGEST)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, ItemError) else str(error.args[0])
