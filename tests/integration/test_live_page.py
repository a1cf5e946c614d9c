"""The live page against real servers: it can read with a login that may do nothing else, and reads little."""

import http.client
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
import redis

from pipeline.errors import SetupError
from pipeline.ids import ETag, ItemId, Key, RunId
from pipeline.ledger import RUNS, Ledger, Listing, connect
from pipeline.manifest import write_part
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer.web.heartbeats import Heartbeats
from producer.web.reading import Reader, ReadOnly
from producer.web.results import FAILURES, SHOWN
from tests.command_line import refused, run
from tests.conftest import ROOT, WaitUntil
from tests.processes import empty, metrics, photo, process
from workers.finisher import write_reports
from workers.local.ports import free_ports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

READ_ONLY = "-@all +@read +@connection +@transaction +time +psubscribe +punsubscribe"
"""What docs/web.md says that the page's login needs."""


@pytest.fixture
def spec(ledger: Ledger, s3_bucket: str, s3_client: "S3Client") -> Iterator[RunSpec]:
    spec = RunSpec(new_run_id(), s3_bucket, "in/", s3_bucket, "out/", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    yield spec
    empty(s3_client, s3_bucket)


@contextmanager
def reading(settings: Settings, store: S3Store, ledger: Ledger) -> Iterator[Reader]:
    """A reader whose login may only read."""
    password = secrets.token_hex(8)
    ledger.client.execute_command(
        "ACL", "SETUSER", "page", "reset", "on", f">{password}", "~*", "&*", *READ_ONLY.split()
    )
    url = settings.redis_url.get_secret_value()
    restricted = load_settings(redis_url=f"redis://page:{password}@{url.rpartition('@')[2]}", home=settings.home)
    client = connect(restricted)
    try:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("mm:x", "1")
        with Heartbeats(client) as heartbeats:
            yield Reader(Ledger(client, restricted), store, restricted, heartbeats)
    finally:
        client.close()
        ledger.client.execute_command("ACL", "DELUSER", "page")


def rows(ledger: Ledger, spec: RunSpec, page: int, entries: list[dict[str, object]]) -> None:
    """Finish items with these rows, as a listing that finds all of them finished."""
    listing = []
    for row in entries:
        key = Key(str(row["key"]))
        item = Item(item_id(spec.output_key(key)), key, ETag("e"), 10, "320x320")
        listing.append(Listing("failed" if row["outcome"] == "failed" else "skipped", item, short_hash(key), row))
    ledger.list_page(spec.run, page, listing)


def finished(s3: "S3Client", spec: RunSpec, key: str, number: int = 1) -> dict[str, object]:
    """Source and cutout of an image, and its row."""
    body, output = photo(number), spec.output_key(Key(key))
    pixels = np.zeros((90, 120, 4), np.uint8)
    pixels[20:70, 30:90] = (0, 0, 255, 255)
    cutout = bytes(cv2.imencode(".png", pixels)[1])
    etags = [
        s3.put_object(Bucket=spec.source_bucket, Key=name, Body=data)["ETag"].strip('"')
        for name, data in ((key, body), (output, cutout))
    ]
    return {
        "key": key, "outcome": "done", "output": output, "bytes": len(body), "etag": etags[0],
        "output_bytes": len(cutout), "output_etag": etags[1], "width": 120, "height": 90, "ms": {}, "engine": "fake:1",
    }  # fmt: skip


def failed(key: str) -> dict[str, object]:
    return {"key": key, "outcome": "failed", "code": "truncated", "reason": f"{key} is cut off."}


def test_the_store_of_the_page_refuses_to_write(store: S3Store, s3_bucket: str) -> None:
    with pytest.raises(PermissionError):
        ReadOnly(store).put(s3_bucket, Key("a"), b"", content_type="image/png")
    with pytest.raises(PermissionError):
        ReadOnly(store).delete(s3_bucket, Key("a"))


def test_results_and_pictures_are_read_while_a_run_goes_on_and_when_it_is_closed(
    settings: Settings, store: S3Store, ledger: Ledger, spec: RunSpec, s3_client: "S3Client"
) -> None:
    first = finished(s3_client, spec, "in/产品 <b>&\u2028 01.jpg")
    rows(ledger, spec, 0, [first, failed("in/cut off.jpg")])
    item = ItemId(short_hash(str(first["output"])))
    with reading(settings, store, ledger) as reader:
        page = reader.run(spec.run)
        assert page.line.state == "listing"
        assert [row["key"] for _, row in page.results.pictures] == [first["key"]]
        assert [row["reason"] for row in page.results.failures] == ["in/cut off.jpg is cut off."]
        card = reader.preview(spec.run, item)
        assert card is not None
        before = cv2.imdecode(np.frombuffer(card.before, np.uint8), cv2.IMREAD_UNCHANGED)
        after = cv2.imdecode(np.frombuffer(card.after, np.uint8), cv2.IMREAD_UNCHANGED)
        assert before.shape == (90, 120, 3)
        assert after.shape == (90, 120, 4)
        assert after[0, 0, 3] == 0
        assert reader.preview(spec.run, ItemId("0123456789ab")) is None
        assert reader.overview().lines[0].counts.listed == 2

    write_part(store, ledger, spec)
    rows(ledger, spec, 1, [finished(s3_client, spec, "in/second.jpg", 2)])
    with reading(settings, store, ledger) as reader:  # one that did not see the rows while they were in Redis
        assert len(reader.run(spec.run).results.pictures) == 2
        assert len(reader.run(spec.run).results.failures) == 1
        ledger.close_listing(spec.run, 3)
        write_reports(spec.run, settings, ledger, store)
        ledger.close(spec.run)
    with reading(settings, store, ledger) as reader:
        page = reader.run(spec.run)
        assert page.line.state == "finished"
        assert [row["key"] for _, row in page.results.pictures] == ["in/second.jpg", first["key"]]
        assert [row["code"] for row in page.results.failures] == ["truncated"]
        assert reader.preview(spec.run, item) is not None


def test_the_page_of_a_run_that_listed_nothing_has_no_error(
    settings: Settings, store: S3Store, ledger: Ledger, spec: RunSpec
) -> None:
    ledger.close_listing(spec.run, 0)
    write_reports(spec.run, settings, ledger, store)
    ledger.close(spec.run)
    with reading(settings, store, ledger) as reader:
        results = reader.run(spec.run).results
    assert (results.pictures, results.failures, results.error) == ((), (), "")


def test_a_picture_that_is_another_by_now_is_not_shown(
    settings: Settings, store: S3Store, ledger: Ledger, spec: RunSpec, s3_client: "S3Client"
) -> None:
    row = finished(s3_client, spec, "in/a.jpg")
    rows(ledger, spec, 0, [row])
    s3_client.put_object(Bucket=spec.source_bucket, Key="in/a.jpg", Body=photo(9))
    with reading(settings, store, ledger) as reader:
        assert reader.preview(spec.run, ItemId(short_hash(str(row["output"])))) is None


def test_what_is_remembered_of_a_run_is_bounded(
    settings: Settings, store: S3Store, ledger: Ledger, spec: RunSpec, s3_client: "S3Client"
) -> None:
    row = finished(s3_client, spec, "in/a.jpg")
    many = [{**row, "key": f"in/{n}.jpg", "output": f"out/{n}.png"} for n in range(300)]
    rows(ledger, spec, 0, [*many, *(failed(f"in/bad {n}.jpg") for n in range(300))])
    with reading(settings, store, ledger) as reader:
        results = reader.run(spec.run).results
    assert [one["key"] for _, one in results.pictures] == [f"in/{n}.jpg" for n in range(299, 299 - SHOWN, -1)]
    assert len(results.failures) == FAILURES
    assert results.failures[0]["key"] == "in/bad 299.jpg"


def test_a_look_costs_the_same_however_many_items_there_are(
    settings: Settings, store: S3Store, ledger: Ledger, s3_bucket: str
) -> None:
    def looks(items: int) -> dict[str, int]:
        """The commands of a second look at the list and the run."""
        ledger.client.flushdb()
        spec = RunSpec(new_run_id(), s3_bucket, "in/", s3_bucket, "out/", "u2netp", "0" * 64, ("320x320",))
        ledger.create(spec)
        for start in range(0, items, 1000):
            listing = [
                Listing("todo", Item(item_id(key), key, ETag("e"), 1, "320x320"), short_hash(key))
                for key in (Key(f"in/{n}.jpg") for n in range(start, min(start + 1000, items)))
            ]
            ledger.list_page(spec.run, start // 1000, listing)
        with reading(settings, store, ledger) as reader:
            reader._look_around()
            reader._look_at(spec.run, reader._follow(spec.run)[0])
            ledger.client.config_resetstat()
            reader._look_around()
            assert reader._look_at(spec.run, reader._follow(spec.run)[0]).places["todo"] == items
            stats = cast(dict[str, Any], ledger.client.info("commandstats"))
        return {name: entry["calls"] for name, entry in stats.items() if "config" not in name}

    few, many = looks(3), looks(5000)
    assert few == many
    allowed = "zrevrange hgetall hget multi exec time zcard smembers exists xrange ping info select"
    assert set(many) <= {f"cmdstat_{name}" for name in allowed.split()}
    assert sum(many.values()) < 40


def test_living_workers_are_heard_with_their_engine(
    environment: dict[str, str],
    settings: Settings,
    store: S3Store,
    ledger: Ledger,
    wait_until: WaitUntil,
) -> None:
    command = ("producer.commands", "worker", "gpu", "--devices", "fake:1")
    with reading(settings, store, ledger) as reader:
        with process(environment, *command):
            wait_until(lambda: [w.engine for w in reader.overview().workers if w.alive], 60)
            (worker,) = reader.overview().workers
            assert worker.engine.startswith("fake")
            assert worker.role == "gpu"
        wait_until(lambda: not reader.overview().workers[0].alive, 30)


def test_a_run_that_is_not_there_is_an_error(settings: Settings, store: S3Store, ledger: Ledger) -> None:
    with reading(settings, store, ledger) as reader, pytest.raises(SetupError):
        reader.run(RunId("nothing"))


def test_headers_and_refusals(environment: dict[str, str], ledger: Ledger, wait_until: WaitUntil) -> None:
    port = free_ports(1)[0]

    def ask(path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def up() -> bool:
        try:
            return ask("/healthz").status == 200
        except OSError:
            return False

    def says_newer() -> bool:
        with urlopen(f"http://127.0.0.1:{port}/") as runs:
            page = runs.read().decode()
        return "20261124-041233-9f3a1c" in page and "A newer Mattemill has started this run" in page

    shown = free_ports(1)[0]
    environment["MATTEMILL_METRICS_PORT"] = str(shown)
    with process(environment, "producer.commands", "web", "--no-password", "--port", str(port)) as page:
        wait_until(up, 30)
        answer = ask("/")
        assert answer.status == 200
        policy = answer.getheader("Content-Security-Policy") or ""
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        assert answer.getheader("Referrer-Policy") == "no-referrer"
        assert answer.getheader("Server") is None
        assert ask("/", Host="evil.example").status == 421
        assert ask("/", "POST").status == 405
        assert ask("/runs/nothing").status == 404
        newer = (ROOT / "tests" / "data" / "messages" / "newer" / "run-field.json").read_text()
        ledger.client.hset("mm:{20261124-041233-9f3a1c}", "spec", newer)
        ledger.client.zadd(RUNS, {"20261124-041233-9f3a1c": 1})
        assert ask("/runs/20261124-041233-9f3a1c").status == 501
        wait_until(says_newer)  # what it has looked at is a second old at most
        assert ask("/static/../page.js").status == 404
        assert ask("/static/page.js").status == 200
        assert ask("/livez").status == 200
        counted = metrics(shown)
        assert counted['mattemill_web_seconds_count{status="404"}'] == 2
        assert counted['mattemill_web_seconds_count{status="421"}'] == 1
        assert counted['mattemill_web_seconds_sum{status="404"}'] > 0
        page.terminate()
        assert page.wait(20) == 0


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        ({}, [], ["no password", "MATTEMILL_WEB_PASSWORD", "--no-password"]),
        ({"MATTEMILL_WEB_PASSWORD": "short"}, [], ["shorter than 8"]),
        ({}, ["--no-password", "--host", "0.0.0.0"], ["takes a password"]),
        ({"MATTEMILL_WEB_PASSWORD": "long enough", "MATTEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}, [], ["Redis at"]),
    ],
)
def test_what_would_be_open_or_blind_does_not_start(
    environment: dict[str, str], change: dict[str, str], arguments: list[str], expected: list[str]
) -> None:
    refused(run(environment | change, "web", *arguments), *expected)
