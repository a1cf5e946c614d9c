"""The pictures of a run's report: of every image while they are few, of a sample when they are many."""

import re
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

import workers.finisher
from model.codecs.decode import decode
from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, Listing
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from tests.processes import photo
from workers.cards import make_cards
from workers.finisher import write_reports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

IMAGES = 120


def put(s3: "S3Client", bucket: str, key: str, body: bytes) -> str:
    return s3.put_object(Bucket=bucket, Key=key, Body=body)["ETag"].strip('"')


def done(s3: "S3Client", spec: RunSpec, numbers: range) -> list[dict[str, object]]:
    """Sources, one cutout for all of them, and their rows."""
    pixels = np.zeros((90, 120, 4), np.uint8)
    pixels[20:70, 30:90] = (0, 0, 255, 255)
    output = put(s3, spec.target_bucket, "out/cutout.png", bytes(cv2.imencode(".png", pixels)[1]))
    body = photo(1)
    return [
        {
            "key": f"in/{number:03d}.jpg", "outcome": "done", "output": "out/cutout.png", "output_etag": output,
            "etag": put(s3, spec.source_bucket, f"in/{number:03d}.jpg", body),
            "output_bytes": 1, "width": 120, "height": 90, "ms": {"fetch": 1.0},
        }
        for number in numbers
    ]  # fmt: skip


def finish(ledger: Ledger, spec: RunSpec, rows: list[dict[str, object]]) -> None:
    """Take the rows as those of a run whose images are all done."""
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
    settings: Settings,
    store: S3Store,
    ledger: Ledger,
    spec: RunSpec,
    s3_client: "S3Client",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.create(spec)
    finish(ledger, spec, done(s3_client, spec, range(IMAGES)))
    write_reports(spec.run, settings, ledger, store)
    assert shown(store, spec) == (f"{IMAGES} of {IMAGES} shown.", IMAGES)
    monkeypatch.setattr(workers.finisher, "_ALL", IMAGES - 1)
    write_reports(spec.run, settings, ledger, store)
    assert shown(store, spec) == (f"100 of {IMAGES} shown, a sample.", 100)


def test_no_picture_is_begun_when_its_time_is_over(
    settings: Settings, store: S3Store, spec: RunSpec, s3_client: "S3Client"
) -> None:
    rows = done(s3_client, spec, range(3))
    assert len(make_cards(spec, rows, settings, store, 60)) == 3
    assert make_cards(spec, rows, settings, store, -1) == []


def test_many_pictures_are_smaller(settings: Settings, store: S3Store, spec: RunSpec, s3_client: "S3Client") -> None:
    (row,) = done(s3_client, spec, range(1))
    large = np.full((600, 800, 4), 255, np.uint8)
    etags = [put(s3_client, spec.source_bucket, key, bytes(cv2.imencode(".png", large)[1])) for key in ("in", "out")]
    row |= {"key": "in", "etag": etags[0], "output": "out", "output_etag": etags[1], "width": 800, "height": 600}

    def longest(count: int) -> set[int]:
        cards = make_cards(spec, [row] * count, settings, store)
        return {max(decode(each, max_megapixels=1).rgb.shape) for card in cards for each in (card.before, card.after)}

    assert longest(1) == {480}
    assert longest(101) == {320}
