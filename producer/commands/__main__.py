"""`python -m producer.commands`: what the console script `mattemill` runs."""

import sys
from typing import NoReturn

import click
import redis

from pipeline import __version__
from pipeline.errors import ItemError, MattemillError, SetupError
from producer.commands import doctor, local, models, runs, workers
from producer.commands.closing import FINISHED, SETUP


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[*runs.COMMANDS, workers.worker, models.model, *local.COMMANDS, doctor.doctor],
)
@click.version_option(__version__, prog_name="mattemill")
def cli() -> None:
    """Removes the background from every image of an S3 bucket, and proves that none is lost."""


def main() -> NoReturn:
    """The console script: our own errors become one sentence, never a traceback."""
    try:
        cli(standalone_mode=True)
    except (ItemError, MattemillError) as error:
        click.echo(f"mattemill: {error}", err=True)
        sys.exit(SETUP)
    except redis.RedisError as error:
        hint = "set MATTEMILL_REDIS_URL, or start the server"
        click.echo(f"mattemill: {SetupError(f'Redis does not answer: {error}.', hint)}", err=True)
        sys.exit(SETUP)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(FINISHED)


if __name__ == "__main__":
    main()
