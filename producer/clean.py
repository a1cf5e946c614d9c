"""What `mattemill clean` removes, by the rules of the file of named sweeps: old runs, old reports, orphaned outputs.

It never touches what Mattemill did not write: reports are known by their run's summary.json, outputs by a manifest that
names them and by the fingerprint in their metadata, which is looked at just before.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from pipeline.ids import Key, Location, RunId
from pipeline.ledger import Ledger
from pipeline.manifest import list_keys, read_manifest
from pipeline.places import Places
from pipeline.runs import FINGERPRINT, RunSpec
from pipeline.storage import ObjectStore
from producer.sweeps.duration import seconds_of
from producer.sweeps.file import NamedSweep, SweepsFile

_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_OURS = re.compile(r"report\.html|manifest(-\d{5})?\.jsonl|parts/part-[\d.]+-[\d.]+-[0-9a-f]{8}\.jsonl|summary\.json")
_SUMMARY_BYTES = 1 << 30
_TABLES = """
CREATE TABLE named (output TEXT PRIMARY KEY, fingerprint TEXT, etag TEXT, seen REAL);
CREATE TABLE wanted (output TEXT PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True)
class Old:
    """Something that may go.

    Attributes:
        kind: what it is; "kept" is something that a rule names and that must stay for now.
        where: a run's id or an address.
        why: a sentence.
    """

    kind: Literal["run", "report", "output", "kept"]
    where: str
    why: str


@dataclass(frozen=True, slots=True)
class _Report:
    spec: RunSpec
    started: float
    files: tuple[Key, ...]


class Cleaner:
    """Finds what may go, and removes it where it is told to.

    Args:
        ledger: the ledger.
        store: the object store.
        allowed: where outputs and reports may lie; elsewhere nothing is removed.
        now: seconds since 1970, by Redis's clock.
        act: remove it; else only tell.
    """

    def __init__(self, ledger: Ledger, store: ObjectStore, allowed: Places, now: float, *, act: bool) -> None:
        self._ledger = ledger
        self._store = store
        self._allowed = allowed
        self._now = now
        self._act = act

    def clean(self, file: SweepsFile) -> Iterator[Old]:
        """Everything that the file's rules let go, each told when it is gone.

        Raises:
            ItemError: when a bucket cannot be listed or an object not be removed; what is left goes the next time.
        """
        if file.clean is not None:
            yield from self._runs(seconds_of(file.clean.older_than))
        for sweep in file.sweeps.values():
            yield from self._sweep(sweep)

    def _runs(self, age: float) -> Iterator[Old]:
        for run in self._ledger.runs():
            counts = self._ledger.counts(run)
            if counts.state == "finished" and self._now - counts.moved > age:
                if self._act:
                    self._ledger.forget(run)
                yield Old("run", run, "It was finished long ago.")

    def _sweep(self, sweep: NamedSweep) -> Iterator[Old]:
        ages = [seconds_of(rule) for rule in (sweep.retention.reports, sweep.retention.outputs) if rule is not None]
        if not ages:
            return
        source, target = Location.parse(sweep.source), Location.parse(sweep.to)
        busy = [run for run in self._ledger.runs(active=True) if self._ledger.spec(run).target_bucket == target.bucket]
        if busy:
            yield Old("kept", sweep.name, f"Run {busy[0]} writes to the same bucket and is not finished.")
            return
        reports = list(self._reports(sweep))
        if sweep.retention.outputs is not None:
            yield from self._outputs(reports, source, seconds_of(sweep.retention.outputs))
        if sweep.retention.reports is not None:
            # What names orphaned outputs stays until they are gone.
            yield from self._old_reports(sweep, reports, max(ages))

    def _reports(self, sweep: NamedSweep) -> Iterator[_Report]:
        """The reports of finished runs of this sweep, oldest first."""
        place = _reports_of(sweep)
        folders: dict[str, list[Key]] = {}
        for row in list_keys(self._store, place.bucket, place.key):
            run, _, name = row.key[len(place.key) :].partition("/")
            if _RUN.fullmatch(run) and _OURS.fullmatch(name):
                folders.setdefault(run, []).append(row.key)
        for run, files in sorted(folders.items()):
            summary = Key(f"{place.key}{run}/summary.json")
            if summary not in files:
                continue
            about = json.loads(self._store.get(place.bucket, summary, max_bytes=_SUMMARY_BYTES).body)
            spec = RunSpec.load(json.dumps(about["spec"]))
            if (
                spec.run == run
                and spec.sweep == sweep.name
                and spec.reports == Location(place.bucket, f"{place.key}{run}/")
            ):
                # The summary goes last: a cleaning that breaks off is gone on with.
                yield _Report(spec, _started(spec.run), (*sorted(set(files) - {summary}), summary))

    def _old_reports(self, sweep: NamedSweep, reports: list[_Report], age: float) -> Iterator[Old]:
        place = _reports_of(sweep)
        last = {spec for report in reports if (spec := self._last(report.spec))}
        for report in reports:
            if self._now - report.started <= age or report.spec.run in last:
                continue
            for key in report.files:
                yield from self._remove("report", place.bucket, key, f"Of run {report.spec.run}.")

    def _last(self, spec: RunSpec) -> str:
        """The run whose manifest tells the next sweep what is right already; its reports stay."""
        if self._store.head(spec.reports.bucket, spec.pointer) is None:
            return ""
        return str(json.loads(self._store.get(spec.reports.bucket, spec.pointer, max_bytes=1 << 20).body)["run"])

    def _outputs(self, reports: list[_Report], source: Location, age: float) -> Iterator[Old]:
        """Outputs that manifests name and whose source has not been listed by any run for `age` seconds, nor is now."""
        with closing(sqlite3.connect("")) as db:  # a temporary file that goes with the connection
            db.executescript(_TABLES)
            specs = {}
            for report in reports:
                specs[report.spec.recipe, report.spec.target, report.spec.source] = report.spec
                db.executemany(
                    "INSERT OR REPLACE INTO named VALUES (?, ?, ?, ?)",
                    (
                        (
                            f"{report.spec.target_bucket}/{row['output']}",
                            row["fingerprint"],
                            row["output_etag"],
                            report.started,
                        )
                        for row in read_manifest(self._store, report.spec.reports)
                        if "fingerprint" in row and "output_etag" in row
                    ),
                )
            for row in list_keys(self._store, source.bucket, source.key):
                names = {(f"{spec.target_bucket}/{spec.output_key(row.key)}",) for spec in specs.values()}
                db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", names)
            old = "SELECT output, fingerprint, etag FROM named WHERE seen < ? AND output NOT IN wanted ORDER BY output"
            for output, fingerprint, etag in db.execute(old, (self._now - age,)):
                bucket, _, key = cast(str, output).partition("/")
                there = self._store.head(bucket, Key(key))
                if there is not None and there.metadata.get(FINGERPRINT) == fingerprint and there.etag == etag:
                    yield from self._remove("output", bucket, Key(key), "Its source is gone.")

    def _remove(self, kind: Literal["report", "output"], bucket: str, key: Key, why: str) -> Iterator[Old]:
        place = str(Location(bucket, key))
        if not self._allowed.allows(bucket, key):
            yield Old("kept", place, "MATTEMILL_ALLOWED_TARGETS does not name it.")
            return
        if self._act:
            self._store.delete(bucket, key)
        yield Old(kind, place, why)


def _reports_of(sweep: NamedSweep) -> Location:
    place = Location.parse(sweep.reports_to or sweep.to)
    folder = place.key if not place.key or place.key.endswith("/") else f"{place.key}/"
    return Location(place.bucket, f"{folder}_mattemill/")


def _started(run: RunId) -> float:
    return datetime.strptime(run[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
