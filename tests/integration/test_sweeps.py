"""Sweeps after sweeps: skipping without asking, selecting, planning, retrying, verifying from S3 alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import Code, PermanentError, SetupError
from pipeline.ids import Key, Location, RunId
from pipeline.ledger import Ledger
from pipeline.runs import FINGERPRINT
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from producer import Producer, Run, Selection
from producer.verify import verify
from tests.processes import empty
from tests.proxy import SickProxy, sick_proxy
from workers.finisher import write_reports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@pytest.fixture
def proxy(settings: Settings, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SickProxy]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with sick_proxy(settings.s3_endpoint_url or "") as proxy:
        yield proxy


@pytest.fixture
def store(proxy: SickProxy, settings: Settings) -> Iterator[S3Store]:
    """Through a proxy that counts the requests."""
    with S3Store(settings.model_copy(update={"s3_endpoint_url": proxy.url}), pool=16) as store:
        yield store


@pytest.fixture
def producer(settings: Settings, store: S3Store) -> Producer:
    return Producer(settings, store)


@pytest.fixture
def photos(s3_bucket: str, s3_client: "S3Client") -> Iterator[str]:
    for n in range(30):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{n:02d} 产品.jpg", Body=b"x" * n)
    yield s3_bucket
    empty(s3_client, s3_bucket)


def work_off(run: Run, ledger: Ledger, settings: Settings, store: S3Store, fail: tuple[str, ...] = ()) -> None:
    """Do what workers and finisher do, without pixels."""
    spec = run.spec
    for fed in ledger.feed(spec, 1000, 1000):
        (taken,) = ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id])
        key, output = fed.item.key, spec.output_key(fed.item.key)
        if key not in fail:
            fingerprint = spec.fingerprint(fed.item.etag, fed.item.bytes)
            etag = store.put(
                spec.target_bucket, output, b"png" + key.encode(), content_type="image/png",
                metadata={FINGERPRINT: fingerprint},
            )  # fmt: skip
            row: dict[str, object] = {
                "key": key, "outcome": "done", "output": output, "etag": fed.item.etag, "output_etag": etag,
                "output_bytes": 3 + len(key.encode()), "fingerprint": fingerprint, "width": 1, "height": 1,
            }  # fmt: skip
            ledger.done(taken, row)
        else:
            ledger.fail(taken, PermanentError(Code.TRUNCATED, "It is cut off."))
    write_reports(spec.run, settings, ledger, store)
    ledger.close(spec.run)


def test_a_run_that_listed_nothing_has_a_proof_too(
    producer: Producer, bucket: str, ledger: Ledger, settings: Settings, store: S3Store
) -> None:
    source, to = f"s3://{bucket}/nothing/", f"s3://{bucket}/out/"
    for _ in range(2):
        run = producer.sweep(source, to)
        work_off(run, ledger, settings, store)
        summary = run.wait(timeout=20)
        assert (summary.listed, summary.done, summary.skipped, summary.failed) == (0, 0, 0, 0)
        assert list(run.results()) == []
        verdict = verify(store, run.spec.reports)
        assert (verdict.listed, verdict.wrong, verdict.newer) == (0, (), 0)
    with pytest.raises(SetupError, match="Nothing failed"):
        producer.retry(run.id)


def test_a_photo_is_never_written_over_by_a_cutout(
    producer: Producer, bucket: str, s3_client: "S3Client", ledger: Ledger
) -> None:
    for name in ("a.jpg", "b.png"):
        s3_client.put_object(Bucket=bucket, Key=f"in/{name}", Body=b"x")
    here = f"s3://{bucket}/in/"
    for to, recipe in (
        (here, None),
        (f"s3://{bucket}/in", "webp"),
        (here, "jpeg,background=#ffffff,name={stem}-cut.jpg"),
    ):
        with pytest.raises(SetupError, match="among the photos"):
            producer.sweep(here, to, recipe=recipe)
        with pytest.raises(SetupError, match="among the photos"):
            producer.plan(here, to, recipe=recipe)
    with pytest.raises(SetupError, match=r"over the photo in/b\.png"):
        producer.enqueue([f"{here}a.jpg", f"{here}b.png"], here)
    with pytest.raises(SetupError, match="names no image"):
        producer.enqueue([here], f"s3://{bucket}/out/")
    assert ledger.runs() == []
    # Beside a photo, where neither it nor another is written over or read again, is right; below the prefix is, too.
    beside = Selection(exclude=("*-cut.png",))
    assert producer.plan(here, here, recipe="name={stem}-cut.png", selection=beside).todo == 2
    assert producer.plan(here, f"s3://{bucket}/in/cutouts/").todo == 2
    assert producer.plan(here, f"s3://{bucket}/").todo == 2
    assert producer.enqueue([f"{here}a.jpg"], here).counts().listed == 1


def test_a_second_sweep_asks_for_no_output_and_a_third_only_for_what_is_in_doubt(
    producer: Producer,
    photos: str,
    ledger: Ledger,
    settings: Settings,
    store: S3Store,
    proxy: SickProxy,
    s3_client: "S3Client",
) -> None:
    def heads() -> int:
        return sum(method == "HEAD" and "/out/" in path and ".png" in path for method, path in proxy.requests)

    first = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/")
    assert first.counts().pending == 30
    assert heads() == 0  # there is nothing to ask for
    work_off(first, ledger, settings, store)
    before = heads()
    second = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/")
    assert second.counts().skipped == 30
    assert heads() == before
    work_off(second, ledger, settings, store)

    s3_client.put_object(Bucket=photos, Key="in/03 产品.jpg", Body=b"changed")
    s3_client.put_object(Bucket=photos, Key="out/04 产品.png", Body=b"somebody else's")
    s3_client.delete_object(Bucket=photos, Key="out/05 产品.png")
    before = heads()
    third = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/")
    assert (third.counts().skipped, third.counts().pending) == (27, 3)
    assert heads() - before == 2  # of the changed source and of the foreign output; a missing one needs no question


def test_a_lost_redis_loses_no_image(
    producer: Producer, photos: str, ledger: Ledger, settings: Settings, store: S3Store
) -> None:
    run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", selection=Selection(limit=12))
    work_off(run, ledger, settings, store)
    ledger.client.flushall()
    again = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/")
    assert (again.counts().skipped, again.counts().pending) == (12, 18)


def test_patterns_and_limits_choose_and_a_plan_writes_nothing(
    producer: Producer, photos: str, proxy: SickProxy, s3_client: "S3Client"
) -> None:
    for key in ("in/thumbs/a.jpg", "in/b.jpeg", "in/c", "in/b.webp"):
        s3_client.put_object(Bucket=photos, Key=key, Body=b"GIF89")

    def plan(selection: Selection) -> tuple[int, int, int]:
        planned = producer.plan(f"s3://{photos}/in/", f"s3://{photos}/out/", selection=selection)
        return planned.todo, planned.conflicts, planned.bytes

    assert plan(Selection(include=("b.*", "thumbs/*"))) == (2, 1, 10)
    assert plan(Selection(include=("*.jp*",), exclude=("*产品*",))) == (2, 0, 10)
    assert plan(Selection(limit=7))[0] == 7
    assert plan(Selection(include=("c",), any_name=True)) == (1, 0, 5)
    assert not [method for method, _ in proxy.requests if method in ("PUT", "POST", "DELETE")]
    assert producer.runs() == []


def test_images_by_content_and_what_is_none_is_skipped_with_what_it_is(
    producer: Producer, photos: str, ledger: Ledger, settings: Settings, store: S3Store, proxy: SickProxy,
    s3_client: "S3Client",
) -> None:  # fmt: skip
    bodies = {
        "00 产品.txt": b"would be written where the image of this name is",
        "invoice.pdf": b"%PDF-1.7 and so on",
        "clip": b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
        "_SUCCESS": b"",
        "photo": b"\xff\xd8\xff\xe0" + b"x" * 5000,
        "phone": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",  # whether this machine can read it or not
    }
    for name, body in bodies.items():
        s3_client.put_object(Bucket=photos, Key=f"in/{name}", Body=body)
    source, target, by_content = f"s3://{photos}/in/", f"s3://{photos}/out/", Selection(any_name=True)
    planned = producer.plan(source, target, selection=by_content)
    assert (planned.listed, planned.todo, planned.conflicts, planned.no_images) == (36, 32, 0, 4)
    proxy.requests.clear()
    run = producer.sweep(source, target, selection=by_content)
    assert (run.counts().listed, run.counts().pending, run.counts().skipped, run.counts().failed) == (36, 32, 4, 0)
    looked_at = [path for method, path in proxy.requests if method == "GET" and "/in/" in path]
    assert len(looked_at) == 5  # none for names that tell, none for an empty object

    work_off(run, ledger, settings, store)
    told = {str(row["key"]).removeprefix("in/"): row for row in run.results() if row["outcome"] == "skipped"}
    assert {name: row["code"] for name, row in told.items()} == {
        "00 产品.txt": "not_an_image", "invoice.pdf": "unsupported_format", "clip": "unsupported_format",
        "_SUCCESS": "empty_object",
    }  # fmt: skip
    assert "a PDF file" in str(told["invoice.pdf"]["reason"])
    verdict = verify(store, run.spec.reports)
    assert (verdict.listed, verdict.done, verdict.skipped, verdict.wrong, verdict.newer) == (36, 32, 4, (), 0)
    report = store.get(photos, Key(f"{run.spec.reports.key}report.html"), max_bytes=1 << 24).body.decode()
    assert "4 of the listed keys are no images" in report
    again = producer.sweep(source, target, selection=by_content)
    assert (again.counts().pending, again.counts().skipped) == (0, 36)


def test_what_cannot_be_looked_at_is_left_to_a_worker(
    producer: Producer, photos: str, proxy: SickProxy, s3_client: "S3Client"
) -> None:
    s3_client.put_object(Bucket=photos, Key="in/notes", Body=b"no image" * 100)
    proxy.rule = lambda method, path: "truncate" if method == "GET" and path.endswith("in/notes") else ""
    run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", selection=Selection(any_name=True))
    assert (run.counts().pending, run.counts().skipped) == (31, 0)


def test_retry_takes_what_failed_and_nothing_else(
    producer: Producer, photos: str, ledger: Ledger, settings: Settings, store: S3Store
) -> None:
    run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", recipe="alpha")
    with pytest.raises(SetupError, match="not finished"):
        producer.retry(run.id)
    work_off(run, ledger, settings, store, fail=("in/07 产品.jpg", "in/09 产品.jpg"))
    again = producer.retry(run.id)
    assert again.spec.recipe == run.spec.recipe
    assert again.counts().listed == 2
    work_off(again, ledger, settings, store)
    assert sorted(str(row["key"]) for row in again.results()) == ["in/07 产品.jpg", "in/09 产品.jpg"]
    with pytest.raises(SetupError, match="Nothing failed"):
        producer.retry(again.id)


def test_verify_proves_the_sum_from_s3_alone_and_names_what_does_not_hold(
    producer: Producer, photos: str, ledger: Ledger, settings: Settings, store: S3Store, s3_client: "S3Client"
) -> None:
    run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", reports_to=f"s3://{photos}/reports")
    work_off(run, ledger, settings, store, fail=("in/07 产品.jpg",))
    place = run.spec.reports
    assert place == Location(photos, f"reports/_mattemill/{run.id}/")
    ledger.client.flushall()
    verdict = verify(store, place)
    assert (verdict.listed, verdict.done, verdict.failed, verdict.wrong, verdict.newer) == (30, 29, 1, (), 0)

    s3_client.delete_object(Bucket=photos, Key="out/05 产品.png")
    s3_client.put_object(Bucket=photos, Key="out/06 产品.png", Body=b"other")
    s3_client.put_object(Bucket=photos, Key="in/new.jpg", Body=b"new")
    manifest = Key(f"{place.key}manifest.jsonl")
    lines = store.get(photos, manifest, max_bytes=1 << 20).body.splitlines(keepends=True)
    store.put(
        photos, manifest, b"".join(line for line in lines if "in/08 产品.jpg".encode() not in line), content_type=""
    )
    verdict = verify(store, place)
    assert verdict.newer == 2
    assert len(verdict.wrong) == 3
    assert any("29 lines for 30" in sentence for sentence in verdict.wrong)
    assert any("out/05 产品.png is not there" in sentence for sentence in verdict.wrong)
    assert any("out/06 产品.png is not the one" in sentence for sentence in verdict.wrong)
    with pytest.raises(SetupError, match="no reports"):
        verify(store, Location(photos, f"reports/_mattemill/{RunId('none')}/"))


def of(run: Run, ledger: Ledger, settings: Settings, store: S3Store) -> tuple[int, tuple[str, ...], int]:
    """Work a run off and verify it without Redis: listed, wrong, newer."""
    place = run.spec.reports
    work_off(run, ledger, settings, store)
    ledger.client.flushall()
    verdict = verify(store, place)
    return verdict.listed, verdict.wrong, verdict.newer


@pytest.mark.parametrize(
    ("selection", "listed", "newer"),
    [
        (Selection(), 30, 1),
        (Selection(include=("1*",)), 10, 0),
        (Selection(include=("1*", "later*")), 10, 1),
        (Selection(exclude=("2*",)), 20, 1),
        (Selection(limit=12), 12, 0),
        (Selection(limit=31), 30, 1),
        (Selection(any_name=True, include=("1*", "note*")), 10, 1),
    ],
    ids=["all", "include", "include later", "exclude", "limit", "limit not reached", "any name"],
)
def test_verify_holds_a_run_to_what_it_was_asked_to_take(
    selection: Selection, listed: int, newer: int, producer: Producer, photos: str, ledger: Ledger, settings: Settings,
    store: S3Store, s3_client: "S3Client",
) -> None:  # fmt: skip
    target = f"s3://{photos}/out/"
    run = producer.sweep(f"s3://{photos}/in/", target, selection=selection)
    for key in ("in/later.jpg", "in/notes.txt"):
        s3_client.put_object(Bucket=photos, Key=key, Body=b"later")
    assert of(run, ledger, settings, store) == (listed, (), newer)


def test_verify_holds_single_images_to_themselves(
    producer: Producer, photos: str, ledger: Ledger, settings: Settings, store: S3Store, s3_client: "S3Client"
) -> None:
    images = [f"s3://{photos}/in/{name}" for name in ("03 产品.jpg", "04 产品.jpg", "no image's name")]
    s3_client.put_object(Bucket=photos, Key="in/no image's name", Body=b"x")
    run = producer.enqueue(images, f"s3://{photos}/out/")
    place = run.spec.reports
    assert of(run, ledger, settings, store) == (3, (), 0)
    s3_client.put_object(Bucket=photos, Key="in/04 产品.jpg", Body=b"changed")
    assert verify(store, place).newer == 1
