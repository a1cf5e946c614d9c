"""Commands that run the whole system on this machine: demo, up."""

import sys
from pathlib import Path

import click

from producer.commands.closing import follow, print_summary


@click.command()
@click.option(
    "--photos", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="a folder of your own pictures, subfolders too; exit 1 if any failed",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("mattemill-demo"), show_default=True,
    help="where cutouts and report go",
)  # fmt: skip
def demo(photos: Path | None, out: Path) -> None:
    """Try it all on this machine, on sample photos or your own.

    Writes the cutouts and a report. Everything it starts ends with it. With the sample photos exit code 0 says that
    just those failed that must.

    \b
    Examples:
      mattemill demo
      mattemill demo --photos ~/Pictures/shoes --out /tmp/shoes
    """
    from producer.demo import run_demo

    sys.exit(run_demo(photos, out, follow, print_summary))


@click.command()
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="keep data and logs here")
@click.option(
    "--photos", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="a folder of pictures to put into s3://photos/, subfolders too",
)  # fmt: skip
@click.option("--devices", default="cpu", show_default=True, help="cpu; all, or indices or UUIDs of GPUs; fake:MS")
@click.option("--flower-port", type=click.IntRange(1, 65535), help="the port of Flower's page  [default: a free one]")
@click.option("--flower-host", default="127.0.0.1", show_default=True, help="the address that Flower's page binds")
@click.option("--web-port", type=click.IntRange(1, 65535), help="the port of the live page  [default: a free one]")
def up(
    directory: Path | None,
    photos: Path | None,
    devices: str,
    flower_port: int | None,
    flower_host: str,
    web_port: int | None,
) -> None:
    """Run servers, workers and pages here, until Ctrl-C.

    That is Valkey, SeaweedFS (S3), a worker of each role, the live page and Flower. When all are ready it prints the
    environment variables by which other terminals find them: paste them there.

    \b
    Examples:
      mattemill up --photos ~/Pictures/shoes
      mattemill up --directory data --web-port 8080
    """
    from producer.up import run_up

    run_up(directory, photos, devices, flower_port, web_port, flower_host)
