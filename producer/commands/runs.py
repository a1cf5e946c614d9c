"""Commands about runs: sweep, enqueue, status, failures, report, cancel."""

import dataclasses
import json
from pathlib import Path

import click

from pipeline.errors import SetupError
from pipeline.ids import Key, RunId
from pipeline.ledger import Ledger, connect
from pipeline.runs import HIGH, NORMAL
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from producer.api import Producer
from producer.commands.closing import close


@click.command()
@click.argument("source")
@click.option("--to", required=True, help="where the cutouts go: s3://bucket/prefix/")
@click.option("--model", help="the model; default: MATTEMILL_MODEL or u2netp")
@click.option("--force", is_flag=True, help="make outputs again that are already right")
@click.option("--wait", is_flag=True, help="wait for the end and print the closing table")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def sweep(source: str, to: str, model: str | None, force: bool, wait: bool, as_json: bool) -> None:
    """Enqueue every image below SOURCE (s3://bucket/prefix/) that is not already right."""
    close(Producer().sweep(source, to, model=model, force=force), wait, as_json)


@click.command()
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
    close(Producer().enqueue(images, to, model=model, force=force, priority=level), wait, as_json)


@click.command()
@click.argument("run", required=False)
@click.option("--watch", is_flag=True, help="go on until the run is finished")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def status(run: str | None, watch: bool, as_json: bool) -> None:
    """Show where RUN stands, or all runs."""
    producer = Producer()
    if run is not None and watch:
        close(producer.run(run), True, as_json)
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


@click.command()
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


@click.command()
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


@click.command()
@click.argument("run")
def cancel(run: str) -> None:
    """Stop RUN: what is not finished fails as cancelled."""
    Producer().run(run).cancel()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}.", "choose another place") from error


COMMANDS = (sweep, enqueue, status, failures, report, cancel)
