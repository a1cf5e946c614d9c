"""`mattemill up`: servers, workers, the live page and Flower on this machine, for other terminals and a browser."""

import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from engine_build.fetch import fetch
from pipeline.errors import SetupError
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer.demo import (
    MODEL,
    SOURCE,
    TARGET,
    check_alive,
    environment,
    local_workers,
    own_photos,
    put_photos,
)
from workers.app import make_app
from workers.devices import choose_devices
from workers.local.ports import LOOPBACK, free_ports, is_free
from workers.local.process import Child
from workers.local.stack import LocalStack

_START_SECONDS = 120.0
_METRICS_PORT = "MATTEMILL_METRICS_PORT"


@dataclass(frozen=True, slots=True)
class _Page:
    """A page for a browser, with the password of its user `mattemill`."""

    name: str
    port: int
    password: str
    host: str = LOOPBACK

    def __str__(self) -> str:
        return f"{self.name}: http://{self.host}:{self.port}/ user mattemill, password {self.password}"


def run_up(
    directory: Path | None,
    photos: Path | None,
    devices: str,
    flower_port: int | None = None,
    web_port: int | None = None,
    flower_host: str = LOOPBACK,
) -> None:
    """Everything until Ctrl-C or SIGTERM; prints how to reach it once it is ready.

    Args:
        directory: where to keep the data; None takes a temporary one.
        photos: a folder of pictures to put into the bucket of sources.
        devices: of the GPU worker, see `workers.devices.choose_devices`.
        flower_port: of Flower; None takes a free one.
        web_port: of the live page, likewise.
        flower_host: the address that Flower binds.

    Raises:
        SetupError: when something cannot be set up, or a part ends by itself.
    """
    for option, port in (("--flower-port", flower_port), ("--web-port", web_port)):
        if port is not None and not is_free(port):
            raise SetupError(f"Port {port} is taken by another program.", f"choose another with {option}")
    choose_devices(devices)
    bodies = own_photos(photos, directory) if photos is not None else ()
    told: list[int] = []  # no event: its lock may be held by the thread that the signal interrupts
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, lambda number, _: told.append(number))
    fetch(MODEL, load_settings().home, _say)
    with LocalStack(directory) as stack, environment(stack.environment()), ExitStack() as closing:
        settings = load_settings()
        with S3Store(settings) as store:
            for bucket in (SOURCE, TARGET):
                store.create_bucket(bucket)
            put_photos(store, bodies)
        _say("Valkey and SeaweedFS run; the workers start.")
        children = [closing.enter_context(local_workers(stack.directory / "workers.log", stack.directory, devices))]
        kept = directory is not None
        _until_they_answer(children, settings, told, kept)
        if told:
            return
        free = free_ports(2)
        own = settings.web_password.get_secret_value() if settings.web_password else None
        live = _Page("Live page", web_port or free[0], own or secrets.token_urlsafe(12))
        # Not before: Flower asks once, as it starts, which queues there are.
        flower = _Page("Flower", flower_port or free[1], secrets.token_urlsafe(12), flower_host)
        children.append(closing.enter_context(_start_live_page(live, stack.directory / "web.log")))
        children.append(closing.enter_context(_start_flower(flower, stack.directory / "flower.log")))
        _print_block(stack, photos, live, flower)
        while not told:
            check_alive(children, kept)
            time.sleep(0.2)
        _say("All of it ends.")


def _say(text: str) -> None:
    click.secho(text, err=True, dim=True)


def _print_block(stack: LocalStack, photos: Path | None, *pages: _Page) -> None:
    click.secho("# Ready. Paste these lines into another terminal:", bold=True)
    for name, value in stack.environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")
    copy = f"aws --endpoint-url {stack.seaweed.endpoint_url} s3 cp --recursive"
    there = f"# The pictures of {str(photos)!r} are in s3://{SOURCE}/"
    click.echo(f"# Photos in: {copy} DIR s3://{SOURCE}/" if photos is None else there)
    click.echo(f"# Then: mattemill sweep s3://{SOURCE}/ --to s3://{TARGET}/ --wait")
    click.echo(f"# Cutouts out: {copy} s3://{TARGET}/ DIR")
    for page in pages:
        click.secho(f"# {page}", fg="green")  # click leaves colours out where there is no terminal
    click.echo(f"# Logs: {stack.directory}. Ctrl-C here ends it all.")


def _until_they_answer(workers: list[Child], settings: Settings, told: Sequence[int], kept: bool) -> None:
    app = make_app(settings)
    deadline = time.monotonic() + _START_SECONDS
    try:
        answered: set[str] = set()
        while answered != {"gpu", "cpu"} and not told:
            found = app.control.ping(timeout=0.5) or []
            answered |= {name.partition("-")[0] for each in found for name in each}
            check_alive(workers, kept)
            if time.monotonic() > deadline:
                raise SetupError(
                    f"The workers gave no answer within {_START_SECONDS:g} s.",
                    "try again; on a GPU, mattemill engine build before",
                )
    finally:
        app.close()


def _after_the_workers() -> str:
    """The port of the live page's metrics: the workers have the one before."""
    first = int(os.environ.get(_METRICS_PORT) or 0)
    return str(first + 1 if first else 0)


# Passwords go through the environment: anyone on the machine can read a command line.
def _start_live_page(page: _Page, log: Path) -> Child:
    command = [sys.executable, "-m", "producer.commands", "web", f"--host={LOOPBACK}", f"--port={page.port}"]
    more = {"MATTEMILL_WEB_PASSWORD": page.password, _METRICS_PORT: _after_the_workers()}
    return Child(command, name="the live page", log=log, env=os.environ | more)


def _start_flower(page: _Page, log: Path) -> Child:
    command = [sys.executable, "-m", "producer.commands", "flower", f"--host={page.host}", f"--port={page.port}"]
    return Child(command, name="Flower", log=log, env=os.environ | {"FLOWER_BASIC_AUTH": f"mattemill:{page.password}"})
