"""Commands that start a worker on this machine."""

import os
import sys

import click

from pipeline.log import configure
from pipeline.settings import load_settings


@click.group()
def worker() -> None:
    """Start a worker on this machine."""


@worker.command()
@click.option("--devices", default="all", show_default=True, help="cpu, or fake:MS for load tests")
def gpu(devices: str) -> None:
    """The GPU role: loads images, runs the network. `--devices cpu` needs no GPU."""
    from workers.supervisor import run_gpu

    settings = load_settings()
    configure(settings, role="gpu")
    sys.exit(run_gpu(settings, [devices]))


@worker.command()
@click.option("--concurrency", type=click.IntRange(1, 256), default=os.cpu_count() or 1, show_default=True)
def cpu(concurrency: int) -> None:
    """The CPU role: refines, encodes, uploads, and keeps house."""
    from workers.supervisor import run_cpu

    settings = load_settings()
    configure(settings, role="cpu")
    sys.exit(run_cpu(settings, concurrency))
