"""Commands that run the whole system on this machine: demo, up."""

import sys
from pathlib import Path

import click

from producer.commands.closing import follow, print_summary


@click.command()
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="your own pictures")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("mattemill-demo"))
def demo(photos: Path | None, out: Path) -> None:
    """Run the whole system on this machine, on sample photos or your own, and write a report."""
    from producer.demo import run_demo

    sys.exit(run_demo(photos, out, follow, print_summary))


@click.command()
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="keep the data here")
@click.option("--devices", default="cpu", show_default=True, help="cpu, or fake:MS for load tests")
def up(directory: Path | None, devices: str) -> None:
    """Run Valkey, S3, workers and Flower on this machine until Ctrl-C."""
    from producer.demo import run_up

    run_up(directory, devices)


COMMANDS = (demo, up)
