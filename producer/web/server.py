"""The live page's HTTP server: who may see it, and the headers that keep browsers strict. It answers GET only."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

import redis
import structlog
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from pipeline.errors import SetupError
from pipeline.ids import ItemId, RunId
from pipeline.runs import NewerRunError
from producer.metrics import WebMetrics
from producer.web.reading import Reader
from producer.web.render import Renderer
from producer.web.texts import LANGUAGES, choose

log = structlog.get_logger(__name__)
USER = "mattemill"
LEAST = 8
"""Characters of a password."""
_T = TypeVar("_T")
_THREADS = 4
_PAUSE = 0.5
"""Seconds that a wrong password costs."""
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "private, no-cache",
}
_LASTING = "private, max-age=86400, immutable"
_YEAR_DAYS = 365


@dataclass(frozen=True, slots=True)
class Door:
    """Who may see the page.

    Attributes:
        password: of the user `mattemill`; None lets in every process of this machine.
    """

    password: str | None

    def lets_in(self, header: str) -> bool:
        """Whether this Authorization header is the right one; takes as long for every wrong one."""
        if self.password is None:
            return True
        kind, _, value = header.partition(" ")
        try:
            given = base64.b64decode(value.strip(), validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            given = b""
        return hmac.compare_digest(given, f"{USER}:{self.password}".encode())

    def knows(self, host: str) -> bool:
        """Whether a Host header may be answered: without a password only this machine's own names.

        Otherwise any web page could have its own name point here, and read with the browser's help.
        """
        try:
            return self.password is not None or is_loopback(urlsplit(f"//{host}").hostname or "")
        except ValueError:
            return False


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and reached by nobody else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Page(RequestHandler):
    """What all answers have in common."""

    def initialize(self, reader: Reader, renderer: Renderer, door: Door, pool: ThreadPoolExecutor) -> None:
        self.reader = reader
        self.renderer = renderer
        self.door = door
        self.pool = pool

    def set_default_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    async def prepare(self) -> None:
        if not self.door.knows(self.request.host):
            raise HTTPError(HTTPStatus.MISDIRECTED_REQUEST)
        given = self.request.headers.get("Authorization", "")
        if not self.door.lets_in(given):
            if given:
                log.warning("web_password_wrong", remote=self.request.remote_ip)
                await asyncio.sleep(_PAUSE)
            raise HTTPError(HTTPStatus.UNAUTHORIZED)
        asked = self.get_query_argument("lang", "")
        if asked in LANGUAGES:
            self.set_cookie("lang", asked, expires_days=_YEAR_DAYS, httponly=True, samesite="Strict")

    @property
    def language(self) -> str:
        for asked in (self.get_query_argument("lang", ""), self.get_cookie("lang", "")):
            if asked in LANGUAGES:
                return str(asked)
        return choose(self.request.headers.get("Accept-Language", ""))

    async def aside(self, work: Callable[[], _T]) -> _T:
        """Do what may block in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    def write_error(self, status_code: int, **details: object) -> None:
        error = (details.get("exc_info") or (None, None, None))[1]  # type: ignore[index]
        text = {
            401: "The page asks for a user and a password.",
            404: "There is no such page.",
            405: "Only reading is possible here.",
            421: "This address is not served here.",
        }.get(status_code, "Something went wrong here; the log says what.")
        if isinstance(error, NewerRunError):
            status_code, text = 501, "A newer Mattemill has started this run: this page has to be upgraded to show it."
        elif isinstance(error, SetupError):
            status_code, text = 404, "The run is not known, or its time in the ledger is over."
        elif isinstance(error, (redis.RedisError, OSError)):
            status_code, text = 503, "Redis does not answer. The page tries again by itself."
        self.set_status(status_code)
        if status_code == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="Mattemill", charset="UTF-8"')
        self.finish(self.renderer.message(self.language, status_code, text))

    def log_exception(self, typ: object, value: BaseException | None, tb: object) -> None:
        if isinstance(value, (redis.RedisError, OSError)):
            log.warning("web_redis_away", error=str(value))
        elif not isinstance(value, (HTTPError, SetupError)):
            log.error("web_failed", path=self.request.path, exc_info=value)


class _Runs(_Page):
    async def get(self) -> None:
        self.finish(self.renderer.overview(self.language, await self.aside(self.reader.overview)))


class _Run(_Page):
    async def get(self, run: str) -> None:
        view = await self.aside(partial(self.reader.run, RunId(run)))
        self.finish(self.renderer.run(self.language, view))


class _Picture(_Page):
    async def get(self, run: str, side: str, item: str) -> None:
        card = await self.aside(partial(self.reader.preview, RunId(run), ItemId(item)))
        if card is None:
            raise HTTPError(HTTPStatus.NOT_FOUND)
        self.set_header("Content-Type", "image/jpeg" if side == "before" else "image/webp")
        self.set_header("Cache-Control", _LASTING)
        self.finish(card.before if side == "before" else card.after)


class _File(_Page):
    def get(self, name: str) -> None:
        if name not in self.renderer.files:
            raise HTTPError(HTTPStatus.NOT_FOUND)
        kind, body = self.renderer.files[name]
        self.set_header("Content-Type", kind)
        self.set_header("Cache-Control", _LASTING)
        self.finish(body)


class _Missing(_Page):
    def get(self) -> None:
        raise HTTPError(HTTPStatus.NOT_FOUND)


class _Health(_Page):
    """Without a password, and without a word about runs."""

    async def prepare(self) -> None:
        pass

    async def get(self) -> None:
        await self.aside(self.reader.healthy)
        self.finish("ok\n")


class _Alive(_Page):
    """Whether this process answers, whatever Redis does; without a password."""

    async def prepare(self) -> None:
        pass

    def get(self) -> None:
        self.finish("ok\n")


def make_application(reader: Reader, door: Door, pool: ThreadPoolExecutor, metrics: WebMetrics) -> Application:
    """The page as a Tornado application; `pool` does what may block."""

    def note(handler: RequestHandler) -> None:
        request: HTTPServerRequest = handler.request
        metrics.answered(handler.get_status(), request.request_time())
        log.debug("web", path=request.path, status=handler.get_status(), seconds=round(request.request_time(), 3))

    parts = {"reader": reader, "renderer": Renderer(), "door": door, "pool": pool}
    return Application(
        [
            (r"/", _Runs, parts),
            (r"/runs/([0-9A-Za-z-]{1,64})", _Run, parts),
            (r"/runs/([0-9A-Za-z-]{1,64})/(before|after)/([0-9A-Za-z_-]{12})", _Picture, parts),
            (r"/static/([a-z.]+)", _File, parts),
            (r"/healthz", _Health, parts),
            (r"/livez", _Alive, parts),
        ],
        default_handler_class=_Missing,
        default_handler_args=parts,
        log_function=note,
    )


def serve(reader: Reader, door: Door, host: str, port: int, ready: Callable[[], None], metrics: WebMetrics) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        reader: answers what the page asks.
        door: who may see it.
        host: address to bind.
        port: TCP port.
        ready: called once when the page can be asked for.
        metrics: counts its answers.

    Raises:
        SetupError: when the address cannot be had.
    """
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise SetupError(f"{host}:{port} cannot be served: {error.strerror}.", "choose another --port") from error

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = HTTPServer(
            make_application(reader, door, pool, metrics), max_header_size=16384, max_body_size=4096,
            idle_connection_timeout=60, body_timeout=10,
        )  # fmt: skip
        server.add_sockets(sockets)
        ready()
        await stop.wait()
        server.stop()

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="web") as pool:
        asyncio.run(run())
        pool.shutdown(wait=False, cancel_futures=True)
