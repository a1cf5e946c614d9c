"""`mattemill doctor`: a verdict on everything the system stands on."""

import sys
from collections.abc import Callable

import click

from pipeline.errors import SetupError
from pipeline.ledger import check, connect
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from producer.commands.closing import FINISHED, SETUP


@click.command()
def doctor() -> None:
    """Look at model, Redis and S3, and say what to do about what is wrong."""
    from model.store import ModelStore

    settings = load_settings()

    def reach_s3() -> None:
        with S3Store(settings) as store:
            store.check_bucket("mattemill-doctor")

    def reach_redis() -> None:
        check(connect(settings), settings)

    checks: list[tuple[str, Callable[[], object]]] = [
        (f"model {settings.model}", lambda: ModelStore(settings.home).path(settings.model)),
        ("Redis", reach_redis),
        ("S3", reach_s3),
    ]
    bad = False
    for name, look in checks:
        try:
            look()
            click.echo(f"ok    {name}")
        except SetupError as error:
            if name == "S3" and "mattemill-doctor" in str(error) and "exist" in str(error):
                click.echo("ok    S3 answers and takes the credentials")
                continue
            bad = True
            click.echo(f"BAD   {name}: {error}")
    sys.exit(SETUP if bad else FINISHED)
