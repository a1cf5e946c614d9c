"""The Python API: `Producer` lists and enqueues, `Run` is the handle of what it started."""

import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from model.catalogue import ModelSpec, find
from model.store import ModelStore
from pipeline.errors import Code, ItemError, MattemillError, SetupError
from pipeline.ids import ETag, Key, Location, RunId
from pipeline.ledger import Counts, Ledger, Listing, check, connect, failure_row
from pipeline.manifest import read_rows
from pipeline.recipe import Recipe
from pipeline.recipe_text import recipe_of, recipe_text
from pipeline.runs import FINGERPRINT, HIGH, NORMAL, Item, RunSpec, is_image_name, item_id, new_run_id, short_hash
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from pipeline.storage import Listed, ObjectStore
from producer.summary import Summary, summarise

_PAGE = 500
_HEADS = 16

AnyRecipe = Recipe | str | Mapping[str, object] | None
"""A recipe, its text, or its parts by name; None is a transparent PNG."""


class StallError(MattemillError):
    """Nothing has moved for too long; the message says what was waited for."""


class Run:
    """A handle on a run; any machine that reaches the ledger can have one."""

    def __init__(self, id: RunId, ledger: Ledger, store: ObjectStore, settings: Settings) -> None:
        self.id = id
        self._ledger = ledger
        self._store = store
        self._settings = settings

    def counts(self) -> Counts:
        """Where it stands, exact at this moment."""
        return self._ledger.counts(self.id)

    def wait(
        self,
        progress: Callable[[Counts], None] | None = None,
        timeout: float | None = None,
        stall_timeout: float | None = None,
    ) -> Summary:
        """Wait until every item has its outcome and the run is closed.

        Args:
            progress: called with the counts some times a second.
            timeout: seconds after which to give up.
            stall_timeout: seconds without any progress after which to give up; by default the setting's.

        Raises:
            StallError: says what it waited for.
            SetupError: when the listing was incomplete.
        """
        patience = stall_timeout if stall_timeout is not None else self._settings.stall_timeout
        deadline = time.monotonic() + timeout if timeout is not None else None
        while True:
            counts = self.counts()
            if progress is not None:
                progress(counts)
            if counts.state == "finished":
                if counts.error:
                    raise SetupError(f"Run {self.id}: {counts.error}.", "sweep again: what is right is skipped")
                return self.summary()
            if counts.now - counts.moved > patience:
                raise StallError(f"Run {self.id}: nothing has moved for {patience:g} s; {self._waits_for(counts)}.")
            if deadline is not None and time.monotonic() > deadline:
                raise StallError(f"Run {self.id}: not finished in {timeout:g} s; {self._waits_for(counts)}.")
            time.sleep(0.1)

    def summary(self) -> Summary:
        """The closing table, as far as the run is."""
        return summarise(self._ledger.spec(self.id), self.counts(), self.results())

    def results(self) -> Iterator[dict[str, object]]:
        """The row of every finished item."""
        yield from read_rows(self._store, self._ledger, self._ledger.spec(self.id))

    def failures(self) -> list[dict[str, object]]:
        """Key, code and reason of every failed item."""
        return list(self.summary().failures)

    def cancel(self) -> None:
        """Stop: what is not finished fails as cancelled."""
        self._ledger.cancel(self.id)

    def _waits_for(self, counts: Counts) -> str:
        places = {name: count for name, count in self._ledger.places(self.id).items() if count}
        if places:
            return "it waits for " + ", ".join(f"{count} images in {name}" for name, count in places.items())
        return f"its listing is {counts.state}" if counts.state == "listing" else "it waits for its closing"


class Producer:
    """Lists and enqueues. Its death loses nothing: what is in the ledger is worked on."""

    def __init__(self, settings: Settings | None = None, store: ObjectStore | None = None) -> None:
        self._settings = settings or load_settings()
        self._ledger = Ledger(connect(self._settings), self._settings)
        self._store = store or S3Store(self._settings, pool=_HEADS)

    def run(self, run_id: str) -> Run:
        """Pick a run up again.

        Raises:
            SetupError: when the ledger does not know it.
        """
        self._ledger.counts(RunId(run_id))
        return Run(RunId(run_id), self._ledger, self._store, self._settings)

    def runs(self) -> list[Run]:
        """The runs that the ledger knows, newest first."""
        return [Run(id, self._ledger, self._store, self._settings) for id in self._ledger.runs()]

    def sweep(
        self,
        source: str,
        to: str,
        *,
        recipe: AnyRecipe = None,
        model: str | None = None,
        force: bool = False,
        priority: int = NORMAL,
    ) -> Run:
        """List a prefix and enqueue every image of it that is not already right.

        Raises:
            SetupError: wrong address, bucket, credentials, recipe; unreachable servers.
        """
        spec = self._open(_parse(source), _parse(to), recipe_of(recipe), model, force, priority)
        return self._list(spec, self._listed(spec))

    def enqueue(
        self,
        keys: Iterable[str],
        to: str,
        *,
        recipe: AnyRecipe = None,
        model: str | None = None,
        force: bool = False,
        priority: int = HIGH,
    ) -> Run:
        """Enqueue images by their addresses (s3://bucket/key), all of one bucket.

        Raises:
            SetupError: as `sweep`, and when the keys are of several buckets.
        """
        places = [_parse(key) for key in keys]
        if not places or len({place.bucket for place in places}) > 1:
            raise SetupError("One run takes one or more images of one bucket.", "enqueue each bucket on its own")
        folder = posixpath.commonpath([posixpath.dirname("/" + place.key) for place in places]).strip("/")
        source = Location(places[0].bucket, f"{folder}/" if folder else "")
        spec = self._open(source, _parse(to), recipe_of(recipe), model, force, priority)
        return self._list(spec, self._heads(spec, [Key(place.key) for place in places]))

    def _open(
        self, source: Location, target: Location, recipe: Recipe, model: str | None, force: bool, priority: int
    ) -> RunSpec:
        network = _model(self._settings, model or self._settings.model)
        check(self._ledger.client, self._settings)
        for bucket in (source.bucket, target.bucket):
            self._store.check_bucket(bucket)
        spec = RunSpec(
            new_run_id(),
            source.bucket,
            source.key,
            target.bucket,
            target.key if not target.key or target.key.endswith("/") else f"{target.key}/",
            network.name,
            network.weights,
            tuple(str(size) for size in network.size_buckets),
            recipe=recipe_text(self._pinned(recipe, source.bucket)),
            priority=priority,
            force=force,
        )
        self._ledger.create(spec)
        return spec

    def _pinned(self, recipe: Recipe, source_bucket: str) -> Recipe:
        """Hold a background image to what it is now, so that another one makes other cutouts."""
        place = recipe.background_image(source_bucket)
        if place is None or recipe.background_etag:
            return recipe
        head = self._store.head(place.bucket, Key(place.key))
        if head is None:
            raise SetupError(f"Recipe: there is no background image {place}.", "look for a typing mistake in its key")
        return recipe.pinned(head.etag)

    def _listed(self, spec: RunSpec) -> Iterator[Listed | tuple[Key, ItemError]]:
        token = None
        while True:
            page = self._store.list_page(spec.source_bucket, spec.source_prefix, token)
            for row in page.objects:
                if is_image_name(row.key) and not spec.is_own_output(row.key):
                    yield row
            token = page.token
            if token is None:
                return

    def _heads(self, spec: RunSpec, keys: list[Key]) -> Iterator[Listed | tuple[Key, ItemError]]:
        for key in keys:
            try:
                head = self._store.head(spec.source_bucket, key)
            except ItemError as error:
                yield key, error
                continue
            if head is None:
                yield key, ItemError(Code.NOT_FOUND, "There is no such object.")
            else:
                yield Listed(key, head.etag, head.bytes)

    def _list(self, spec: RunSpec, found: Iterator[Listed | tuple[Key, ItemError]]) -> Run:
        added, page, buffer = 0, 0, list[Listed | tuple[Key, ItemError]]()
        with ThreadPoolExecutor(_HEADS) as pool:
            for row in found:
                buffer.append(row)
                if len(buffer) == _PAGE:
                    added, page, buffer = added + self._page(spec, page, buffer, pool), page + 1, []
            added += self._page(spec, page, buffer, pool)
        self._ledger.close_listing(spec.run, added)
        return Run(spec.run, self._ledger, self._store, self._settings)

    def _page(
        self, spec: RunSpec, page: int, rows: list[Listed | tuple[Key, ItemError]], pool: ThreadPoolExecutor
    ) -> int:
        entries = list(pool.map(lambda row: self._entry(spec, row), rows))
        claimed = dict.fromkeys((entry.item.id for entry in entries), "")
        if entries:
            claimed.update(zip(claimed, self._ledger.claimed(spec.run, list(claimed)), strict=True))
        for index, entry in enumerate(entries):
            owner = claimed[entry.item.id]
            if owner and owner != entry.source:
                reason = f"Another source of this run is written to {spec.output_key(entry.item.key)} too."
                row = failure_row(entry.item.key, Code.OUTPUT_CONFLICT, reason)
                entries[index] = replace(entry, outcome="conflict", row=row)
            claimed[entry.item.id] = owner or entry.source
        return self._ledger.list_page(spec.run, page, entries)

    def _entry(self, spec: RunSpec, row: Listed | tuple[Key, ItemError]) -> Listing:
        """What is to become of one listed key; asks the target whether its output is already right."""
        if isinstance(row, tuple):
            key, error = row
            item = Item(item_id(spec.output_key(key)), key, ETag(""), 0, "")
            return Listing("failed", item, short_hash(key), failure_row(key, error.code, error.reason))
        item = Item(item_id(spec.output_key(row.key)), row.key, row.etag, row.bytes, spec.size_buckets[0])
        if not spec.force:
            output = spec.output_key(row.key)
            there = self._store.head(spec.target_bucket, output)
            if there is not None and there.metadata.get(FINGERPRINT) == spec.fingerprint(row.etag, row.bytes):
                skipped: dict[str, object] = {"key": row.key, "outcome": "skipped", "output": output}
                return Listing("skipped", item, short_hash(row.key), skipped)
        return Listing("todo", item, short_hash(row.key))


def _parse(url: str) -> Location:
    try:
        return Location.parse(url)
    except ValueError as error:
        raise SetupError(f"{error}.", "such as s3://photos/2026-11-23/") from error


def _model(settings: Settings, name: str) -> ModelSpec:
    try:
        return ModelStore(settings.home).spec(name)
    except SetupError:
        return find(name)  # a producer needs no weights, only what the catalogue says of them
