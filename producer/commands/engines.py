"""Commands about engines: build, inspect, verify, bench."""

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pipeline.errors import SetupError
from pipeline.settings import load_settings
from producer.commands.closing import FINISHED, SETUP, print_json

_RUNTIMES = ("tensorrt", "tensorrt-rtx")
_LARGEST_BATCH = 64


def _batches(count: int | None) -> Callable[[click.Context, click.Parameter, str], tuple[int, ...]]:
    """Reads numbers of images with commas between, in rising order: `count` of them, or any number."""

    def read(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
        words = value.split(",")
        numbers = tuple(int(word) for word in words if word.isdecimal())
        rising = len(numbers) == len(words) and list(numbers) == sorted(numbers)
        if not rising or not 1 <= numbers[0] <= numbers[-1] <= _LARGEST_BATCH or count not in (None, len(numbers)):
            how = f"{count} numbers" if count else "numbers"
            raise click.BadParameter(f"give {how} from 1 to {_LARGEST_BATCH} in rising order, such as 1,4,8")
        return numbers

    return read


@click.group()
def engine() -> None:
    """TensorRT engines on this machine."""


@engine.command()
@click.argument("model", required=False)
@click.option("--runtime", type=click.Choice(_RUNTIMES), help="default: the one that is installed")
@click.option("--device", default="0", show_default=True, help="index or UUID of the GPU to build for (tensorrt)")
@click.option("--precision", type=click.Choice(["fp16", "fp32"]), default="fp16", show_default=True)
@click.option(
    "--batches", callback=_batches(3), default="1,4,8", metavar="N,N,N", show_default=True, help="least, usual, most"
)
@click.option("--optimization-level", type=click.IntRange(0, 5), default=3, show_default=True)
@click.option("--workspace", type=click.IntRange(min=1), metavar="MB", help="limit of the builder's GPU memory")
@click.option("--compute-capability", "capabilities", multiple=True, metavar="8.9", help="for tensorrt-rtx; repeat it")
@click.option("--json", "as_json", is_flag=True, help="print the sidecar as JSON, and nothing else")
def build(
    model: str | None,
    runtime: str | None,
    device: str,
    precision: str,
    batches: tuple[int, int, int],
    optimization_level: int,
    workspace: int | None,
    capabilities: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build the engine of MODEL (default: MATTEMILL_MODEL), and print the line for NVIDIA's own tool.

    Ctrl-C stops it, and nothing is left behind. --runtime tensorrt-rtx needs no GPU.

    \b
    Examples:
      mattemill engine build
      mattemill engine build u2netp --runtime tensorrt-rtx --batches 1,8,16
    """
    from engine_build.build import BuildOptions, EngineBuilder
    from engine_build.capabilities import capabilities_for
    from engine_build.progress import Progress as Building
    from model.engines.cuda.gpus import Gpu, Inventory, list_gpus, usable_gpu
    from model.engines.libraries import Runtime, installed, load_library
    from model.engines.plans import PlanStore
    from model.engines.sidecar import sidecar_entry
    from model.store import ModelStore

    settings = load_settings()
    there = [one for one in Runtime if installed(one)]
    chosen = Runtime(runtime) if runtime else (there or [Runtime.TENSORRT_RTX])[0]
    library = load_library(chosen)
    inventory: Inventory | None = None
    gpu: Gpu | None = None
    try:
        inventory = list_gpus()
        gpu = usable_gpu(inventory.gpus, device)
        inventory = Inventory(inventory.driver, inventory.cuda, (gpu,))
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid
    except SetupError:
        if chosen is Runtime.TENSORRT:
            raise
    options = BuildOptions(
        precision=precision,
        batches=batches,
        optimization_level=optimization_level,
        workspace_bytes=workspace << 20 if workspace else None,
        compute_capabilities=capabilities or capabilities_for(gpu),
    )
    if (
        gpu is not None
        and chosen is Runtime.TENSORRT_RTX
        and gpu.compute_capability not in options.compute_capabilities
    ):
        click.echo(
            f"{gpu.name} (compute capability {gpu.compute_capability}) will not run this engine. For data-centre GPUs: "
            "pip install tensorrt-cu12, then mattemill engine build --runtime tensorrt",
            err=True,
        )
    name = model or settings.model
    columns = (TextColumn("{task.description:40}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{name}: its network against the model" if precision == "fp16" else name, total=1.0)
        building = Building(lambda phase, share: bar.update(task, description=phase, completed=share))
        builder = EngineBuilder(settings.home, library, inventory)
        ModelStore(settings.home).spec(name)
        with PlanStore(settings.home).lock(builder.key(name, precision)):  # a worker may be building it just now
            built = builder.build(name, options, building)
    if as_json:
        print_json({**sidecar_entry(built.sidecar), "path": str(built.path), "trtexec": built.line})
        return
    side = built.sidecar
    click.echo(f"Engine: {built.path} ({built.path.stat().st_size / 2**20:.1f} MB, {side.seconds:g} s)")
    if side.parity is not None:
        click.echo(
            f"FP16 against the model: {side.parity.photos} photos, at most {side.parity.largest}/255, "
            f"in the mean {side.parity.mean:g}/255"
        )
    click.echo(f"The same with NVIDIA's tool:\n  {built.line}")


@engine.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def inspect_engine(file: Path, as_json: bool) -> None:
    """Show what engine FILE is, and whether it runs here."""
    from engine_build.inspect import inspect, verdicts
    from model.engines.sidecar import sidecar_entry

    plan = inspect(file)
    entry, found = sidecar_entry(plan.sidecar), verdicts(plan, load_settings().home)
    if as_json:
        print_json({**entry, "path": str(file), "runs_here": [asdict(one) for one in found]})
        return
    width = max(map(len, entry))
    for name, value in entry.items():
        for index, line in enumerate(_lines(value)):
            click.echo(f"{name if index == 0 else '':{width}}  {line}")
    for one in found:
        click.echo(f"{'runs here' if one.fits else 'does not run here':{width}}  {one.where} {one.reason}".rstrip())


@engine.command()
@click.argument("model", required=False)
@click.option("--runtime", type=click.Choice(_RUNTIMES), help="default: both")
@click.option("--photos", type=click.IntRange(1, 100), default=4, show_default=True, help="for each size bucket")
@click.option("--max-difference", type=click.IntRange(0, 255), default=64, show_default=True, help="of alpha, of 255")
@click.option("--mean-difference", type=click.FloatRange(0, 255), default=1.0, show_default=True, help="likewise")
@click.option("--json", "as_json", is_flag=True, help="print a list of checks")
def verify(
    model: str | None,
    runtime: str | None,
    photos: int,
    max_difference: int,
    mean_difference: float,
    as_json: bool,
) -> None:
    """Compare the engines of MODEL with ONNX Runtime on golden photos; exit 2 when one is not what it should be.

    Without a GPU, files and networks are checked, and the rest is said to be not run.
    """
    from engine_build.parity import Bound
    from engine_build.verify import BAD, Verifier
    from model.engines.libraries import Runtime

    settings = load_settings()
    verifier = Verifier(settings.home, photos, Bound(max_difference, mean_difference))
    checks = verifier.verify(model or settings.model, Runtime(runtime) if runtime else None)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            click.echo(f"{check.state:8} {check.engine}: {check.what}: {check.reason}")
    sys.exit(SETUP if any(check.state == BAD for check in checks) else FINISHED)


@engine.command()
@click.argument("model", required=False)
@click.option("--device", default=None, help="cpu, or index or UUID of a GPU; default: the first GPU, or cpu")
@click.option("--batches", callback=_batches(None), default="1,4,8", metavar="N,…", show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=3.0, show_default=True, help="for each row")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def bench(model: str | None, device: str | None, batches: tuple[int, ...], seconds: float, as_json: bool) -> None:
    """Measure every engine that can run MODEL here: PyTorch, ONNX Runtime, TensorRT."""
    from engine_build.bench import bench as measure_all
    from engine_build.bench import table
    from model.engines.cuda.gpus import list_gpus, usable_gpu

    settings = load_settings()
    if device != "cpu":
        try:
            device = usable_gpu(list_gpus().gpus, device or "0").uuid
        except SetupError as error:
            if device is not None:
                raise
            click.echo(f"Measured on the processor. {error}", err=True)
            device = "cpu"
    name = model or settings.model
    result = measure_all(name, device, batches, seconds, lambda label: click.echo(f"Measuring {label} …", err=True))
    if as_json:
        print_json(result)
        return
    rows = list(table(result))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        click.echo("  ".join(cells).rstrip())
    left_out = result["left_out"]
    assert isinstance(left_out, dict)
    for label, reason in left_out.items():
        click.echo(f"Left out: {label}: {reason}")


def _lines(value: object) -> list[str]:
    """A value of the sidecar for a person."""
    if isinstance(value, dict):
        return [f"{key}: {one}" for key, one in value.items()]
    if isinstance(value, list):
        parts = [", ".join(f"{k} {v}" for k, v in one.items()) if isinstance(one, dict) else str(one) for one in value]
        return parts if any(isinstance(one, dict) for one in value) else [", ".join(parts)]
    return [str(value) if value not in ("", None) else "-"]
