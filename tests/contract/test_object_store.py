"""What every `ObjectStore` must do; add an implementation to `store` and it is held to the same."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from pipeline.errors import Code, PermanentError, SetupError
from pipeline.ids import ETag, Key
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from pipeline.storage import Listed, ObjectStore, PreconditionFailedError
from tests.stores import (
    LARGE,
    PNG,
    fails,
    put,
)

ODD_KEYS = [
    "plain.jpg",
    "with space.jpg",
    "plus+and%percent%20.jpg",
    "Fotos/Grüße/日本語 🐈.jpg",
    "line\nbreak\ttab.jpg",
    "quotes'\"&<>;=?#[].jpg",
    "tilde~star*comma,.jpg",  # no backslash: SeaweedFS makes a slash of it
    "e\u0301 decomposed.jpg",
    "a/b/c/" + "d" * 200,
]


@pytest.fixture(params=["s3"])
def store(request: pytest.FixtureRequest, settings: Settings, aws_session: boto3.Session) -> Iterator[ObjectStore]:
    match request.param:
        case "s3":
            with S3Store(settings, session=aws_session) as opened:
                yield opened


def list_all(store: ObjectStore, bucket: str, prefix: str = "") -> list[Listed]:
    found: list[Listed] = []
    token: str | None = None
    while True:
        page = store.list_page(bucket, prefix, token)
        assert len(page.objects) <= 1000
        found += page.objects
        token = page.token
        if token is None:
            return found


class TestReading:
    def test_a_whole_object_comes_back(self, store: ObjectStore, s3_bucket: str) -> None:
        etag = put(store, s3_bucket, "a.png", b"abc")
        fetched = store.get(s3_bucket, Key("a.png"), max_bytes=LARGE)
        assert fetched.body == b"abc"
        assert fetched.etag == etag
        assert '"' not in etag

    def test_an_object_of_many_chunks_comes_back(self, store: ObjectStore, s3_bucket: str) -> None:
        body = hashlib.shake_128(b"seed").digest(9 << 20)
        put(store, s3_bucket, "a.png", body)
        assert store.get(s3_bucket, Key("a.png"), max_bytes=LARGE).body == body

    def test_the_etag_has_one_form_everywhere(self, store: ObjectStore, s3_bucket: str) -> None:
        etag = put(store, s3_bucket, "a.png")
        head = store.head(s3_bucket, Key("a.png"))
        assert head is not None
        assert head.etag == etag
        assert list_all(store, s3_bucket)[0].etag == etag
        assert store.get(s3_bucket, Key("a.png"), etag=etag, max_bytes=LARGE).etag == etag

    def test_nothing_there(self, store: ObjectStore, s3_bucket: str) -> None:
        with fails(PermanentError, Code.NOT_FOUND):
            store.get(s3_bucket, Key("nothing"), max_bytes=LARGE)
        with fails(PermanentError, Code.NOT_FOUND):
            store.get(s3_bucket, Key("nothing"), etag=ETag("0" * 32), max_bytes=LARGE)
        assert store.head(s3_bucket, Key("nothing")) is None

    def test_an_object_that_changed(self, store: ObjectStore, s3_bucket: str) -> None:
        old = put(store, s3_bucket, "a.png", b"old")
        put(store, s3_bucket, "a.png", b"new")
        with fails(PermanentError, Code.CHANGED_WHILE_PROCESSING):
            store.get(s3_bucket, Key("a.png"), etag=old, max_bytes=LARGE)

    def test_too_large_and_just_right(self, store: ObjectStore, s3_bucket: str) -> None:
        put(store, s3_bucket, "a.png", b"x" * 101)
        with fails(PermanentError, Code.TOO_LARGE):
            store.get(s3_bucket, Key("a.png"), max_bytes=100)
        assert len(store.get(s3_bucket, Key("a.png"), max_bytes=101).body) == 101

    def test_an_empty_object(self, store: ObjectStore, s3_bucket: str) -> None:
        put(store, s3_bucket, "a.png", b"")
        with fails(PermanentError, Code.EMPTY_OBJECT):
            store.get(s3_bucket, Key("a.png"), max_bytes=LARGE)
        head = store.head(s3_bucket, Key("a.png"))
        assert head is not None
        assert head.bytes == 0

    def test_the_first_bytes_of_an_object(self, store: ObjectStore, s3_bucket: str) -> None:
        etag = put(store, s3_bucket, "a.png", b"0123456789")
        assert store.peek(s3_bucket, Key("a.png"), 4, etag=etag) == b"0123"
        assert store.peek(s3_bucket, Key("a.png"), 1024, etag=etag) == b"0123456789"
        empty = put(store, s3_bucket, "empty.png", b"")
        assert store.peek(s3_bucket, Key("empty.png"), 4, etag=empty) == b""
        with fails(PermanentError, Code.CHANGED_WHILE_PROCESSING):
            store.peek(s3_bucket, Key("a.png"), 4, etag=empty)
        with fails(PermanentError, Code.NOT_FOUND):
            store.peek(s3_bucket, Key("nothing"), 4, etag=etag)


class TestListing:
    def test_every_object_once_over_several_pages(self, store: ObjectStore, s3_bucket: str) -> None:
        keys = [f"many/{number:04}.jpg" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            etags = list(pool.map(lambda key: put(store, s3_bucket, key, key.encode()), keys))
        first = store.list_page(s3_bucket, "many/")
        assert len(first.objects) == 1000
        assert first.token is not None
        listed = list_all(store, s3_bucket, "many/")
        assert sorted(row.key for row in listed) == keys
        assert {row.key: row.etag for row in listed} == dict(zip(keys, etags, strict=True))
        assert {row.bytes for row in listed} == {len(keys[0])}

    def test_only_what_the_prefix_names(self, store: ObjectStore, s3_bucket: str) -> None:
        for key in ("a/1.jpg", "a/2.jpg", "ab.jpg", "b/a/1.jpg"):
            put(store, s3_bucket, key)
        assert sorted(row.key for row in list_all(store, s3_bucket, "a/")) == ["a/1.jpg", "a/2.jpg"]
        assert sorted(row.key for row in list_all(store, s3_bucket, "a")) == ["a/1.jpg", "a/2.jpg", "ab.jpg"]
        assert list_all(store, s3_bucket, "nothing/") == []

    def test_folder_markers_are_left_out(self, store: ObjectStore, s3_bucket: str) -> None:
        put(store, s3_bucket, "folder/", b"")
        put(store, s3_bucket, "folder/a.jpg")
        assert [row.key for row in list_all(store, s3_bucket)] == ["folder/a.jpg"]

    def test_an_empty_bucket(self, store: ObjectStore, s3_bucket: str) -> None:
        page = store.list_page(s3_bucket, "")
        assert page.objects == ()
        assert page.token is None


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_survive_the_round(store: ObjectStore, s3_bucket: str, key: str) -> None:
    etag = put(store, s3_bucket, key, b"1")
    assert [row.key for row in list_all(store, s3_bucket)] == [key]
    assert [row.key for row in list_all(store, s3_bucket, key[:-1])] == [key]
    assert store.get(s3_bucket, Key(key), etag=etag, max_bytes=LARGE).body == b"1"
    assert store.head(s3_bucket, Key(key)) is not None
    store.delete(s3_bucket, Key(key))
    assert store.head(s3_bucket, Key(key)) is None


class TestWriting:
    def test_metadata_comes_back_in_lower_case(self, store: ObjectStore, s3_bucket: str) -> None:
        metadata = {"Mattemill-Fingerprint": "v1 a=b;c", "other": "x"}
        store.put(s3_bucket, Key("a.png"), b"abc", content_type=PNG, metadata=metadata)
        head = store.head(s3_bucket, Key("a.png"))
        assert head is not None
        assert dict(head.metadata) == {"mattemill-fingerprint": "v1 a=b;c", "other": "x"}
        assert head.bytes == 3

    @pytest.mark.parametrize("metadata", [{"name": "Grüße"}, {"größe": "1"}, {"name": "a\nb: c"}])
    def test_metadata_must_be_printable_ascii(
        self, store: ObjectStore, s3_bucket: str, metadata: dict[str, str]
    ) -> None:
        with pytest.raises(ValueError, match="ASCII"):
            store.put(s3_bucket, Key("a.png"), b"abc", content_type=PNG, metadata=metadata)
        assert store.head(s3_bucket, Key("a.png")) is None

    def test_a_plain_put_overwrites(self, store: ObjectStore, s3_bucket: str) -> None:
        assert put(store, s3_bucket, "a.png", b"1") != put(store, s3_bucket, "a.png", b"22")
        assert store.get(s3_bucket, Key("a.png"), max_bytes=LARGE).body == b"22"

    def test_if_none_match_writes_only_where_nothing_is(self, store: ObjectStore, s3_bucket: str) -> None:
        store.put(s3_bucket, Key("a.png"), b"1", content_type=PNG, if_none_match=True)
        with pytest.raises(PreconditionFailedError):
            store.put(s3_bucket, Key("a.png"), b"2", content_type=PNG, if_none_match=True)
        assert store.get(s3_bucket, Key("a.png"), max_bytes=LARGE).body == b"1"

    def test_if_match_writes_only_over_what_was_read(self, store: ObjectStore, s3_bucket: str) -> None:
        first = put(store, s3_bucket, "a.png", b"1")
        second = store.put(s3_bucket, Key("a.png"), b"2", content_type=PNG, if_match=first)
        with pytest.raises(PreconditionFailedError):
            store.put(s3_bucket, Key("a.png"), b"3", content_type=PNG, if_match=first)
        assert store.get(s3_bucket, Key("a.png"), etag=second, max_bytes=LARGE).body == b"2"

    def test_if_match_where_nothing_is(self, store: ObjectStore, s3_bucket: str) -> None:
        with pytest.raises(PreconditionFailedError):
            store.put(s3_bucket, Key("a.png"), b"3", content_type=PNG, if_match=ETag("0" * 32))
        assert store.head(s3_bucket, Key("a.png")) is None

    def test_both_conditions_at_once_are_a_mistake(self, store: ObjectStore, s3_bucket: str) -> None:
        with pytest.raises(ValueError, match="exclude"):
            store.put(s3_bucket, Key("a"), b"3", content_type=PNG, if_match=ETag("0" * 32), if_none_match=True)

    @pytest.mark.parametrize("condition", ["if_none_match", "if_match"])
    def test_of_eight_that_race_one_wins(self, store: ObjectStore, s3_bucket: str, condition: str) -> None:
        for race in range(3):
            key = Key(f"race-{race}.png")
            before = put(store, s3_bucket, key, b"before") if condition == "if_match" else None
            barrier = threading.Barrier(8)

            def write(number: int) -> bytes | None:
                body = b"writer %d" % number
                barrier.wait(20)  # noqa: B023 - the threads end within the loop
                try:
                    store.put(
                        s3_bucket,
                        key,  # noqa: B023
                        body,
                        content_type=PNG,
                        if_match=before,  # noqa: B023
                        if_none_match=before is None,  # noqa: B023
                    )
                except PreconditionFailedError:
                    return None
                return body

            with ThreadPoolExecutor(8) as pool:
                winners = [body for body in pool.map(write, range(8)) if body is not None]
            assert len(winners) == 1
            assert store.get(s3_bucket, key, max_bytes=LARGE).body == winners[0]

    def test_delete_twice(self, store: ObjectStore, s3_bucket: str) -> None:
        put(store, s3_bucket, "a.png")
        store.delete(s3_bucket, Key("a.png"))
        store.delete(s3_bucket, Key("a.png"))
        assert store.head(s3_bucket, Key("a.png")) is None


class TestBuckets:
    def test_a_good_one_passes(self, store: ObjectStore, s3_bucket: str) -> None:
        store.check_bucket(s3_bucket)

    @pytest.mark.parametrize("bucket", ["no-such-bucket", "Not_A/Bucket"])
    def test_a_missing_one_is_a_setup_error_that_names_it(self, store: ObjectStore, bucket: str) -> None:
        with pytest.raises(SetupError, match=bucket) as caught:
            store.check_bucket(bucket)
        assert caught.value.hint

    def test_working_on_a_missing_bucket(self, store: ObjectStore) -> None:
        bucket, key = "no-such-bucket", Key("a.png")
        with pytest.raises(SetupError, match=bucket):
            store.list_page(bucket, "")
        with fails(PermanentError, Code.NOT_FOUND):
            store.get(bucket, key, max_bytes=LARGE)
        with fails(PermanentError, Code.UPLOAD_FAILED):
            put(store, bucket, key)
