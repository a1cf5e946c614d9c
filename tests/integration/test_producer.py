"""What a user of the Python API relies on, against real servers; no workers are needed to list."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest

from pipeline.errors import SetupError
from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, connect
from pipeline.runs import FINGERPRINT
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from producer import Producer, StallError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@pytest.fixture
def producer(settings: Settings, aws_session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    credentials = aws_session.get_credentials()
    assert credentials is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with S3Store(settings) as store:
        yield Producer(settings, store)


@pytest.fixture
def photos(s3_client: "S3Client", s3_bucket: str) -> Iterator[str]:
    yield s3_bucket
    for entry in s3_client.list_objects_v2(Bucket=s3_bucket).get("Contents", []):
        s3_client.delete_object(Bucket=s3_bucket, Key=entry["Key"])


def put(s3_client: "S3Client", bucket: str, *keys: str) -> None:
    for key in keys:
        s3_client.put_object(Bucket=bucket, Key=key, Body=b"x")


def test_a_sweep_lists_images_and_never_its_own_output(producer: Producer, s3_client: "S3Client", photos: str) -> None:
    put(s3_client, photos, "a.jpg", "sub/b 产品.PNG", "notes.txt", "cut/a.png", "cut/_mattemill/r/report.html")
    counts = producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut").counts()
    assert (counts.listed, counts.pending, counts.state) == (2, 2, "listed")


def test_the_second_source_of_one_output_fails_as_a_conflict(
    producer: Producer, s3_client: "S3Client", photos: str
) -> None:
    put(s3_client, photos, "a.jpg", "a.png")
    run = producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut/")
    counts = run.counts()
    assert (counts.listed, counts.failed, counts.pending) == (2, 1, 1)
    assert [failure["code"] for failure in run.failures()] == ["output_conflict"]


def test_what_is_already_right_is_skipped_unless_forced_or_changed(
    producer: Producer, s3_client: "S3Client", photos: str, settings: Settings
) -> None:
    put(s3_client, photos, "a.jpg")
    etag = s3_client.head_object(Bucket=photos, Key="a.jpg")["ETag"].strip('"')
    first = producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut/")
    client = connect(settings)
    spec = Ledger(client, settings).spec(first.id)
    client.close()
    s3_client.put_object(
        Bucket=photos,
        Key=spec.output_key(Key("a.jpg")),
        Body=b"png",
        Metadata={FINGERPRINT: spec.fingerprint(ETag(etag), 1)},
    )
    assert producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut/").counts().skipped == 1
    assert producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut/", force=True).counts().skipped == 0
    s3_client.put_object(Bucket=photos, Key="a.jpg", Body=b"y")
    assert producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut/").counts().skipped == 0


def test_enqueue_takes_single_images_and_says_which_are_not_there(
    producer: Producer, s3_client: "S3Client", photos: str
) -> None:
    put(s3_client, photos, "in/a.jpg")
    run = producer.enqueue([f"s3://{photos}/in/a.jpg", f"s3://{photos}/in/b.jpg"], f"s3://{photos}/cut/")
    assert run.failures() == [{"key": "in/b.jpg", "code": "not_found", "reason": "There is no such object."}]
    assert run.counts().pending == 1


def test_waiting_without_workers_gives_up_and_says_what_for(
    producer: Producer, s3_client: "S3Client", photos: str
) -> None:
    put(s3_client, photos, "a.jpg")
    run = producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut/")
    with pytest.raises(StallError, match="1 images in todo"):
        run.wait(stall_timeout=0.2)
    run.cancel()
    assert [failure["code"] for failure in run.failures()] == ["cancelled"]


def test_a_wrong_address_bucket_or_model_is_named(producer: Producer, photos: str) -> None:
    with pytest.raises(SetupError, match="no S3 address"):
        producer.sweep("photos/", f"s3://{photos}/cut/")
    with pytest.raises(SetupError, match="no-such-bucket-here"):
        producer.sweep("s3://no-such-bucket-here/", f"s3://{photos}/cut/")
    with pytest.raises(SetupError, match="no model named"):
        producer.sweep(f"s3://{photos}/", f"s3://{photos}/cut/", model="nope")


def test_a_recipe_names_the_outputs_and_is_part_of_what_is_right(
    producer: Producer, s3_client: "S3Client", photos: str
) -> None:
    put(s3_client, photos, "in/a.jpg")
    run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", recipe="webp=90,name={stem}-{ext}.webp")
    spec = Ledger(connect(producer._settings), producer._settings).spec(run.id)
    assert spec.output_key(Key("in/a.jpg")) == "out/a-jpg.webp"
    right = spec.fingerprint(ETag(s3_client.head_object(Bucket=photos, Key="in/a.jpg")["ETag"].strip('"')), 1)
    s3_client.put_object(Bucket=photos, Key="out/a-jpg.webp", Body=b"y", Metadata={FINGERPRINT: right})
    for recipe, skipped in (
        ({"webp": 90, "name": "{stem}-{ext}.webp"}, 1),
        ("webp=80,name={stem}-{ext}.webp", 0),
    ):
        run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", recipe=recipe)
        assert run.counts().skipped == skipped


def test_a_name_with_the_extension_keeps_two_sources_apart(
    producer: Producer, s3_client: "S3Client", photos: str
) -> None:
    put(s3_client, photos, "in/a.jpg", "in/a.webp")
    run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", recipe="name={stem}-{ext}.png")
    assert run.counts().failed == 0


def test_a_background_image_is_held_to_what_it_is_now(producer: Producer, s3_client: "S3Client", photos: str) -> None:
    put(s3_client, photos, "in/a.jpg")
    recipe = "background=walls/oak.jpg"
    with pytest.raises(SetupError, match="no background image"):
        producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", recipe=recipe)
    ledger = Ledger(connect(producer._settings), producer._settings)
    prints = set()
    for body in (b"1", b"2"):
        s3_client.put_object(Bucket=photos, Key="walls/oak.jpg", Body=body)
        run = producer.sweep(f"s3://{photos}/in/", f"s3://{photos}/out/", recipe=recipe)
        prints.add(ledger.spec(run.id).fingerprint(ETag("e"), 1))
    assert len(prints) == 2


def test_a_recipe_that_cannot_be_starts_no_run(producer: Producer, photos: str) -> None:
    before = len(producer.runs())
    with pytest.raises(SetupError, match="jpeg has no transparency"):
        producer.enqueue([f"s3://{photos}/a.jpg"], f"s3://{photos}/out/", recipe="jpeg")
    assert len(producer.runs()) == before
