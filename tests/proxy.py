"""An S3 server that falls ill on demand: a proxy before the real one."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["", "hang", "stall", "reset", "500", "503", "truncate", "alter"]
Rule = Callable[[str, str], Fault]
"""From method and path (with its query) to what goes wrong; "" for nothing."""


class SickProxy:
    """Forwards to `upstream`, a URL, except where `rule` says otherwise; `rule` may be changed at any time."""

    def __init__(self, upstream: str) -> None:
        self.rule: Rule = lambda method, path: ""
        self.requests: list[tuple[str, str]] = []
        self.stall_seconds = 30.0
        self._closed = threading.Event()
        place = urlsplit(upstream)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes: 40 ms more for every answer

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.requests.append((self.command, self.path))
                fault = proxy.rule(self.command, self.path)
                if fault == "hang":
                    proxy._closed.wait()
                if fault == "stall":  # and then it is done, whether anybody still listens or not
                    proxy._closed.wait(proxy.stall_seconds)
                if fault in ("hang", "reset"):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.close_connection = True
                    return
                if fault in ("500", "503"):
                    code = "InternalError" if fault == "500" else "SlowDown"
                    self.reply(int(fault), {}, f"<Error><Code>{code}</Code></Error>".encode())
                    return
                if fault == "alter":
                    body = bytes([body[0] ^ 1]) + body[1:]
                server = HTTPConnection(place.hostname or "", place.port or 80, timeout=60)
                with contextlib.closing(server) as connection:
                    connection.request(self.command, self.path, body, dict(self.headers.items()))
                    answer = connection.getresponse()
                    data = answer.read()
                left_out = ("transfer-encoding", "connection")
                headers = {k: v for k, v in answer.getheaders() if k.lower() not in left_out}
                self.reply(answer.status, headers, data, cut=fault == "truncate")

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815

            def reply(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() != "content-length":
                        self.send_header(name, value)
                length = headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                if cut:
                    self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def sick_proxy(upstream: str) -> Iterator[SickProxy]:
    proxy = SickProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
