"""The proof of a run, checked again from S3 alone: manifest, source listing, output listing."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass

from pipeline.errors import ItemError, SetupError
from pipeline.ids import Key, Location
from pipeline.manifest import list_keys, read_manifest
from pipeline.runs import RunSpec
from pipeline.storage import ObjectStore
from producer.selection import Selection

_TABLES = """
CREATE TABLE told (key TEXT PRIMARY KEY, outcome TEXT, etag TEXT, output TEXT, oetag TEXT, size INT, code TEXT);
CREATE TABLE there (output TEXT PRIMARY KEY, etag TEXT, size INT);
CREATE TABLE source (key TEXT PRIMARY KEY, etag TEXT, taken INT);
CREATE VIEW made AS SELECT * FROM told WHERE outcome = 'done' OR outcome = 'skipped' AND code IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found.

    Attributes:
        run: the run.
        listed: lines of the manifest.
        done: outputs that the run made.
        skipped: outputs that were right before, and sources that are no images.
        failed: keys that failed, each with its reason in the manifest.
        wrong: what does not hold any more, a sentence each; empty when the proof stands.
        newer: sources that changed since, or came and belong to the run; a next one takes them.
    """

    run: str
    listed: int
    done: int
    skipped: int
    failed: int
    wrong: tuple[str, ...]
    newer: int


def verify(store: ObjectStore, place: Location) -> Verdict:
    """Check the run whose reports lie in `place`, a folder.

    Raises:
        SetupError: when there are no readable reports.
    """
    try:
        about = json.loads(store.get(place.bucket, Key(f"{place.key}summary.json"), max_bytes=1 << 30).body)
        spec = RunSpec.load(json.dumps(about["spec"]))
        selection = Selection.of(about.get("selection") or {})  # runs of older versions do not say it
    except (ItemError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{place} holds no reports of a closed run: {error}.", "name the folder of one run") from error
    with closing(sqlite3.connect("")) as db:
        db.executescript(_TABLES)
        fields = ("key", "outcome", "etag", "output", "output_etag", "output_bytes", "code")
        told = (tuple(row.get(name) for name in fields) for row in read_manifest(store, place))
        db.executemany("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?, ?)", told)
        there = list_keys(store, spec.target_bucket, spec.target_prefix)
        db.executemany("INSERT OR REPLACE INTO there VALUES (?, ?, ?)", ((o.key, o.etag, o.bytes) for o in there))
        source = list_keys(store, spec.source_bucket, spec.source_prefix)
        # Of a run that took single keys, or as many as it was allowed to, others than those it listed are no matter.
        all_taken = not selection.named and (selection.limit is None or about["listed"] < selection.limit)
        found = ((row.key, row.etag, all_taken and selection.takes(spec, row.key)) for row in source)
        db.executemany("INSERT OR REPLACE INTO source VALUES (?, ?, ?)", found)
        return _judge(db, spec, about["listed"])


def _judge(db: sqlite3.Connection, spec: RunSpec, listed: int) -> Verdict:
    outcomes = dict(db.execute("SELECT outcome, COUNT(*) FROM told GROUP BY outcome"))
    done, skipped, failed = (outcomes.get(name, 0) for name in ("done", "skipped", "failed"))
    wrong = []
    if sum(outcomes.values()) != listed or done + skipped + failed != listed:
        wrong.append(f"The manifest has {sum(outcomes.values())} lines for {listed} listed keys.")
    missing = "SELECT key, made.output FROM made LEFT JOIN there USING (output) WHERE there.output IS NULL"
    wrong += [f"{key}: its output {output} is not there." for key, output in db.execute(missing)]
    changed = (
        "SELECT key, output FROM made JOIN there USING (output) WHERE oetag != there.etag OR made.size != there.size"
    )
    wrong += [f"{key}: its output {output} is not the one that was written." for key, output in db.execute(changed)]
    newer = """SELECT COUNT(*) FROM source LEFT JOIN told USING (key)
               WHERE told.key IS NULL AND source.taken OR told.etag != source.etag"""
    return Verdict(
        spec.run, sum(outcomes.values()), done, skipped, failed, tuple(wrong), db.execute(newer).fetchone()[0]
    )
