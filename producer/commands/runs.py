"""Commands about runs: sweep, enqueue, status, failures, report, retry, verify, cancel."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from pipeline.errors import ItemError, SetupError
from pipeline.ids import Key, Location, RunId
from pipeline.ledger import Ledger, check, connect
from pipeline.runs import HIGH, NORMAL, NewerRunError
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from producer.api import Producer
from producer.commands.closing import FINISHED, SOME_FAILED, close, print_json
from producer.files import write_file
from producer.run import Run
from producer.selection import Selection
from producer.service import look_at_service

_Command = TypeVar("_Command", bound=Callable[..., None])
_REPORT_BYTES = 1 << 31
_STILL_SECONDS = 5.0
"""A run of which nothing has moved for so long may wait for a worker that is not there."""


def _starts_a_run(command: _Command) -> _Command:
    """The options of every command that starts a run."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="print one JSON object, and nothing else"),
        click.option("--wait", is_flag=True, help="wait for the end, print the closing table, exit 1 if any failed"),
        click.option("--force", is_flag=True, help="make outputs again that are already right"),
        click.option("--model", help="the model; default: MATTEMILL_MODEL or u2netp"),
        click.option("--recipe", help="what the cutouts are, such as webp=90,crop; default: png (docs/recipes.md)"),
        click.option("--to", required=True, metavar="S3_URL", help="where the cutouts go: s3://bucket/prefix/"),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="S3_URL")
@_starts_a_run
@click.option("--include", multiple=True, metavar="PATTERN", help="only keys like this, such as '*.jpg'; repeatable")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="no keys like this, such as '*/thumbs/*'; repeatable")
@click.option("--limit", type=click.IntRange(min=1), help="at most that many keys")
@click.option("--any-name", is_flag=True, help="images by content too, whatever their names end with")
@click.option(
    "--reports-to", default="", metavar="S3_URL", help="where manifest and report go; default: beside the outputs"
)
@click.option("--dry-run", is_flag=True, help="only count what would be done")
def sweep(
    source: str,
    to: str,
    recipe: str | None,
    model: str | None,
    force: bool,
    wait: bool,
    as_json: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    limit: int | None,
    any_name: bool,
    reports_to: str,
    dry_run: bool,
) -> None:
    """Enqueue every image below S3_URL that is not already right.

    Prints the run's id, or with --wait its closing table. Keys keep their folders: with the first line below,
    photos/2026-11-23/shoes/a.jpg becomes cutouts/day/shoes/a.png.

    \b
    Examples:
      mattemill sweep s3://photos/2026-11-23/ --to s3://cutouts/day/
      mattemill sweep s3://photos/ --to s3://cutouts/ --wait --json > summary.json
      mattemill sweep s3://photos/shoes/ --to s3://cutouts/shoes/ --force --wait
      mattemill sweep s3://photos/shoes/ --to s3://cutouts/web/ --recipe "background=#ffffff,crop,square,max-side=1600"
    """
    selection = Selection(include, exclude, limit, any_name)
    if dry_run:
        plan = Producer().plan(source, to, recipe=recipe, model=model, force=force, selection=selection)
        if as_json:
            print_json(dataclasses.asdict(plan))
        else:
            click.echo(
                f"listed {plan.listed} = to be made {plan.todo} ({plan.bytes / 1e6:.1f} MB)"
                f" + already right {plan.skipped} + conflicts {plan.conflicts} + no images {plan.no_images}"
            )
        return
    run = Producer().sweep(
        source, to, recipe=recipe, model=model, force=force, selection=selection, reports_to=reports_to
    )
    if not run.counts().listed:
        click.echo(
            f"There is no image below {source}. Hint: look at the address and the patterns;"
            " keys end with .jpg, .png …, --any-name takes others too",
            err=True,
        )
    close(run, wait, as_json)


@click.command()
@click.argument("images", metavar="S3_URL...", nargs=-1, required=True)
@_starts_a_run
@click.option("--priority", type=click.Choice(["high", "normal"]), default="high", show_default=True)
def enqueue(
    images: tuple[str, ...],
    to: str,
    recipe: str | None,
    model: str | None,
    force: bool,
    wait: bool,
    as_json: bool,
    priority: str,
) -> None:
    """Enqueue single images, by default before every sweep.

    \b
    Examples:
      mattemill enqueue s3://photos/a.jpg s3://photos/b.png --to s3://cutouts/urgent/ --wait
      mattemill enqueue s3://photos/a.jpg --to s3://cutouts/ --priority normal
    """
    level = HIGH if priority == "high" else NORMAL
    close(Producer().enqueue(images, to, recipe=recipe, model=model, force=force, priority=level), wait, as_json)


@click.command()
@click.argument("run", required=False)
@click.option("--watch", is_flag=True, help="follow RUN (or else the newest) to its end; exit 1 if any failed")
@click.option("--json", "as_json", is_flag=True, help="print JSON: one object for RUN, a list for all")
def status(run: str | None, watch: bool, as_json: bool) -> None:
    """Show where RUN stands, or all runs, the newest first.

    When one stands still, queues that no worker serves are named on standard error.
    """
    producer = _producer()
    if watch:
        close(producer.run(run) if run is not None else _newest(producer), True, as_json)
        return
    counted = [(one, one.counts()) for one in ([producer.run(run)] if run is not None else producer.runs())]
    rows: list[dict[str, object]] = [
        {"run": one.id, **dataclasses.asdict(counts), "pending": counts.pending, **_places(one)}
        for one, counts in counted
    ]
    if any(counts.pending and counts.now - counts.moved > _STILL_SECONDS for _, counts in counted):
        _warn_of_queues()
    if as_json:
        print_json(rows if run is None else rows[0])
        return
    if not rows:
        click.echo("There are no runs.")
    for row in rows:
        sums = f"listed {row['listed']} = done {row['done']} + skipped {row['skipped']} + failed {row['failed']}"
        pending = f" + pending {row['pending']}" if row["pending"] else ""
        error = f"  ({row['error']})" if row["error"] else ""
        click.echo(f"{row['run']}  {row['state']:9}  {sums}{pending}  {row['source']} -> {row['to']}{error}")


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="print a list of {key, code, reason}")
def failures(run: str, as_json: bool) -> None:
    """Show what failed in RUN, and why."""
    rows = _producer().run(run).failures()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['key']}: {row['code']}: {row['reason']}")


@click.command()
@click.argument("run")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True,
    help="the file to write",
)  # fmt: skip
def report(run: str, output: Path) -> None:
    """Fetch the report of RUN, once it is finished."""
    settings = load_settings()
    client = connect(settings)
    check(client, settings)
    ledger = Ledger(client, settings)
    counts, place = ledger.counts(RunId(run)), ledger.spec(RunId(run)).reports
    if counts.state != "finished":
        raise SetupError(
            f"Run {run} is not finished: {counts.pending} images are pending.", f"mattemill status {run} --watch"
        )
    if reason := ledger.report_error(RunId(run)):
        raise SetupError(f"The report of run {run} could not be written: {reason}", f"mattemill failures {run}")
    with S3Store(settings) as store:
        try:
            fetched = store.get(place.bucket, Key(place.key + "report.html"), max_bytes=_REPORT_BYTES)
        except ItemError as error:
            raise SetupError(
                f"s3://{place.bucket}/{place.key}report.html cannot be read: {error.reason}.",
                f"mattemill failures {run}",
            ) from error
    write_file(output, fetched.body)
    click.echo(output)


@click.command()
@click.argument("run")
def cancel(run: str) -> None:
    """Stop RUN: what is not finished fails as cancelled."""
    handle = _producer().run(run)
    if handle.counts().state == "finished":
        click.echo(f"Run {run} is finished already.")
        return
    handle.cancel()
    click.echo(f"Run {run} is cancelled: {handle.counts().failed} images count as failed.")


@click.command()
@click.argument("run")
@click.option("--wait", is_flag=True, help="wait for the end, print the closing table, exit 1 if any failed")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object, and nothing else")
def retry(run: str, wait: bool, as_json: bool) -> None:
    """Enqueue again what failed in RUN, as a run of its own."""
    close(_producer().retry(run), wait, as_json)


@click.command()
@click.argument("run", metavar="RUN|S3_URL")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def verify(run: str, as_json: bool) -> None:
    """Prove a finished run again, from S3 alone.

    Exit 1 when something does not hold any more. A run's id is looked up in Redis; the address of its reports'
    folder works without Redis too.
    """
    from producer.verify import verify as look

    settings = load_settings()
    place = _folder(run) if run.startswith("s3://") else _producer().run(run).spec.reports
    with S3Store(settings) as store:
        verdict = look(store, place)
    if as_json:
        print_json(dataclasses.asdict(verdict))
    else:
        for sentence in verdict.wrong:
            click.echo(sentence)
        click.echo(
            f"listed {verdict.listed} = done {verdict.done} + skipped {verdict.skipped} + failed {verdict.failed}: "
            + ("the proof stands" if not verdict.wrong else f"{len(verdict.wrong)} do not hold")
            + (f"; {verdict.newer} sources are newer" if verdict.newer else "")
        )
    sys.exit(SOME_FAILED if verdict.wrong else FINISHED)


def _producer() -> Producer:
    """A producer whose Redis has answered: a wrong address is told at once, not after its tries."""
    settings = load_settings()
    client = connect(settings)
    check(client, settings)
    client.close()
    return Producer(settings)


def _places(run: Run) -> dict[str, object]:
    """Where from and where to, as far as this version can read it."""
    try:
        spec = run.spec
    except NewerRunError:
        return {"source": "?", "to": "?"}
    return {"source": str(spec.source), "to": str(spec.target)}


def _folder(url: str) -> Location:
    try:
        return Location.parse(url if url.endswith("/") else f"{url}/")
    except ValueError as error:
        raise SetupError(f"{url!r} is no S3 address.", "name the folder of one run's reports") from error


def _warn_of_queues() -> None:
    settings = load_settings()
    client = connect(settings)
    try:
        for finding in look_at_service(settings, client).unserved():
            click.echo(f"{finding.told} Hint: {finding.hint}", err=True)
    finally:
        client.close()


def _newest(producer: Producer) -> Run:
    runs = producer.runs()
    if not runs:
        raise SetupError("There are no runs.", "mattemill sweep starts one")
    return runs[0]
