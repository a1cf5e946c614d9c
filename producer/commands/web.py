"""`mattemill web`: the live page."""

import contextlib
import sys

import click
import structlog
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from pipeline.errors import SetupError
from pipeline.ledger import LedgerReader, check, connect
from pipeline.log import configure
from pipeline.s3 import S3Store
from pipeline.settings import load_settings

log = structlog.get_logger(__name__)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="the address to bind; 0.0.0.0 shows it to others")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--no-password", is_flag=True, help="let in everybody on this machine; only with a loopback --host")
def web(host: str, port: int, no_password: bool) -> None:
    """Serve the live page of runs, results, failures and workers.

    It reads and changes nothing. The user is mattemill, the password MATTEMILL_WEB_PASSWORD. Put a proxy with TLS
    before it to show it to others.

    \b
    Examples:
      MATTEMILL_WEB_PASSWORD="$(openssl rand -hex 12)" mattemill web
      mattemill web --no-password --port 8081
    """
    from producer.metrics import WebMetrics
    from producer.web.heartbeats import Heartbeats
    from producer.web.reading import Reader
    from producer.web.server import LEAST, USER, Door, is_loopback, serve
    from workers.metrics_page import metrics_page

    settings = load_settings()
    configure(settings, role="web")
    password = settings.web_password.get_secret_value() if settings.web_password else None
    if no_password and not is_loopback(host):
        raise SetupError(f"{host} can be reached by others: it takes a password.", "set MATTEMILL_WEB_PASSWORD")
    if not no_password and password is None:
        raise SetupError(
            "The live page has no password.", "set MATTEMILL_WEB_PASSWORD, or --no-password for this machine alone"
        )
    if password is not None and len(password) < LEAST:
        raise SetupError(f"MATTEMILL_WEB_PASSWORD is shorter than {LEAST} characters.", "openssl rand -hex 12")
    client = connect(settings)
    client.set_retry(Retry(ExponentialBackoff(cap=0.5, base=0.1), 2))  # who looks at a page does not wait for long
    check(client, settings)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    with contextlib.ExitStack() as stack:
        stack.callback(client.close)
        stack.enter_context(metrics_page(settings))
        store = stack.enter_context(S3Store(settings, read_timeout=10))
        reader = Reader(LedgerReader(client), store, settings, stack.enter_context(Heartbeats(client)))
        serve(
            reader,
            Door(None if no_password else password),
            host,
            port,
            lambda: _say(address, None if no_password else USER),
            WebMetrics(),
        )


def _say(address: str, user: str | None) -> None:
    if sys.stdout.isatty():
        click.echo(f"Live page: {address}" + (f" user {user}" if user else ""))
    else:
        log.info("live_page", address=address, user=user)
