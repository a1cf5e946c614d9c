"""Writes what a run is to do into the ledger, page by page: what to make, what is right already, what cannot be."""

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeAlias

import redis

from pipeline.errors import Code, ItemError, SetupError
from pipeline.ids import ETag, ItemId, Key, RunId
from pipeline.ledger import LISTING_LIMIT, Ledger, Listing, failure_row, fill
from pipeline.manifest import list_keys
from pipeline.runs import Item, RunSpec, item_id, short_hash
from pipeline.storage import Listed, ObjectStore
from producer.right import AlreadyRight
from producer.selection import Selection

log = logging.getLogger(__name__)
"""Not structlog: who uses the Python API has not set that up, and a warning belongs on standard error."""

HEADS = 16
"""Questions to the store at once."""

Found: TypeAlias = "Listed | tuple[Key, ItemError]"
"""A source, or why there is none."""

Look: TypeAlias = Callable[[Listed], "dict[str, object] | None"]
"""The row of a source that turns out to be no image; called by many threads."""

_PAGE = 500
_SIGNS = 3
"""Signs of life that a listing may leave out before it counts as killed."""
_FULL_SECONDS = 0.5


def sources(store: ObjectStore, spec: RunSpec, selection: Selection) -> Iterator[Listed]:
    """The objects below the source prefix that `selection` takes, page by page.

    Raises:
        SetupError: at one whose output would be one of them too: it would replace a photo, or pass for one later.
    """
    listing = list_keys(store, spec.source_bucket, spec.source_prefix)
    one_bucket = spec.source_bucket == spec.target_bucket
    for row in itertools.islice((row for row in listing if selection.takes(spec, row.key)), selection.limit):
        output = spec.output_key(row.key) if one_bucket else None
        if output is not None and output.startswith(spec.source_prefix) and selection.takes(spec, output):
            raise SetupError(
                f"The cutout of {row.key} would be written to {output}, among the photos that this sweep reads.",
                "choose another folder: --to s3://BUCKET/cutouts/",
            )
        yield row


def pages(found: Iterable[Found]) -> Iterator[list[Found]]:
    """Pages of at most 500."""
    rows = iter(found)
    while page := list(itertools.islice(rows, _PAGE)):
        yield page


def outcomes(
    spec: RunSpec, rows: Sequence[Found], right: AlreadyRight, look: Look | None, pool: ThreadPoolExecutor
) -> list[Listing]:
    """What is to become of each; asks the target where nothing else tells whether an output is right.

    Where there is a `look`, it is had at each source whose output is not right.
    """
    guesses = [False if isinstance(row, tuple) else right.guess(row) for row in rows]
    doubts = [row for row, guess in zip(rows, guesses, strict=True) if guess is None and not isinstance(row, tuple)]
    answers = dict(zip((row.key for row in doubts), pool.map(right.ask, doubts), strict=True))
    wanted = [
        row
        for row, guess in zip(rows, guesses, strict=True)
        if look and not isinstance(row, tuple) and not guess and not answers.get(row.key)
    ]
    others = dict(zip((row.key for row in wanted), pool.map(look, wanted) if look else (), strict=True))
    entries = []
    for row, guess in zip(rows, guesses, strict=True):
        if isinstance(row, tuple):
            key, error = row
            item = Item(item_id(spec.output_key(key)), key, ETag(""), 0, "")
            failed = failure_row(key, error.code, error.reason)
            entries.append(Listing("failed", item, short_hash(key), failed))
            continue
        item = Item(item_id(spec.output_key(row.key)), row.key, row.etag, row.bytes, spec.size_buckets[0])
        if other := others.get(row.key):
            entries.append(Listing("no_image", item, short_hash(row.key), other))
            continue
        skipped = right.row(row) if guess else answers.get(row.key)
        entries.append(Listing("skipped" if skipped else "todo", item, short_hash(row.key), skipped))
    return entries


class Lister:
    """Lists one run; a context manager, within which the ledger hears that this process lives.

    A listing that was killed is gone on with from its first key: what the run knows already is passed over.

    Args:
        ledger: the ledger.
        spec: the run, which must be open in the ledger.
        page: number of its next page.
        listed: how many items it has already.
        look: finds out which sources are no images; None takes every source for one.
        alive: seconds between two signs of life; MATTEMILL_LISTING_TIMEOUT must be some times longer.
    """

    def __init__(
        self, ledger: Ledger, spec: RunSpec, page: int = 0, listed: int = 0, *, alive: float, look: Look | None = None
    ) -> None:
        self.spec = spec
        self._ledger = ledger
        self._page = page
        self._listed = listed
        self._alive = alive
        self._look = look
        self._stop = threading.Event()
        self._waits = False
        self._said = False
        self._thread = threading.Thread(target=self._keep_alive, name="listing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def write(self, found: Iterable[Found], right: AlreadyRight) -> None:
        """Write every source into the ledger and close the listing; waits while Redis is nearly full, and says so.

        Raises:
            SetupError: the run has ended, or another process lists it.
            ItemError: the store cannot be listed.
        """
        with ThreadPoolExecutor(HEADS) as pool:
            for rows in pages(found):
                self._wait_for_memory()
                self._listed += self._ledger.list_page(self.spec.run, self._page, self._entries(rows, right, pool))
                self._page += 1
        self._ledger.close_listing(self.spec.run, self._listed)

    def _entries(self, rows: list[Found], right: AlreadyRight, pool: ThreadPoolExecutor) -> list[Listing]:
        """What is new of a page; of two sources that are written to one output, the second fails."""
        spec = self.spec
        keys = [row[0] if isinstance(row, tuple) else row.key for row in rows]
        ids = [item_id(spec.output_key(key)) for key in keys]
        owners = dict(zip(ids, self._ledger.claimed(spec.run, ids), strict=True))
        new = [row for row, id, key in zip(rows, ids, keys, strict=True) if owners[id] != short_hash(key)]
        return [self._owned(entry, owners) for entry in outcomes(spec, new, right, self._look, pool)]

    def _owned(self, entry: Listing, owners: dict[ItemId, str]) -> Listing:
        if entry.outcome == "no_image":
            return entry
        owner = owners[entry.item.id] = owners[entry.item.id] or entry.source
        if owner == entry.source:
            return entry
        key = entry.item.key
        reason = f"Another source of this run is written to {self.spec.output_key(key)} too."
        row = failure_row(key, Code.OUTPUT_CONFLICT, reason) | {"bytes": entry.item.bytes, "etag": entry.item.etag}
        return Listing("conflict", entry.item, entry.source, row)

    def _wait_for_memory(self) -> None:
        while (used := fill(self._ledger.client)) >= LISTING_LIMIT:
            self._waits = True
            if not self._said:
                self._said = True
                log.warning(
                    "Run %s: Redis is %.0f %% full; listing waits until images are finished or maxmemory is raised.",
                    self.spec.run,
                    used * 100,
                )
            self._stop.wait(_FULL_SECONDS)
        self._waits = False

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._alive):
            with contextlib.suppress(redis.RedisError):  # it may be away for a while
                self._ledger.keep_listing(self.spec.run, moves=not self._waits)


def call_of(spec: RunSpec, selection: Selection) -> str:
    """The same for two sweeps that ask for the same of the same."""
    return short_hash(f"{spec.with_run(RunId('')).dump()}{selection}")


def go_on(ledger: Ledger, spec: RunSpec, selection: Selection, alive: float, look: Look | None) -> Lister | None:
    """Take over the listing of a run that was begun with the same call and was killed; None when there is none.

    Whether whoever listed it is dead shows after `3 * alive` seconds without a sign of life, so that this may take
    as long; one that lives shows within `alive` seconds.
    """
    for run, heard in ledger.interrupted(call_of(spec, selection)):
        log.warning("Run %s lists the same and is not done; looking whether it was killed.", run)
        while dict(ledger.interrupted(call_of(spec, selection))).get(run) == heard:
            found = ledger.adopt_listing(run, _SIGNS * alive)
            if found is not None:
                log.warning("Run %s was killed while it listed: going on with it.", run)
                return Lister(ledger, spec.with_run(run), *found, alive=alive, look=look)
            time.sleep(min(alive / 4, 0.5))
    return None
