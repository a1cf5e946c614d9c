"""The proof of a run: one line of JSON for every listed key, beside the output, in parts while the run goes on.

    <reports>/parts/part-<first>-<last>-<sha8>.jsonl   rows in the order of finishing, named by their content
    <reports>/manifest.jsonl                           all of them, once, when the run is closed
    <reports>/manifest-00000.jsonl …                   the same in shards, for runs above 100 000 keys

A part is written before its rows leave Redis, so a writer that dies loses nothing; its successor may write the same
rows again in another part. The last line of a key wins. docs/sweeps.md has the fields of a line.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, cast

from pipeline.errors import Code, ItemError
from pipeline.ids import Key, Location
from pipeline.ledger import Ledger
from pipeline.runs import RunSpec
from pipeline.storage import Listed, ObjectStore

PART_ROWS = 5000
SHARD_ROWS = 100_000
_LARGEST = 1 << 30
JSONL = "application/x-ndjson"
_REPLACE = "INSERT OR REPLACE INTO rows (key, line) VALUES (?, ?)"
_KEEP = "INSERT OR IGNORE INTO rows (key, line) VALUES (?, ?)"


class Rows:
    """Rows of a run on a temporary disk file, one for each key; a context manager."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")  # a temporary file that goes with the connection
        self._db.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, line TEXT)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add(self, rows: Iterable[dict[str, object]], *, replace: bool = True) -> None:
        """Add rows; of two of the same key the later one stays, or the earlier one without `replace`."""
        statement = _REPLACE if replace else _KEEP
        with self._db:
            self._db.executemany(
                statement,
                ((row["key"], json.dumps(row, ensure_ascii=False, separators=(",", ":"))) for row in rows),
            )

    def __len__(self) -> int:
        return cast(int, self._db.execute("SELECT COUNT(*) FROM rows").fetchone()[0])

    def lines(self) -> Iterator[str]:
        """Every row as JSON, in the order of finishing."""
        for (line,) in self._db.execute("SELECT line FROM rows ORDER BY n"):
            yield line

    def __iter__(self) -> Iterator[dict[str, object]]:
        for line in self.lines():
            yield json.loads(line)


def write_part(store: ObjectStore, ledger: Ledger, spec: RunSpec, most: int = PART_ROWS) -> int:
    """Move the oldest rows from Redis into a part; returns how many."""
    page = ledger.row_page(spec.run, most)
    if not page:
        return 0
    body = "".join(line + "\n" for _, line in page).encode()
    first, last = (_sortable(page[index][0]) for index in (0, -1))
    name = f"parts/part-{first}-{last}-{hashlib.sha256(body).hexdigest()[:8]}.jsonl"
    place = spec.reports
    store.put(place.bucket, Key(place.key + name), body, content_type=JSONL)
    ledger.trim_rows(spec.run, page[-1][0])
    return len(page)


def read_rows(store: ObjectStore, ledger: Ledger, spec: RunSpec) -> Iterator[dict[str, object]]:
    """The row of every finished item so far, wherever it lies by now; once each."""
    place = spec.reports
    shards = sorted(key for key in _keys(store, spec, "manifest") if key.endswith(".jsonl"))
    if ledger.counts(spec.run).state == "finished" and shards:
        for key in shards:
            yield from _read(store, place.bucket, key)
        return
    with Rows() as rows:
        collect(rows, store, ledger, spec)
        yield from rows


def collect(rows: Rows, store: ObjectStore, ledger: Ledger, spec: RunSpec) -> None:
    """Add what lies in parts, and what is still in Redis; safe while others move rows on.

    Rows go from Redis into parts, and from parts into the manifest, so they are looked for in this order.
    """
    later = list(ledger.rows(spec.run))
    for key in sorted(_keys(store, spec, "parts/")):
        try:
            rows.add(_whole(spec, row) for row in _read(store, spec.reports.bucket, key))
        except ItemError as error:
            if error.code is not Code.NOT_FOUND:
                raise
    rows.add(_whole(spec, row) for row in later)
    rows.add(read_manifest(store, spec.reports), replace=False)


def _whole(spec: RunSpec, row: dict[str, object]) -> dict[str, object]:
    """A row with what its run knows of it: said once here, it takes no room in Redis."""
    known: dict[str, object] = {"attempts": 0, "model": spec.model}
    if row["outcome"] == "failed":
        known["output"] = spec.output_key(Key(str(row["key"])))
    return row | {name: value for name, value in known.items() if name not in row}


def write_manifest(rows: Rows, store: ObjectStore, spec: RunSpec) -> list[str]:
    """Write all rows, in shards when there are many; returns the names of the files."""
    place, total = spec.reports, len(rows)
    names: list[str] = []
    buffer: list[str] = []

    def flush() -> None:
        name = "manifest.jsonl" if total <= SHARD_ROWS else f"manifest-{len(names):05d}.jsonl"
        body = "".join(line + "\n" for line in buffer).encode()
        store.put(place.bucket, Key(place.key + name), body, content_type=JSONL)
        names.append(name)
        buffer.clear()

    for line in rows.lines():
        buffer.append(line)
        if len(buffer) == SHARD_ROWS:
            flush()
    if buffer or not names:
        flush()
    return names


def delete_parts(store: ObjectStore, spec: RunSpec) -> None:
    """Remove the parts of a run whose manifest is written."""
    for key in list(_keys(store, spec, "parts/")):
        store.delete(spec.reports.bucket, key)


def read_manifest(store: ObjectStore, place: Location) -> Iterator[dict[str, object]]:
    """The rows of a closed run's manifest in its reports' folder, a key prefix that ends in "/"."""
    names = [row.key for row in list_keys(store, place.bucket, place.key + "manifest")]
    for key in sorted(name for name in names if name.endswith(".jsonl")):
        yield from _read(store, place.bucket, key)


def remember(store: ObjectStore, spec: RunSpec) -> None:
    """Say beside the reports that this run's manifest is the last one of its source and target."""
    place = spec.reports
    body = json.dumps({"run": spec.run, "bucket": place.bucket, "folder": place.key}).encode()
    store.put(place.bucket, spec.pointer, body, content_type="application/json")


def last_manifest(store: ObjectStore, spec: RunSpec) -> Iterator[dict[str, object]]:
    """The rows of the last closed run of the same source and target; none when there is none.

    Raises:
        ItemError: when the manifest cannot be read.
        ValueError: when it is no manifest.
    """
    if store.head(spec.reports.bucket, spec.pointer) is None:
        return
    last = json.loads(store.get(spec.reports.bucket, spec.pointer, max_bytes=1 << 20).body)
    yield from read_manifest(store, Location(last["bucket"], last["folder"]))


def _keys(store: ObjectStore, spec: RunSpec, name: str) -> Iterator[Key]:
    return (row.key for row in list_keys(store, spec.reports.bucket, spec.reports.key + name))


def list_keys(store: ObjectStore, bucket: str, prefix: str) -> Iterator[Listed]:
    """Every object below a prefix, page by page."""
    token = None
    while True:
        page = store.list_page(bucket, prefix, token)
        yield from page.objects
        token = page.token
        if token is None:
            return


def read_lines(store: ObjectStore, bucket: str, key: Key, max_bytes: int = _LARGEST) -> list[bytes]:
    """The lines of a manifest, or of a part of one; none where the run listed nothing.

    Raises:
        ItemError: what is wrong with the object.
    """
    try:
        body = store.get(bucket, key, max_bytes=max_bytes).body
    except ItemError as error:
        if error.code is Code.EMPTY_OBJECT:
            return []
        raise
    return body.splitlines()  # of bytes: those of a text also end at characters that a key may have, such as U+2028


def _read(store: ObjectStore, bucket: str, key: Key) -> Iterator[dict[str, object]]:
    return map(json.loads, read_lines(store, bucket, key))


def _sortable(stream_id: str) -> str:
    milliseconds, number = stream_id.split("-")
    return f"{int(milliseconds):015d}.{int(number):06d}"
