"""What guards the bytes of an upload: a checksum where the server takes one, else the MD5 of its ETag."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from botocore.awsrequest import AWSRequest, AWSResponse

from pipeline.errors import Code, ItemError, PermanentError, TransientError
from pipeline.ids import Key
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from tests.proxy import sick_proxy
from tests.stores import PNG, Nothing, at, fails, session_of

BODY = b"bytes of a picture" * 5000
CHECKSUM = "x-amz-checksum-crc32"


class OldServer(ThreadingHTTPServer):
    """Answers PUTs as a server does that knows no checksums: it ignores them, or refuses with `refusal`."""

    def __init__(self, refusal: tuple[int, str] | None, *, alters: bool = False, echo: str = "") -> None:
        super().__init__(("127.0.0.1", 0), OldHandler)
        self.refusal = refusal
        self.alters = alters
        self.echo = echo
        self.seen: list[tuple[str, bool]] = []
        self.signed: list[str] = []
        self.together = threading.Barrier(1)


class OldHandler(BaseHTTPRequestHandler):
    server: OldServer
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        checked = CHECKSUM in self.headers
        self.server.seen.append((self.command, checked))
        self.server.signed.append(self.headers["x-amz-content-sha256"])
        if checked:
            self.server.together.wait(20)
        if checked and self.server.refusal is not None:
            status, code = self.server.refusal
            self.answer(status, f"<Error><Code>{code}</Code><Message>what is {CHECKSUM}?</Message></Error>".encode())
            return
        etag = hashlib.md5(b"other" if self.server.alters else body).hexdigest()
        headers = {"ETag": f'"{etag}"'} | ({CHECKSUM: self.server.echo} if self.server.echo else {})
        self.answer(200, b"", headers)

    def do_DELETE(self) -> None:
        self.server.seen.append((self.command, False))
        self.answer(204, b"")

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(server: OldServer) -> Iterator[S3Store]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with S3Store(at(server.server_address[1]), session=session_of("key", "secret")) as store:
            yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write(store: S3Store, name: str, *, conditional: bool = False) -> str:
    return store.put("bucket", Key(name), BODY, content_type=PNG, if_none_match=conditional)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("refusal", [(501, "NotImplemented"), (400, "InvalidArgument"), (403, "SignatureDoesNotMatch")])
def test_a_server_that_refuses_checksums_is_asked_without_from_then_on(
    refusal: tuple[int, str], conditional: bool
) -> None:
    server = OldServer(refusal)
    with serving(server) as store:
        for name in ("a", "b"):
            assert write(store, name, conditional=conditional) == hashlib.md5(BODY).hexdigest()
    assert server.seen.count(("PUT", False)) == 2
    assert server.seen[-2:] == [("PUT", False)] * 2


def test_threads_that_are_refused_at_once_are_all_asked_without() -> None:
    server = OldServer((501, "NotImplemented"))
    server.together = threading.Barrier(4)
    with serving(server) as store, ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda name: write(store, name), "abcd"))
    assert written == [hashlib.md5(BODY).hexdigest()] * 4


@pytest.mark.parametrize(
    ("status", "code", "kind", "expected"),
    [
        (403, "AccessDenied", PermanentError, Code.ACCESS_DENIED),
        (403, "RequestTimeTooSkewed", TransientError, Code.ACCESS_DENIED),
        (400, "BadDigest", TransientError, Code.UPLOAD_FAILED),
    ],
)
def test_a_refusal_for_another_reason_says_nothing_of_checksums(
    status: int, code: str, kind: type[ItemError], expected: Code
) -> None:
    server = OldServer((status, code))
    with serving(server) as store:
        for name in ("a", "b"):
            with fails(kind, expected):
                write(store, name)
    assert server.seen == [("PUT", True)] * 2


def test_bytes_are_signed_but_within_this_machine() -> None:
    server = OldServer(None)
    with serving(server) as store:
        write(store, "a")
    assert server.signed == ["UNSIGNED-PAYLOAD"]

    elsewhere = load_settings(s3_endpoint_url="http://s3.example:9000", redis_url="redis://unused:1/0")
    with S3Store(elsewhere, session=session_of("key", "secret")) as store:

        def answer(request: AWSRequest, **_: object) -> AWSResponse:
            server.signed.append(request.headers["x-amz-content-sha256"].decode())
            return AWSResponse(request.url, 200, {"etag": hashlib.md5(BODY).hexdigest()}, Nothing())

        store._client.meta.events.register("before-send.s3", answer)
        write(store, "a")
    assert server.signed[1:] == [hashlib.sha256(BODY).hexdigest()]


def test_where_checksums_are_ignored_the_etag_still_tells() -> None:
    server = OldServer(None, alters=True)
    with serving(server) as store:
        for name in ("a", "b"):
            with fails(TransientError, Code.UPLOAD_FAILED):
                write(store, name)
    assert [command for command, _ in server.seen] == ["PUT", "DELETE"] * 2


def test_another_checksum_in_the_answer_is_an_error_and_the_object_goes() -> None:
    server = OldServer(None, echo="AAAAAA==")
    with serving(server) as store, fails(TransientError, Code.UPLOAD_FAILED):
        write(store, "a")
    assert [command for command, _ in server.seen] == ["PUT", "DELETE"]


def test_bytes_that_change_on_their_way_are_refused_by_a_real_server(
    settings: Settings, aws_session: boto3.Session, s3_bucket: str
) -> None:
    assert settings.s3_endpoint_url
    with sick_proxy(settings.s3_endpoint_url) as proxy, S3Store(settings, session=aws_session) as direct:
        through = load_settings(s3_endpoint_url=proxy.url, redis_url=settings.redis_url)
        proxy.rule = lambda method, path: "alter" if method == "PUT" and path.endswith("/bad") else ""
        with S3Store(through, session=aws_session) as store:
            store.put(s3_bucket, Key("good"), BODY, content_type=PNG)
            with fails(TransientError, Code.UPLOAD_FAILED):
                store.put(s3_bucket, Key("bad"), BODY, content_type=PNG)
        assert direct.get(s3_bucket, Key("good"), max_bytes=len(BODY)).body == BODY
        assert direct.head(s3_bucket, Key("bad")) is None
