"""The group of all commands, and what becomes of an error that one of them raises."""

import difflib
import errno
import importlib

import click
import redis

from pipeline import __version__
from pipeline.errors import ItemError, MattemillError, SetupError

_FINISHED, _SETUP = 0, 2
_MODULES = {
    **dict.fromkeys(("sweep", "enqueue", "status", "failures", "report", "retry", "verify", "cancel"), "runs"),
    **dict.fromkeys(("sweeps", "beat"), "sweeps"),
    **dict.fromkeys(("demo", "up"), "local"),
    "clean": "cleaning",
    "doctor": "doctor",
    "engine": "engines",
    "flower": "flower",
    "model": "models",
    "web": "web",
    "worker": "workers",
}

_SECTIONS = {
    "To begin": ("demo", "up", "doctor"),
    "Runs": ("sweep", "enqueue", "status", "failures", "report", "retry", "cancel", "verify"),
    "Every night": ("sweeps", "beat", "clean"),
    "What runs for long": ("worker", "web", "flower"),
    "Networks": ("model", "engine"),
}


class _Commands(click.Group):
    """Imports a command when it is asked for: all together take 50 MB, which a worker would keep for nights."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in _SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _MODULES))
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                commands = ((name, self.get_command(ctx, name)) for name in names)
                formatter.write_dl(
                    [(f"{name:{width}}", command.get_short_help_str(100)) for name, command in commands if command]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _MODULES, n=2)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", ctx) from error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(f"producer.commands.{module}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
        return _SETUP
    except (MattemillError, redis.RedisError, OSError) as error:
        click.echo(f"mattemill: {_sentence(error)}", err=True)
        return _SETUP
    return status if isinstance(status, int) else _FINISHED


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
