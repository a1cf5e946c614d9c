"""The pictures of a run's report: of every image while they are few, of a sample when they are many."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

import workers.finisher
from model.preview import encode_preview
from pipeline.ids import ETag, ItemId, Key
from pipeline.ledger import Ledger, Listing, Taken, base, connect, fill
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from workers.finisher import write_reports
from workers.local.valkey import Valkey
from workers.preview_sizes import PreviewSizes, sample

IMAGES = 120


PIXELS = np.full((90, 120, 3), 80, np.uint8)


def done(numbers: range) -> list[dict[str, object]]:
    """Rows of images that are done."""
    return [
        {
            "key": f"in/{number:03d}.jpg", "outcome": "done", "output": f"out/{number:03d}.png", "etag": "e",
            "output_bytes": 1, "width": 120, "height": 90, "ms": {"fetch": 1.0},
        }
        for number in numbers
    ]  # fmt: skip


def finish(ledger: Ledger, spec: RunSpec, rows: list[dict[str, object]]) -> None:
    """Take the rows as those of a run whose images are all done, each with its pictures."""
    preview = encode_preview(PIXELS, PIXELS)
    listing = []
    for row in rows:
        key = Key(str(row["key"]))
        item = Item(item_id(spec.output_key(key)), key, ETag(str(row["etag"])), 1, "320x320")
        listing.append(Listing("todo", item, short_hash(key)))
    ledger.list_page(spec.run, 0, listing)
    ledger.close_listing(spec.run, len(rows))
    by_key = {row["key"]: row for row in rows}
    for fed in ledger.feed(spec, len(rows), len(rows)):
        (taken,) = ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id])
        ledger.keep_preview(taken, preview)
        ledger.done(taken, by_key[str(fed.item.key)])


@pytest.fixture
def spec(bucket: str) -> RunSpec:
    return RunSpec(new_run_id(), bucket, "in/", bucket, "out/", "u2netp", "0" * 64, ("320x320",))


def shown(store: S3Store, spec: RunSpec) -> tuple[str, int]:
    """What the report says of its pictures, and how many different images it has two pictures of."""
    page = store.get(spec.reports.bucket, Key(f"{spec.reports.key}report.html"), max_bytes=1 << 27).body.decode()
    said = re.search(r"\d+ of \d+ shown[^.]*\.", page)
    sources = set(re.findall(r'src="data:image/jpeg[^>]*alt="(\d+.jpg), original"', page))
    cutouts = set(re.findall(r'src="data:image/webp[^>]*alt="(\d+.jpg), cutout"', page))
    assert sources == cutouts
    return (said[0] if said else ""), len(sources)


def test_a_report_shows_every_image_of_a_run_and_a_sample_of_a_large_one(
    settings: Settings, store: S3Store, ledger: Ledger, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.create(spec)
    finish(ledger, spec, done(range(IMAGES)))
    write_reports(spec.run, settings, ledger, store)
    assert shown(store, spec) == (f"{IMAGES} of {IMAGES} shown.", IMAGES)
    monkeypatch.setattr(workers.finisher, "ALL", IMAGES - 1)
    write_reports(spec.run, settings, ledger, store)
    assert shown(store, spec) == (f"100 of {IMAGES} shown, a sample.", 100)


def test_pictures_that_redis_has_lost_cost_the_report_nothing_else(
    settings: Settings, store: S3Store, ledger: Ledger, spec: RunSpec
) -> None:
    ledger.create(spec)
    finish(ledger, spec, done(range(3)))
    ledger.client.hdel(f"{base(spec.run)}:previews", item_id(Key("out/001.png")))
    write_reports(spec.run, settings, ledger, store)
    assert shown(store, spec) == ("2 of 3 shown, a sample.", 2)


def test_pictures_are_gone_when_the_run_is_closed(ledger: Ledger, spec: RunSpec) -> None:
    ledger.create(spec)
    finish(ledger, spec, done(range(3)))
    assert len(ledger.previewed(spec.run)) == 3
    assert ledger.client.ttl(f"{base(spec.run)}:previews") > 0  # type: ignore[operator]
    ledger.close(spec.run)
    assert ledger.previewed(spec.run) == set()


def test_a_late_copy_or_a_run_that_is_gone_leaves_no_pictures(ledger: Ledger, spec: RunSpec) -> None:
    preview = encode_preview(PIXELS, PIXELS)
    item = Item(item_id(Key("out/001.png")), Key("in/001.jpg"), ETag("e"), 1, "320x320")
    ledger.keep_preview(Taken(spec.run, item, 1, None), preview)
    assert ledger.client.exists(f"{base(spec.run)}:previews") == 0
    ledger.create(spec)
    finish(ledger, spec, done(range(1, 2)))
    ledger.client.delete(f"{base(spec.run)}:previews")
    ledger.keep_preview(Taken(spec.run, item, 1, None), preview)
    assert ledger.previewed(spec.run) == set()


def sides(ledger: Ledger, spec: RunSpec, todo: int, skipped: int = 0) -> Counter[int]:
    """How large the pictures are that 5000 images of a run with so many get."""
    ledger.create(spec)
    listing = []
    for number in range(todo + skipped):
        outcome = "todo" if number < todo else "skipped"
        key = Key(f"in/{number:05d}.jpg")
        item = Item(item_id(spec.output_key(key)), key, ETag("e"), 1, "320x320")
        listing.append(Listing(outcome, item, short_hash(key), {} if outcome == "skipped" else None))
    ledger.list_page(spec.run, 0, listing)
    sizes = PreviewSizes(ledger)
    return Counter(sizes.of(spec.run, item_id(Key(str(number)))) for number in range(5000))


def test_few_pictures_are_large_and_of_many_images_a_sample_has_some(ledger: Ledger, spec: RunSpec) -> None:
    def runs(todo: int, skipped: int = 0) -> Counter[int]:
        return sides(ledger, spec.with_run(new_run_id()), todo, skipped)

    assert runs(100) == {480: 5000}
    assert runs(101) == {256: 5000}
    assert runs(500, skipped=800) == {256: 5000}
    sampled = runs(5000)
    assert set(sampled) == {0, 256}
    assert 100 <= sampled[256] <= 170


def test_a_sample_is_spread_over_a_run_whose_first_images_all_have_pictures() -> None:
    # The first 500 of 5000, and a tenth of the others.
    early = [item_id(Key(f"early {number}")) for number in range(500)]
    late = [item_id(Key(f"late {number}")) for number in range(4500)]
    have = early + [late[index] for index in sample(late, 150)]
    chosen = sample(have, 100)
    assert len(chosen) == len(set(chosen)) == 100
    assert chosen == sorted(chosen)
    assert sum(index < 500 for index in chosen) < 25
    assert sample(have, 1000) == list(range(650))


def test_a_run_that_grows_has_fewer_pictures_from_then_on(ledger: Ledger, spec: RunSpec) -> None:
    now = [0.0]
    ledger.create(spec)
    sizes = PreviewSizes(ledger, lambda: now[0])
    ledger.client.hset(base(spec.run), "listed", 10)
    assert sizes.of(spec.run, ItemId("a")) == 480
    ledger.client.hset(base(spec.run), "listed", 1_000_000)
    now[0] = 1.5
    assert sizes.of(spec.run, ItemId("a")) == 0


def test_a_redis_half_full_keeps_no_pictures(settings: Settings, tmp_path: Path, spec: RunSpec) -> None:
    with Valkey(tmp_path, config={"maxmemory": "6mb"}) as server:
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        ledger = Ledger(connect(settings), settings)
        assert sides(ledger, spec, 1)[480] == 5000
        while fill(ledger.client) < 0.5:
            ledger.client.set(new_run_id(), b"x" * 50_000)
        assert PreviewSizes(ledger).of(spec.run, ItemId("a")) == 0
        ledger.client.close()
