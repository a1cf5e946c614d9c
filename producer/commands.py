"""The command line. Exit codes: 0 all good, 1 some items failed, 2 usage or set-up error."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
import redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline import __version__
from pipeline.errors import ItemError, MattemillError, SetupError
from pipeline.ids import Key, RunId
from pipeline.ledger import Counts, Ledger, check, connect
from pipeline.log import configure
from pipeline.runs import HIGH, NORMAL
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from producer.api import Producer, Run, Summary

FINISHED, SOME_FAILED, SETUP = 0, 1, 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mattemill")
def cli() -> None:
    """Removes the background from every image of an S3 bucket, and proves that none is lost."""


@cli.command()
@click.argument("source")
@click.option("--to", required=True, help="where the cutouts go: s3://bucket/prefix/")
@click.option("--model", help="the model; default: MATTEMILL_MODEL or u2netp")
@click.option("--force", is_flag=True, help="make outputs again that are already right")
@click.option("--wait", is_flag=True, help="wait for the end and print the closing table")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def sweep(source: str, to: str, model: str | None, force: bool, wait: bool, as_json: bool) -> None:
    """Enqueue every image below SOURCE (s3://bucket/prefix/) that is not already right."""
    _follow(Producer().sweep(source, to, model=model, force=force), wait, as_json)


@cli.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--to", required=True, help="where the cutouts go: s3://bucket/prefix/")
@click.option("--model", help="the model; default: MATTEMILL_MODEL or u2netp")
@click.option("--priority", type=click.Choice(["high", "normal"]), default="high", show_default=True)
@click.option("--force", is_flag=True, help="make outputs again that are already right")
@click.option("--wait", is_flag=True, help="wait for the end and print the closing table")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def enqueue(
    images: tuple[str, ...], to: str, model: str | None, priority: str, force: bool, wait: bool, as_json: bool
) -> None:
    """Enqueue single IMAGES (s3://bucket/key …)."""
    level = HIGH if priority == "high" else NORMAL
    _follow(Producer().enqueue(images, to, model=model, force=force, priority=level), wait, as_json)


@cli.command()
@click.argument("run", required=False)
@click.option("--watch", is_flag=True, help="go on until the run is finished")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def status(run: str | None, watch: bool, as_json: bool) -> None:
    """Show where RUN stands, or all runs."""
    producer = Producer()
    if run is not None and watch:
        _follow(producer.run(run), True, as_json)
        return
    runs = [producer.run(run)] if run is not None else producer.runs()
    rows = [{"run": one.id, **dataclasses.asdict(one.counts())} for one in runs]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        sums = f"listed {row['listed']} = done {row['done']} + skipped {row['skipped']} + failed {row['failed']}"
        pending = int(row["listed"]) - int(row["done"]) - int(row["skipped"]) - int(row["failed"])
        click.echo(f"{row['run']}  {row['state']:9}  {sums}" + (f" + pending {pending}" if pending else ""))


@cli.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def failures(run: str, as_json: bool) -> None:
    """Show what failed in RUN, and why."""
    rows = Producer().run(run).failures()
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        for row in rows:
            click.echo(f"{row['key']}: {row['code']}: {row['reason']}")


@cli.command()
@click.argument("run")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("report.html"))
def report(run: str, output: Path) -> None:
    """Fetch the report.html of RUN."""
    settings = load_settings()
    ledger = Ledger(connect(settings), settings)
    place = ledger.spec(RunId(run)).reports
    with S3Store(settings) as store:
        fetched = store.get(place.bucket, Key(place.key + "report.html"), max_bytes=1 << 31)
    _write(output, fetched.body)
    click.echo(output)


@cli.command()
@click.argument("run")
def cancel(run: str) -> None:
    """Stop RUN: what is not finished fails as cancelled."""
    Producer().run(run).cancel()


@cli.group()
def worker() -> None:
    """Start a worker on this machine."""


@worker.command()
@click.option("--devices", default="all", show_default=True, help="cpu, or fake:MS for load tests")
def gpu(devices: str) -> None:
    """The GPU role: loads images, runs the network. `--devices cpu` needs no GPU."""
    from workers.supervisor import run_gpu

    settings = load_settings()
    configure(settings, role="gpu")
    sys.exit(run_gpu(settings, devices))


@worker.command()
@click.option("--concurrency", type=click.IntRange(1, 256), default=os.cpu_count() or 1, show_default=True)
def cpu(concurrency: int) -> None:
    """The CPU role: refines, encodes, uploads, and keeps house."""
    from workers.supervisor import run_cpu

    settings = load_settings()
    configure(settings, role="cpu")
    sys.exit(run_cpu(settings, concurrency))


@cli.group()
def model() -> None:
    """Models on this machine."""


@model.command("list")
def list_models() -> None:
    """Show the known models and which are installed."""
    from model.catalogue import CATALOGUE
    from model.store import ModelStore

    installed = {spec.name for spec in ModelStore(load_settings().home).installed()}
    for spec in CATALOGUE.values():
        state = "installed" if spec.name in installed else "not installed"
        click.echo(f"{spec.name}  {', '.join(map(str, spec.size_buckets))}  {spec.licence}  {state}  {spec.origin}")


@model.command()
@click.argument("name")
@click.option("--file", type=click.Path(exists=True, path_type=Path), help="weights fetched by hand")
def fetch(name: str, file: Path | None) -> None:
    """Install the model NAME."""
    from engine_build.fetch import fetch as fetch_model

    fetch_model(name, load_settings().home, click.echo, file)


@cli.command()
def doctor() -> None:
    """Look at model, Redis and S3, and say what to do about what is wrong."""
    from model.store import ModelStore

    settings = load_settings()

    def reach_s3() -> None:
        with S3Store(settings) as store:
            store.check_bucket("mattemill-doctor")

    def reach_redis() -> None:
        check(connect(settings), settings)

    checks: list[tuple[str, Callable[[], object]]] = [
        (f"model {settings.model}", lambda: ModelStore(settings.home).path(settings.model)),
        ("Redis", reach_redis),
        ("S3", reach_s3),
    ]
    bad = False
    for name, look in checks:
        try:
            look()
            click.echo(f"ok    {name}")
        except SetupError as error:
            if name == "S3" and "mattemill-doctor" in str(error) and "exist" in str(error):
                click.echo("ok    S3 answers and takes the credentials")
                continue
            bad = True
            click.echo(f"BAD   {name}: {error}")
    sys.exit(SETUP if bad else FINISHED)


@cli.command()
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="your own pictures")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("mattemill-demo"))
def demo(photos: Path | None, out: Path) -> None:
    """Run the whole system on this machine, on sample photos or your own, and write a report."""
    from producer.demo import run_demo

    sys.exit(run_demo(photos, out, follow, print_summary))


@cli.command()
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="keep the data here")
@click.option("--devices", default="cpu", show_default=True, help="cpu, or fake:MS for load tests")
def up(directory: Path | None, devices: str) -> None:
    """Run Valkey, S3, workers and Flower on this machine until Ctrl-C."""
    from producer.demo import run_up

    run_up(directory, devices)


def follow(run: Run) -> Summary:
    """Wait for a run behind a live progress bar (on standard error)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("images", total=None)

        def show(counts: Counts) -> None:
            bar.update(task, total=counts.listed or None, completed=counts.finished)

        return run.wait(show)


def print_summary(summary: Summary) -> None:
    """The closing table."""
    click.echo(
        f"listed {summary.listed} = done {summary.done} + skipped {summary.skipped} + failed {summary.failed}\n"
        f"{summary.images_per_second:.2f} images/s in {summary.seconds:.1f} s, model {summary.model}, "
        f"engine {summary.engine or 'not needed'}"
    )
    for row in summary.failures:
        click.echo(f"  {row['key']}: {row['code']}: {row['reason']}")


def _follow(run: Run, wait: bool, as_json: bool) -> None:
    if not wait:
        click.echo(json.dumps({"run": run.id}) if as_json else run.id)
        return
    summary = run.wait() if as_json else follow(run)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary), ensure_ascii=False))
    else:
        print_summary(summary)
    sys.exit(SOME_FAILED if summary.failed else FINISHED)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}.", "choose another place") from error


def main() -> NoReturn:
    """The console script: our own errors become one sentence, never a traceback."""
    try:
        cli(standalone_mode=True)
    except (ItemError, MattemillError) as error:
        click.echo(f"mattemill: {error}", err=True)
        sys.exit(SETUP)
    except redis.RedisError as error:
        hint = "set MATTEMILL_REDIS_URL, or start the server"
        click.echo(f"mattemill: {SetupError(f'Redis does not answer: {error}.', hint)}", err=True)
        sys.exit(SETUP)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(FINISHED)


if __name__ == "__main__":
    main()
