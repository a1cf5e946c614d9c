"""Commands that start a worker on this machine."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from pipeline.log import configure
from pipeline.settings import load_settings


def _of_the_gpu_role(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--share", is_flag=True, help="let other workers run on the same GPUs"),
        click.option(
            "--engine",
            type=click.Choice(["tensorrt", "tensorrt-rtx", "torch", "onnx"]),
            help="default: the TensorRT that is installed; onnx with --devices cpu",
        ),
        click.option(
            "--devices",
            default="all",
            show_default=True,
            help="all, indices (0,1), UUIDs (GPU-…, MIG-…); cpu, which needs no GPU; or fake:MS for load tests",
        ),
    ):
        command = option(command)
    return command


_concurrency = click.option(
    "--concurrency", type=click.IntRange(1, 256), default=os.cpu_count() or 1, show_default="cores",
    help="encode processes; more, where photos come from an S3 that is far away (docs/tune.md)",
)  # fmt: skip


@click.group()
def worker() -> None:
    """Start a worker on this machine."""


@worker.command()
@_of_the_gpu_role
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
    from workers.roles import run_workers

    settings = load_settings()
    configure(settings, role="gpu")
    sys.exit(run_workers(settings, choose_devices(devices, engine, share)))


@worker.command()
@_concurrency
def cpu(concurrency: int) -> None:
    """The CPU role: refines, encodes, uploads, and keeps house."""
    from workers.roles import run_workers

    settings = load_settings()
    configure(settings, role="cpu")
    sys.exit(run_workers(settings, concurrency=concurrency))


@worker.command("all")
@_of_the_gpu_role
@_concurrency
def both(devices: str, engine: str | None, share: bool, concurrency: int) -> None:
    """Both roles, for a machine that does all: `worker gpu` and `worker cpu` under one supervisor.

    Ends with exit code 2 when one of the roles cannot run.

    \b
    Examples:
      mattemill worker all
      mattemill worker all --devices cpu
    """
    from workers.devices import choose_devices
    from workers.roles import run_workers

    settings = load_settings()
    configure(settings, role="all")
    sys.exit(run_workers(settings, choose_devices(devices, engine, share), concurrency))
