"""`mattemill flower`: Flower, behind a password and read-only."""

import os

import click

from pipeline.errors import SetupError
from pipeline.ledger import check, connect
from pipeline.log import configure
from pipeline.settings import load_settings

_LOGIN, _BROKER = "FLOWER_BASIC_AUTH", "CELERY_BROKER_URL"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="the address to bind")
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True)
def flower(host: str, port: int) -> None:
    """Serve Flower, which shows workers and messages.

    It is read-only, with a bounded memory. Start it after the workers. FLOWER_BASIC_AUTH is the login,
    USER:PASSWORD. Its /metrics and /healthcheck answer without it: keep them inside.

    \b
    Example:
      FLOWER_BASIC_AUTH="mattemill:$(openssl rand -hex 12)" mattemill flower
    """
    # Not above: they take half a second, which no other command should.
    from celery.bin.celery import celery

    settings = load_settings()
    configure(settings, role="flower")  # Flower and Tornado write through it: they add no handlers beside it
    user, _, password = os.environ.get(_LOGIN, "").partition(":")
    if not user or not password:
        raise SetupError("Flower has no password.", f'{_LOGIN}="mattemill:$(openssl rand -hex 12)"')
    client = connect(settings)
    check(client, settings)
    client.close()
    # Not by options: anyone on the machine can read a command line.
    os.environ[_BROKER] = settings.redis_url.get_secret_value()
    options = ["--read_only", "--max_tasks=10000", "--tasks_columns=args,name,kwargs,state,received,runtime,worker"]
    try:
        celery.main(
            ["flower", f"--address={host}", f"--port={port}", *options],
            prog_name="celery", auto_envvar_prefix="CELERY", standalone_mode=False,
        )  # fmt: skip
    except OSError as error:
        raise SetupError(f"{host}:{port} cannot be served: {error.strerror}.", "choose another --port") from error
