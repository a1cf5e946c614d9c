"""What every `ObjectStore` must do; add an implementation to `store` and it is held to the same."""

import hashlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from pipeline.errors import Code, ItemError, MattemillError, PermanentError, SetupError, TransientError
from pipeline.ids import ETag, Key
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from pipeline.storage import Listed, ObjectStore, PreconditionFailedError
from workers.local.ports import free_ports

PNG = "image/png"
LARGE = 64 << 20
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


def put(store: ObjectStore, bucket: str, key: str, body: bytes = b"body") -> ETag:
    return store.put(bucket, Key(key), body, content_type=PNG)


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


@contextmanager
def fails(kind: type[ItemError], code: Code) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.code is code
    assert_one_sentence(caught.value.reason)


def assert_one_sentence(text: str) -> None:
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 600


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


def every_call(store: ObjectStore, bucket: str) -> dict[str, Callable[[], object]]:
    key = Key("a.png")
    return {
        "list": lambda: store.list_page(bucket, ""),
        "head": lambda: store.head(bucket, key),
        "get": lambda: store.get(bucket, key, max_bytes=LARGE),
        "put": lambda: store.put(bucket, key, b"abc", content_type=PNG),
        "conditional put": lambda: store.put(bucket, key, b"abc", content_type=PNG, if_none_match=True),
        "delete": lambda: store.delete(bucket, key),
    }


CALLS = ["list", "head", "get", "put", "conditional put", "delete"]


def unreachable_code(call: str) -> Code:
    return Code.UPLOAD_FAILED if "put" in call else Code.ATTEMPTS_EXHAUSTED


class TestS3Setup:
    """What only S3Store has: its ways to be set up wrongly."""

    def test_create_bucket_is_content_with_our_own(self, settings: Settings, aws_session: boto3.Session) -> None:
        with S3Store(settings, session=aws_session) as store:
            store.create_bucket("created-twice")
            put(store, "created-twice", "kept")
            store.create_bucket("created-twice")
            assert store.head("created-twice", Key("kept")) is not None
            with pytest.raises(SetupError):
                store.create_bucket("Not_A/Bucket")

    @pytest.mark.parametrize("call", CALLS)
    def test_wrong_keys_are_denied(
        self, settings: Settings, aws_session: boto3.Session, s3_bucket: str, call: str
    ) -> None:
        access_key = aws_session.get_credentials().access_key  # type: ignore[union-attr]
        for wrong in (session_of(access_key, "wrong-secret"), session_of("WRONGKEY", "wrong-secret")):
            with S3Store(settings, session=wrong) as store, fails(PermanentError, Code.ACCESS_DENIED):
                every_call(store, s3_bucket)[call]()

    def test_check_bucket_tells_wrong_keys_from_a_missing_bucket_and_a_closed_port(
        self, settings: Settings, aws_session: boto3.Session, s3_bucket: str
    ) -> None:
        wrong = S3Store(settings, session=session_of("WRONGKEY", "wrong-secret"))
        closed = S3Store(at(free_ports(1)[0]), session=aws_session)
        right = S3Store(settings, session=aws_session)
        said = [sentence(store, bucket) for store, bucket in ((wrong, s3_bucket), (closed, s3_bucket), (right, "nope"))]
        assert "does not accept these credentials" in said[0]
        assert "cannot be reached" in said[1]
        assert "There is no bucket nope" in said[2]
        for text in said:
            assert_one_sentence(text)
            assert "Hint:" in text
            assert "wrong-secret" not in text
        for store in (wrong, closed, right):
            store.close()

    @pytest.mark.parametrize("call", CALLS)
    def test_a_closed_port_is_transient(self, aws_session: boto3.Session, call: str) -> None:
        with (
            S3Store(at(free_ports(1)[0]), session=aws_session) as store,
            fails(TransientError, unreachable_code(call)),
        ):
            every_call(store, "bucket")[call]()

    def test_no_credentials_at_all(self, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        without_aws(monkeypatch, tmp_path)
        with S3Store(settings) as store:
            with pytest.raises(SetupError, match="No S3 credentials were found") as caught:
                store.check_bucket("bucket")
            assert "AWS_ACCESS_KEY_ID" in caught.value.hint
            with fails(TransientError, Code.ACCESS_DENIED):
                store.get("bucket", Key("a"), max_bytes=LARGE)

    def test_credentials_and_region_from_the_environment(
        self,
        settings: Settings,
        aws_session: boto3.Session,
        s3_bucket: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        without_aws(monkeypatch, tmp_path)
        credentials = aws_session.get_credentials()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials.access_key)  # type: ignore[union-attr]
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials.secret_key)  # type: ignore[union-attr]
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_ports(1)[0]}")  # not for this machine
        with S3Store(settings) as store:
            store.check_bucket(s3_bucket)

    @pytest.mark.parametrize("profile", ["", "no-such-profile"])
    def test_what_cannot_be_set_up_is_a_sentence(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str
    ) -> None:
        without_aws(monkeypatch, tmp_path)
        if profile:
            monkeypatch.setenv("AWS_PROFILE", profile)
        settings = load_settings(s3_endpoint_url="http://127.0.0.1:9" if profile else "not an address")
        with pytest.raises(SetupError, match=profile or "not an address"):
            S3Store(settings)

    def test_a_password_in_the_address_is_not_repeated(self, aws_session: boto3.Session) -> None:
        settings = load_settings(s3_endpoint_url=f"http://me:hunter2@127.0.0.1:{free_ports(1)[0]}")
        with S3Store(settings, session=aws_session) as store:
            with pytest.raises(MattemillError) as caught:
                store.check_bucket("bucket")
            assert "hunter2" not in str(caught.value)
            with pytest.raises(MattemillError) as caught:
                store.get("bucket", Key("a"), max_bytes=LARGE)
            assert "hunter2" not in str(caught.value)


def session_of(access_key: str, secret_key: str) -> boto3.Session:
    return boto3.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name="us-east-1")


def at(port: int) -> Settings:
    return load_settings(s3_endpoint_url=f"http://127.0.0.1:{port}")


def sentence(store: ObjectStore, bucket: str) -> str:
    with pytest.raises(SetupError) as caught:
        store.check_bucket(bucket)
    return str(caught.value)


def without_aws(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "SECURITY_TOKEN", "PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class SickServer(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes and then does what `after` says."""

    daemon_threads = True
    block_on_close = True
    allow_reuse_address = True

    def __init__(self, answer: bytes, after: str = "close") -> None:
        super().__init__(("127.0.0.1", 0), SickHandler)
        self.answer = answer
        self.after = after
        self.requests: list[bytes] = []
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what some of these tests are about."""


class SickHandler(socketserver.BaseRequestHandler):
    server: SickServer

    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.settimeout(20)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                return
            received += chunk
        self.server.requests.append(received)
        connection.sendall(self.server.answer)
        if self.server.after == "reset":
            linger_for_0_s = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_0_s)
        elif self.server.after == "hang":
            self.server.over.wait(20)


@contextmanager
def sick_store(answer: bytes, after: str = "close") -> Iterator[tuple[S3Store, SickServer]]:
    server = SickServer(answer, after)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        session = session_of("key", "secret")
        with S3Store(at(server.server_address[1]), session=session, read_timeout=0.5) as store:
            yield store, server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def http(status: str, body: bytes, headers: str = "", length: int | None = None) -> bytes:
    announced = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


def refusal(status: str, code: str) -> bytes:
    xml = f"<Error><Code>{code}</Code><Message>told by the server</Message></Error>"
    return http(status, xml.encode(), "Content-Type: application/xml\r\n")


class TestSickS3:
    """How S3Store takes servers that misbehave."""

    @pytest.mark.parametrize("call", CALLS)
    def test_busy_is_transient_and_tried_again_unless_conditional(self, call: str) -> None:
        with sick_store(refusal("503 Slow Down", "SlowDown")) as (store, server):
            with fails(TransientError, unreachable_code(call)):
                every_call(store, "bucket")[call]()
            # A second try of a conditional write would meet the first one's object.
            assert len(server.requests) == (1 if call == "conditional put" else 3)

    @pytest.mark.parametrize("call", ["list", "get", "conditional put"])
    @pytest.mark.parametrize(
        "answer",
        [
            refusal("500 Internal Server Error", "InternalError"),
            refusal("429 Too Many Requests", "TooManyRequests"),
            http("502 Bad Gateway", b"<html>a proxy's page</html>", "Content-Type: text/html\r\n"),
            b"this is not HTTP\r\n\r\n",
            b"",
        ],
        ids=["500", "429", "502 HTML", "noise", "hang up"],
    )
    def test_a_sick_answer_is_transient(self, answer: bytes, call: str) -> None:
        with sick_store(answer) as (store, _), fails(TransientError, unreachable_code(call)):
            every_call(store, "bucket")[call]()

    @pytest.mark.parametrize("call", ["get", "conditional put"])
    @pytest.mark.parametrize("after", ["reset", "hang"])
    def test_no_answer_at_all_is_transient(self, call: str, after: str) -> None:
        with sick_store(b"", after) as (store, _), fails(TransientError, unreachable_code(call)):
            every_call(store, "bucket")[call]()

    @pytest.mark.parametrize("after", ["close", "reset", "hang"])
    def test_a_body_cut_short_is_truncated(self, after: str) -> None:
        answer = http("200 OK", b"only these", 'ETag: "abc-2"\r\n', length=1000)
        with sick_store(answer, after) as (store, _), fails(TransientError, Code.TRUNCATED):
            store.get("bucket", Key("a"), max_bytes=LARGE)

    def test_other_bytes_than_the_etag_says_are_truncated(self) -> None:
        wrong = http("200 OK", b"altered", f'ETag: "{hashlib.md5(b"original").hexdigest()}"\r\n')
        with sick_store(wrong) as (store, _), fails(TransientError, Code.TRUNCATED):
            store.get("bucket", Key("a"), max_bytes=LARGE)

    def test_a_checksum_that_differs_is_truncated(self) -> None:
        wrong = http("200 OK", b"altered", 'ETag: "abc-2"\r\nx-amz-checksum-crc32: AAAAAA==\r\n')
        with sick_store(wrong) as (store, _), fails(TransientError, Code.TRUNCATED):
            store.get("bucket", Key("a"), max_bytes=LARGE)

    @pytest.mark.parametrize(
        ("etag", "header"),
        [
            ("0" * 32 + "-3", ""),
            ("0" * 32, "x-amz-server-side-encryption: aws:kms\r\n"),
            ("0" * 32, "x-amz-server-side-encryption: aws:kms:dsse\r\n"),
            ("0" * 32, "x-amz-server-side-encryption-customer-algorithm: AES256\r\n"),
        ],
        ids=["parts", "KMS", "dual KMS", "customer's key"],
    )
    def test_an_etag_that_is_no_md5_is_not_taken_for_one(self, etag: str, header: str) -> None:
        with sick_store(http("200 OK", b"body", f'ETag: "{etag}"\r\n{header}')) as (store, _):
            assert store.get("bucket", Key("a"), max_bytes=LARGE).body == b"body"

    @pytest.mark.parametrize("conditional", [False, True])
    def test_other_bytes_written_than_were_sent(self, conditional: bool) -> None:
        wrong = http("200 OK", b"", f'ETag: "{hashlib.md5(b"other").hexdigest()}"\r\n')
        with sick_store(wrong) as (store, server):
            with fails(TransientError, Code.UPLOAD_FAILED):
                store.put("bucket", Key("a"), b"sent", content_type=PNG, if_none_match=conditional)
            assert [request.split(b" ")[0] for request in server.requests] == [b"PUT", b"DELETE"]

    @pytest.mark.parametrize("header", ["", "x-amz-server-side-encryption: aws:kms\r\n"])
    def test_an_etag_that_is_no_md5_tells_nothing_of_what_was_written(self, header: str) -> None:
        etag = "0" * 32 if header else "0" * 32 + "-2"
        with sick_store(http("200 OK", b"", f'ETag: "{etag}"\r\n{header}')) as (store, _):
            assert store.put("bucket", Key("a"), b"sent", content_type=PNG) == etag

    def test_too_large_is_refused_before_the_body(self) -> None:
        answer = http("200 OK", b"", 'ETag: "abc-2"\r\n', length=10 << 30)
        with sick_store(answer, "hang") as (store, _), fails(PermanentError, Code.TOO_LARGE):
            store.get("bucket", Key("a"), max_bytes=LARGE)

    def test_a_server_that_ignores_if_match_is_seen_through(self) -> None:
        with (
            sick_store(http("200 OK", b"body", 'ETag: "abc-2"\r\n')) as (store, _),
            fails(PermanentError, Code.CHANGED_WHILE_PROCESSING),
        ):
            store.get("bucket", Key("a"), etag=ETag("other-1"), max_bytes=LARGE)

    def test_a_conflict_of_two_conditional_writes_is_a_failed_precondition(self) -> None:
        with (
            sick_store(refusal("409 Conflict", "ConditionalRequestConflict")) as (store, _),
            pytest.raises(PreconditionFailedError),
        ):
            store.put("bucket", Key("a"), b"1", content_type=PNG, if_none_match=True)

    @pytest.mark.parametrize(
        ("status", "code", "kind", "expected"),
        [
            ("403 Forbidden", "AccessDenied", PermanentError, Code.ACCESS_DENIED),
            ("403 Forbidden", "InvalidObjectState", PermanentError, Code.ACCESS_DENIED),
            ("400 Bad Request", "InvalidRequest", PermanentError, Code.ACCESS_DENIED),
            ("400 Bad Request", "ExpiredToken", TransientError, Code.ACCESS_DENIED),
            ("403 Forbidden", "RequestTimeTooSkewed", TransientError, Code.ACCESS_DENIED),
            ("400 Bad Request", "RequestTimeout", TransientError, Code.ATTEMPTS_EXHAUSTED),
            ("409 Conflict", "OperationAborted", TransientError, Code.ATTEMPTS_EXHAUSTED),
            ("404 Not Found", "NoSuchKey", PermanentError, Code.NOT_FOUND),
        ],
    )
    def test_what_a_refusal_means(self, status: str, code: str, kind: type[ItemError], expected: Code) -> None:
        with sick_store(refusal(status, code)) as (store, _), fails(kind, expected):
            store.get("bucket", Key("a"), max_bytes=LARGE)

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (refusal("403 Forbidden", "AccessDenied"), "may not use the bucket photos"),
            (refusal("403 Forbidden", "RequestTimeTooSkewed"), "set the computer's clock"),
            (refusal("503 Slow Down", "SlowDown"), "cannot open the bucket photos now"),
            (refusal("400 Bad Request", "InvalidRequest"), "refuses to open the bucket photos"),
            (http("200 OK", b"a web page", "Content-Type: text/html\r\n"), "photos"),
        ],
    )
    def test_check_bucket_says_what_is_wrong(self, answer: bytes, said: str) -> None:
        with sick_store(answer) as (store, _):
            text = sentence(store, "photos")
        assert said in text
        assert "Hint:" in text
        assert_one_sentence(text)

    def test_create_bucket_does_not_take_anothers(self) -> None:
        with sick_store(refusal("409 Conflict", "BucketAlreadyExists")) as (store, _), pytest.raises(SetupError):
            store.create_bucket("taken")
