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
@click.option(
    "--devices",
    default="all",
    show_default=True,
    help="all, indices (0,1), UUIDs (GPU-…, MIG-…); cpu, which needs no GPU; or fake:MS for load tests",
)
@click.option(
    "--engine",
    type=click.Choice(["tensorrt", "tensorrt-rtx", "torch", "onnx"]),
    help="default: the TensorRT that is installed; onnx with --devices cpu",
)
@click.option("--share", is_flag=True, help="let other workers run on the same GPUs")
def gpu(devices: str, engine: str | None, share: bool) -> None:
    """The GPU role: loads images, runs the network; one process for each device.

    Refuses to start where the devices or the engine that were asked for cannot run; it never takes others instead. A
    TensorRT engine that is missing is built first.

    \b
    Examples:
      mattemill worker gpu
      mattemill worker gpu --devices 0,1 --engine torch
      mattemill worker gpu --devices cpu
    """
    from workers.devices import choose_devices
    from workers.supervisor import run_gpu

    settings = load_settings()
    configure(settings, role="gpu")
    sys.exit(run_gpu(settings, choose_devices(devices, engine, share)))


@worker.command()
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=(os.cpu_count() or 1) + 1, show_default="cores and one more",
    help="encode processes; one more than cores, so that none idles while an upload waits",
)  # fmt: skip
def cpu(concurrency: int) -> None:
    """The CPU role: refines, encodes, uploads, and keeps house."""
    from workers.house import run_cpu

    settings = load_settings()
    configure(settings, role="cpu")
    sys.exit(run_cpu(settings, concurrency))
