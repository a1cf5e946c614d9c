"""Which outputs are already right, asked of the store as seldom as can be.

A HEAD for each of 100 000 keys costs 174 CPU-seconds, listing them 7. So the target is listed once, and the manifest of
the last sweep of the same source says what each output was made from; only what the two leave open is asked by HEAD.
"""

import contextlib
import sqlite3
from types import TracebackType
from typing import Self

from pipeline.errors import ItemError
from pipeline.manifest import last_manifest, list_keys
from pipeline.runs import FINGERPRINT, RunSpec
from pipeline.storage import Listed, ObjectStore


class AlreadyRight:
    """What is known of the outputs of a run before it starts, on a temporary disk file; a context manager.

    Args:
        store: the object store.
        spec: the run.
        listed: list the target first. For a few keys a HEAD each is cheaper.
    """

    def __init__(self, store: ObjectStore, spec: RunSpec, *, listed: bool) -> None:
        self._store = store
        self._spec = spec
        self._listed = listed
        self._db = sqlite3.connect("")  # a temporary file that goes with the connection
        self._db.execute("CREATE TABLE there (output TEXT PRIMARY KEY, etag TEXT, bytes INT)")
        self._db.execute("CREATE TABLE made (output TEXT PRIMARY KEY, fingerprint TEXT, etag TEXT, bytes INT)")
        self.heads = 0

    def __enter__(self) -> Self:
        if self._listed and not self._spec.force:
            self._load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def guess(self, row: Listed) -> bool | None:
        """Whether this source's output is right; None when only `ask` can tell. From one thread only."""
        if self._spec.force:
            return False
        if not self._listed:
            return None
        output = self._spec.output_key(row.key)
        there = self._db.execute("SELECT etag, bytes FROM there WHERE output = ?", (output,)).fetchone()
        if there is None:
            return False
        made = self._db.execute("SELECT fingerprint, etag, bytes FROM made WHERE output = ?", (output,)).fetchone()
        return True if made == (self._spec.fingerprint(row.etag, row.bytes), *there) else None

    def ask(self, row: Listed) -> dict[str, object] | None:
        """What the store itself says: the row of a right output, else None. From any thread."""
        self.heads += 1
        there = self._store.head(self._spec.target_bucket, self._spec.output_key(row.key))
        if there is None or there.metadata.get(FINGERPRINT) != self._spec.fingerprint(row.etag, row.bytes):
            return None
        return self._row(row, there.etag, there.bytes)

    def row(self, row: Listed) -> dict[str, object]:
        """The row of a source whose output `guess` knew to be right."""
        output = self._spec.output_key(row.key)
        etag, size = self._db.execute("SELECT etag, bytes FROM there WHERE output = ?", (output,)).fetchone()
        return self._row(row, etag, size)

    def _row(self, row: Listed, etag: str, size: int) -> dict[str, object]:
        return {
            "key": row.key,
            "outcome": "skipped",
            "output": self._spec.output_key(row.key),
            "bytes": row.bytes,
            "etag": row.etag,
            "output_bytes": size,
            "output_etag": etag,
            "fingerprint": self._spec.fingerprint(row.etag, row.bytes),
        }

    def _load(self) -> None:
        spec = self._spec
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO there VALUES (?, ?, ?)",
                (
                    (listed.key, listed.etag, listed.bytes)
                    for listed in list_keys(self._store, spec.target_bucket, spec.target_prefix)
                ),
            )
            # A manifest that cannot be read knows nothing: the outputs themselves are asked.
            with contextlib.suppress(ItemError, ValueError):
                self._db.executemany(
                    "INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?)",
                    (
                        (row["output"], row["fingerprint"], row["output_etag"], row["output_bytes"])
                        for row in last_manifest(self._store, spec)
                        if "fingerprint" in row and "output_etag" in row
                    ),
                )
