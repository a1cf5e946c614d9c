"""The group of all commands, and what becomes of an error that one of them raises."""

import errno

import click
import redis

from pipeline import __version__
from pipeline.errors import ItemError, MattemillError, SetupError
from producer.commands import cleaning, doctor, engines, flower, local, models, runs, sweeps, web, workers
from producer.commands.closing import FINISHED, SETUP


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    commands=[
        *runs.COMMANDS,
        workers.worker,
        models.model,
        engines.engine,
        *sweeps.COMMANDS,
        *cleaning.COMMANDS,
        *local.COMMANDS,
        web.web,
        flower.flower,
        doctor.doctor,
    ],
)
@click.version_option(__version__, prog_name="mattemill")
def cli() -> None:
    """Removes the background from every image of an S3 bucket, and proves that none is lost.

    Start with `mattemill demo`. Exit codes: 0 all good, 1 some images failed, 2 usage or set-up error.
    """


def run() -> int:
    """Run the command that the arguments name, and give its exit code.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
    """
    try:
        status = cli(standalone_mode=False)
    except click.Abort as error:  # what click makes of Ctrl-C
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        error.show()
        return SETUP
    except (MattemillError, redis.RedisError, OSError) as error:
        click.echo(f"mattemill: {_sentence(error)}", err=True)
        return SETUP
    return status if isinstance(status, int) else FINISHED


def _sentence(error: Exception) -> str:
    if isinstance(error, redis.AuthenticationError):
        return str(SetupError("Redis refuses the password.", "correct MATTEMILL_REDIS_URL"))
    if isinstance(error, redis.RedisError):
        return str(SetupError(f"Redis does not answer: {str(error).rstrip('.')}.", "is the server running?"))
    if isinstance(error, ItemError):
        return str(SetupError(f"{error.reason.rstrip('.')} ({error.code}).", "mattemill doctor looks for the reason"))
    if isinstance(error, OSError):
        what = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        return str(SetupError(f"{what}.", _hint(error)))
    return str(error)


def _hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space; TMPDIR says where temporary files go, MATTEMILL_HOME where models are kept"
    return "mattemill doctor looks for the reason"
