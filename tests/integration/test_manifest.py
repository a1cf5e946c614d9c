"""The manifest: written in parts, complete whatever happens to its writer."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import pipeline.manifest
from pipeline.errors import Code, PermanentError, SetupError
from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, Listing
from pipeline.manifest import Rows, collect, read_rows, write_manifest, write_part
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from tests.processes import empty
from workers.finisher import write_reports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@pytest.fixture
def spec(ledger: Ledger, s3_bucket: str, s3_client: "S3Client") -> Iterator[RunSpec]:
    spec = RunSpec(new_run_id(), "photos", "", s3_bucket, "out/", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    yield spec
    empty(s3_client, s3_bucket)


def skip(ledger: Ledger, spec: RunSpec, names: list[str], page: int) -> None:
    """List keys that are finished at once: every one makes a row."""
    entries = []
    for name in names:
        key = Key(name)
        item = Item(item_id(spec.output_key(key)), key, ETag("e"), 10, "320x320")
        entries.append(Listing("skipped", item, short_hash(key), {"key": key, "outcome": "skipped"}))
    ledger.list_page(spec.run, page, entries)


def keys(rows: Iterator[dict[str, object]]) -> list[object]:
    return [row["key"] for row in rows]


def test_rows_move_into_parts_and_none_is_missing_at_any_moment(ledger: Ledger, store: S3Store, spec: RunSpec) -> None:
    names = [f"{n:02d} 产品\u2028\x85.jpg" for n in range(25)]
    skip(ledger, spec, names, 0)
    assert write_part(store, ledger, spec, 10) == 10
    assert ledger.row_count(spec.run) == 15
    assert keys(read_rows(store, ledger, spec)) == names
    assert write_part(store, ledger, spec, 10) == 10
    skip(ledger, spec, ["later.jpg"], 1)
    assert keys(read_rows(store, ledger, spec)) == [*names, "later.jpg"]
    assert write_part(store, ledger, spec, 10) == 6
    assert write_part(store, ledger, spec, 10) == 0
    assert keys(read_rows(store, ledger, spec)) == [*names, "later.jpg"]


def test_rows_that_are_moved_while_they_are_read_are_not_missing(
    ledger: Ledger, store: S3Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{n:02d}.jpg" for n in range(25)]
    skip(ledger, spec, names, 0)
    write_part(store, ledger, spec, 10)
    listing = pipeline.manifest._keys

    def listed_and_then_moved(store: S3Store, spec: RunSpec, name: str) -> Iterator[Key]:
        found = list(listing(store, spec, name))
        write_part(store, ledger, spec, 10)
        return iter(found)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.manifest, "_keys", listed_and_then_moved)
        assert keys(read_rows(store, ledger, spec)) == names
    assert keys(read_rows(store, ledger, spec)) == names


def test_a_second_leader_whose_parts_vanish_finds_all_in_the_manifest_of_the_first(
    ledger: Ledger, store: S3Store, settings: Settings, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{n:02d}.jpg" for n in range(12)]
    skip(ledger, spec, names, 0)
    ledger.close_listing(spec.run, 12)
    for most in (5, 4):
        write_part(store, ledger, spec, most)
    listing = pipeline.manifest._keys

    def listed_and_then_gone(store: S3Store, spec: RunSpec, name: str) -> Iterator[Key]:
        found = list(listing(store, spec, name))
        monkeypatch.setattr(pipeline.manifest, "_keys", listing)
        write_reports(spec.run, settings, ledger, store)
        ledger.close(spec.run)
        return iter(found)

    monkeypatch.setattr(pipeline.manifest, "_keys", listed_and_then_gone)
    write_reports(spec.run, settings, ledger, store)
    ledger.close(spec.run)
    assert sorted(map(str, keys(read_rows(store, ledger, spec)))) == names


def test_a_writer_that_died_after_writing_doubles_nothing(
    ledger: Ledger, store: S3Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{n:02d}.jpg" for n in range(12)]
    skip(ledger, spec, names, 0)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "trim_rows", lambda run, last: None)  # it died before this
        write_part(store, ledger, spec, 5)
    write_part(store, ledger, spec, 8)  # the next leader, with another page
    assert sorted(map(str, keys(read_rows(store, ledger, spec)))) == names


def test_the_manifest_has_every_key_once_and_the_parts_go(
    ledger: Ledger, store: S3Store, settings: Settings, spec: RunSpec, s3_client: "S3Client"
) -> None:
    names = [f"{n:02d}.jpg" for n in range(12)]
    skip(ledger, spec, names, 0)
    ledger.close_listing(spec.run, 12)
    write_part(store, ledger, spec, 5)
    write_reports(spec.run, settings, ledger, store)
    ledger.close(spec.run)
    found = [entry["Key"] for entry in s3_client.list_objects_v2(Bucket=spec.target_bucket)["Contents"]]
    folder = f"out/_mattemill/{spec.run}/"
    files = [f"{folder}manifest.jsonl", f"{folder}report.html", f"{folder}summary.json"]
    assert sorted(found) == [*files, spec.pointer]
    body = s3_client.get_object(Bucket=spec.target_bucket, Key=f"{folder}manifest.jsonl")["Body"].read()
    assert [json.loads(line)["key"] for line in body.decode().splitlines()] == names
    assert ledger.row_count(spec.run) == 0
    assert keys(read_rows(store, ledger, spec)) == names  # now from the manifest


def test_every_line_says_what_is_known_of_its_key(ledger: Ledger, store: S3Store, spec: RunSpec) -> None:
    skip(ledger, spec, ["right.jpg"], 0)
    items = [Item(item_id(spec.output_key(Key(name))), Key(name), ETag("e/1"), 1 << 40, "320x320")
             for name in ("good.jpg", "bad 产品.jpg")]  # fmt: skip
    ledger.list_page(spec.run, 1, [Listing("todo", item, short_hash(item.key)) for item in items])
    ledger.close_listing(spec.run, 3)
    for fed in ledger.feed(spec, 10, 10):
        (taken,) = ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id])
        if fed.item.key == "good.jpg":
            ledger.done(taken, {"key": "good.jpg", "outcome": "done", "model": "u2netp", "engine": "fake"})
        else:
            ledger.fail(taken, PermanentError(Code.TRUNCATED, "It is cut off."))
        write_part(store, ledger, spec, 1)
    expected = {
        "right.jpg": {"outcome": "skipped", "model": "u2netp", "attempts": 0},
        "good.jpg": {"outcome": "done", "model": "u2netp", "engine": "fake", "attempts": 1},
        "bad 产品.jpg": {
            "outcome": "failed", "code": "truncated", "reason": "It is cut off.", "model": "u2netp", "attempts": 1,
            "bytes": 1 << 40, "etag": "e/1", "output": "out/bad 产品.png",
        },
    }  # fmt: skip
    assert {row.pop("key"): row for row in read_rows(store, ledger, spec)} == expected
    with Rows() as rows:
        collect(rows, store, ledger, spec)
        write_manifest(rows, store, spec)
    ledger.close(spec.run)
    assert {row.pop("key"): row for row in read_rows(store, ledger, spec)} == expected


def test_a_large_manifest_comes_in_shards(
    ledger: Ledger, store: S3Store, settings: Settings, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.manifest, "SHARD_ROWS", 5)
    names = [f"{n:02d}.jpg" for n in range(12)]
    skip(ledger, spec, names, 0)
    ledger.close_listing(spec.run, 12)
    write_reports(spec.run, settings, ledger, store)
    ledger.close(spec.run)
    summary = json.loads(store.get(spec.target_bucket, Key(f"{spec.reports.key}summary.json"), max_bytes=1 << 20).body)
    assert summary["manifest"] == [f"manifest-{n:05d}.jsonl" for n in range(3)]
    assert keys(read_rows(store, ledger, spec)) == names


def test_a_manifest_that_lacks_a_line_is_never_called_complete(
    ledger: Ledger, store: S3Store, settings: Settings, spec: RunSpec
) -> None:
    skip(ledger, spec, ["a.jpg", "b.jpg"], 0)
    ledger.close_listing(spec.run, 2)
    ledger.trim_rows(spec.run, ledger.row_page(spec.run, 1)[0][0])
    with pytest.raises(SetupError, match="1 lines for 2 listed"):
        write_reports(spec.run, settings, ledger, store)
