"""How `S3Store` takes servers that misbehave."""

import hashlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.errors import Code, ItemError, PermanentError, SetupError, TransientError
from pipeline.ids import ETag, Key
from pipeline.s3 import S3Store
from pipeline.storage import PreconditionFailedError
from tests.stores import (
    CALLS,
    LARGE,
    PNG,
    assert_one_sentence,
    at,
    every_call,
    fails,
    sentence,
    session_of,
    unreachable_code,
)


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
