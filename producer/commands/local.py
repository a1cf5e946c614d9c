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
    """Run the whole system on this machine, on sample photos or your own, and write a report.

    Everything it starts ends with it. With the sample photos exit code 0 says that just those failed that must.

    \b
    Examples:
      mattemill demo
      mattemill demo --photos ~/Pictures/shoes --out /tmp/shoes
    """
    from producer.demo import run_demo

    sys.exit(run_demo(photos, out, follow, print_summary))


@click.command()
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="keep the data here")
@click.option("--devices", default="cpu", show_default=True, help="cpu, or fake:MS for load tests")
@click.option("--flower-port", type=click.IntRange(1, 65535), help="the port of Flower's page  [default: a free one]")
@click.option("--flower-host", default="127.0.0.1", show_default=True, help="the address that Flower's page binds")
@click.option("--web-port", type=click.IntRange(1, 65535), help="the port of the live page  [default: a free one]")
def up(directory: Path | None, devices: str, flower_port: int | None, flower_host: str, web_port: int | None) -> None:
    """Run Valkey, S3, workers, the live page and Flower on this machine until Ctrl-C.

    When all are ready it prints the environment variables by which other terminals find them: paste them there.
    """
    from producer.up import run_up

    run_up(directory, devices, flower_port, web_port, flower_host)
