"""The Python API: `Producer` lists and enqueues; `producer.run.Run` is the handle of what it started."""

import posixpath
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from model.store import ModelStore
from pipeline.errors import Code, ItemError, SetupError
from pipeline.ids import Key, Location, RunId
from pipeline.ledger import Ledger, check, connect
from pipeline.places import Places
from pipeline.recipe import Recipe
from pipeline.recipe_text import recipe_of, recipe_text
from pipeline.runs import HIGH, NORMAL, RunSpec, new_run_id
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from pipeline.storage import Listed, ObjectStore
from producer.content import no_image
from producer.listing import HEADS, Lister, Look, call_of, go_on, outcomes, pages, sources
from producer.right import AlreadyRight
from producer.run import Run
from producer.selection import Selection

EVERYTHING = Selection()

AnyRecipe = Recipe | str | Mapping[str, object] | None
"""A recipe, its text, or its parts by name; None is a transparent PNG."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep would do: keys listed, to be made, already right, in conflict, no images; bytes to be made from."""

    listed: int
    todo: int
    skipped: int
    conflicts: int
    no_images: int
    bytes: int


class Producer:
    """Lists and enqueues. Its death loses nothing: what is in the ledger is worked on."""

    def __init__(self, settings: Settings | None = None, store: ObjectStore | None = None) -> None:
        self._settings = settings or load_settings()
        self._ledger = Ledger(connect(self._settings), self._settings)
        self._store = store or S3Store(self._settings, pool=HEADS)
        self._alive = min(self._settings.listing_timeout / 12, 5.0)

    def run(self, run_id: str) -> Run:
        """Pick a run up again.

        Raises:
            SetupError: when the ledger does not know it.
        """
        self._ledger.counts(RunId(run_id))
        return self._run(RunId(run_id))

    def runs(self) -> list[Run]:
        """The runs that the ledger knows, newest first."""
        return [self._run(id) for id in self._ledger.runs()]

    def sweep(
        self,
        source: str,
        to: str,
        *,
        recipe: AnyRecipe = None,
        model: str | None = None,
        force: bool = False,
        priority: int = NORMAL,
        selection: Selection = EVERYTHING,
        reports_to: str = "",
        name: str = "",
        run: RunId | None = None,
    ) -> Run:
        """List a prefix and enqueue every image of it that is not already right.

        A run that was started with the same arguments, and whose listing was killed less than a minute ago
        (MATTEMILL_LISTING_TIMEOUT), is gone on with; not where there is a limit, as stores may list in another order.

        Args:
            source: where from, s3://bucket/prefix/.
            to: where to, s3://bucket/prefix/.
            recipe: what the cutouts are; by default PNG.
            model: name of the model; by default the setting's.
            force: make outputs again that are already right.
            priority: `pipeline.runs.NORMAL` or `HIGH`.
            selection: which of the listed keys.
            reports_to: where manifest and report go, s3://bucket/prefix/; by default beside the outputs.
            name: which sweep of the file of named sweeps this is.
            run: the id that the run gets; by default a new one.

        Raises:
            SetupError: wrong address, bucket, credentials, recipe; a place that is not allowed, or where cutouts would
                be written over photos; unreachable servers.
        """
        spec = self._spec(_parse(source), _parse(to), recipe_of(recipe), model, force, priority, reports_to)
        spec = replace(spec, sweep=name, run=run or spec.run)
        lister, look = None, self._look(spec, selection)
        self._refuse_own_photos(spec, selection)
        if run is None and selection.limit is None:
            lister = go_on(self._ledger, spec, selection, self._alive, look)
        if lister is None:
            self._ledger.create(spec, call_of(spec, selection), selection.dump())
            lister = Lister(self._ledger, spec, alive=self._alive, look=look)
        with lister, AlreadyRight(self._store, lister.spec, listed=True) as right:
            lister.write(sources(self._store, lister.spec, selection), right)
        return self._run(lister.spec.run)

    def check(
        self, source: str, to: str, *, recipe: AnyRecipe, model: str | None, selection: Selection, reports_to: str
    ) -> None:
        """Find out whether `sweep` could start; writes nothing anywhere.

        Raises:
            SetupError: as `sweep`.
        """
        self._refuse_own_photos(
            self._spec(_parse(source), _parse(to), recipe_of(recipe), model, False, NORMAL, reports_to), selection
        )

    def plan(
        self,
        source: str,
        to: str,
        *,
        recipe: AnyRecipe = None,
        model: str | None = None,
        force: bool = False,
        selection: Selection = EVERYTHING,
    ) -> Plan:
        """What `sweep` would do now; writes nothing anywhere.

        Raises:
            SetupError: as `sweep`.
        """
        spec = self._spec(_parse(source), _parse(to), recipe_of(recipe), model, force, NORMAL, "")
        listed = todo = skipped = conflicts = no_images = size = 0
        look = self._look(spec, selection)
        with (
            AlreadyRight(self._store, spec, listed=True) as right,
            ThreadPoolExecutor(HEADS) as pool,
            closing(sqlite3.connect("")) as outputs,  # a temporary file that goes with the connection
        ):
            outputs.execute("CREATE TABLE claims (id TEXT PRIMARY KEY) WITHOUT ROWID")
            for rows in pages(sources(self._store, spec, selection)):
                for entry in outcomes(spec, rows, right, look, pool):
                    listed += 1
                    if entry.outcome == "no_image":
                        no_images += 1
                        continue
                    claimed = outputs.execute("INSERT OR IGNORE INTO claims VALUES (?)", (entry.item.id,)).rowcount
                    if not claimed:
                        conflicts += 1
                    elif entry.outcome == "todo":
                        todo, size = todo + 1, size + entry.item.bytes
                    else:
                        skipped += 1
        return Plan(listed, todo, skipped, conflicts, no_images, size)

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
        if folder := next((place for place in places if not place.key or place.key.endswith("/")), None):
            raise SetupError(f"{folder} names no image.", f"mattemill sweep {folder} takes all that lie there")
        above = posixpath.commonpath([posixpath.dirname("/" + place.key) for place in places]).strip("/")
        source = Location(places[0].bucket, f"{above}/" if above else "")
        spec = self._spec(source, _parse(to), recipe_of(recipe), model, force, priority, "")
        return self._start(spec, [Key(place.key) for place in places])

    def retry(self, run_id: str) -> Run:
        """Enqueue again what failed in a run, as a run of its own with the same target, model and recipe.

        Raises:
            SetupError: when the ledger does not know the run, it is not finished, or nothing failed in it.
        """
        run = self.run(run_id)
        if run.counts().state != "finished":
            raise SetupError(f"Run {run_id} is not finished.", f"wait for it: mattemill status {run_id} --watch")
        keys = [Key(str(row["key"])) for row in run.failures() if row["code"] != Code.OUTPUT_CONFLICT]
        if not keys:
            raise SetupError(
                f"Nothing failed in run {run_id} that could be tried again.", "mattemill failures shows all"
            )
        return self._start(run.spec.with_run(new_run_id()), keys)

    def _start(self, spec: RunSpec, keys: list[Key]) -> Run:
        over = {spec.output_key(key) for key in keys}.intersection(keys)
        if over and spec.source_bucket == spec.target_bucket:
            raise SetupError(f"A cutout would be written over the photo {min(over)}.", "choose another folder: --to")
        self._ledger.create(spec, selection=Selection(named=True).dump())
        with (
            Lister(self._ledger, spec, alive=self._alive) as lister,
            AlreadyRight(self._store, spec, listed=False) as right,
        ):
            lister.write(self._heads(spec, keys), right)
        return self._run(spec.run)

    def _spec(
        self,
        source: Location,
        target: Location,
        recipe: Recipe,
        model: str | None,
        force: bool,
        priority: int,
        reports_to: str,
    ) -> RunSpec:
        network = ModelStore(self._settings.home).known(model or self._settings.model)
        check(self._ledger.client, self._settings)
        reports = _parse(reports_to) if reports_to else None
        self._check_places(source, [target, *([reports] if reports else [])], recipe)
        for bucket in (source.bucket, target.bucket, *([reports.bucket] if reports else [])):
            self._store.check_bucket(bucket)
        return RunSpec(
            new_run_id(),
            source.bucket,
            source.key,
            target.bucket,
            _folder(target.key),
            network.name,
            network.weights,
            tuple(str(size) for size in network.size_buckets),
            recipe=recipe_text(self._pinned(recipe, source.bucket)),
            priority=priority,
            force=force,
            reports_bucket=reports.bucket if reports else "",
            reports_prefix=_folder(reports.key) if reports else "",
        )

    def _refuse_own_photos(self, spec: RunSpec, selection: Selection) -> None:
        """Refuse, before there is a run, to write cutouts among the photos that it reads."""
        if spec.source_bucket == spec.target_bucket:
            next(sources(self._store, spec, selection), None)

    def _check_places(self, source: Location, targets: Iterable[Location], recipe: Recipe) -> None:
        sources, allowed = Places.parse(self._settings.allowed_sources), Places.parse(self._settings.allowed_targets)
        for place in filter(None, (source, recipe.background_image(source.bucket))):
            sources.check(place, "source", "MATTEMILL_ALLOWED_SOURCES")
        for place in targets:
            allowed.check(Location(place.bucket, _folder(place.key)), "target", "MATTEMILL_ALLOWED_TARGETS")

    def _pinned(self, recipe: Recipe, source_bucket: str) -> Recipe:
        """Hold a background image to what it is now, so that another one makes other cutouts."""
        place = recipe.background_image(source_bucket)
        if place is None or recipe.background_etag:
            return recipe
        head = self._store.head(place.bucket, Key(place.key))
        if head is None:
            raise SetupError(
                f"Recipe: there is no background image {place}.",
                "look for a typing mistake in its key; a colour is #rrggbb",
            )
        return recipe.pinned(head.etag)

    def _look(self, spec: RunSpec, selection: Selection) -> Look | None:
        return partial(no_image, self._store, spec.source_bucket) if selection.any_name else None

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

    def _run(self, id: RunId) -> Run:
        return Run(id, self._ledger, self._store, self._settings)


def _folder(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def _parse(url: str) -> Location:
    try:
        return Location.parse(url)
    except ValueError as error:
        raise SetupError(f"{url!r} is no S3 address.", "such as s3://photos/2026-11-23/") from error
