"""How a command ends: the progress bar, the closing table, the exit code."""

import dataclasses
import json
import sys
from collections.abc import Callable

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.ledger import Counts
from producer.run import Run
from producer.summary import Summary

FINISHED, SOME_FAILED, SETUP = 0, 1, 2
_MOST_FAILURES = 20
"""A night that goes wrong as a whole must not bury its sum."""


def print_json(data: object) -> None:
    """One JSON document on standard output, on one line."""
    click.echo(json.dumps(data, ensure_ascii=False))


def follow(run: Run, look: Callable[[], None] = lambda: None) -> Summary:
    """Wait for a run behind a live progress bar (on standard error); `look` may raise to end the waiting."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("images", total=None)

        def show(counts: Counts) -> None:
            look()
            bar.update(task, total=counts.listed or None, completed=counts.finished)

        return run.wait(show)


def print_summary(summary: Summary) -> None:
    """The closing table."""
    click.echo(
        f"listed {summary.listed} = done {summary.done} + skipped {summary.skipped} + failed {summary.failed}\n"
        f"{summary.images_per_second:.2f} images/s in {summary.seconds:.1f} s, model {summary.model}, "
        f"engine {summary.engine or 'not needed'}"
    )
    for row in summary.failures[:_MOST_FAILURES]:
        click.echo(f"  {row['key']}: {row['code']}: {row['reason']}")
    if (more := len(summary.failures) - _MOST_FAILURES) > 0:
        click.echo(f"  … and {more} more")


def close(run: Run, wait: bool, as_json: bool) -> None:
    """Print the id of `run`, or wait for its end and leave with its exit code."""
    if not wait:
        if as_json:
            print_json({"run": run.id})
        else:
            click.echo(run.id)
        return
    try:
        summary = run.wait() if as_json else follow(run)
    except KeyboardInterrupt:
        click.echo(f"Run {run.id} goes on. To stop it: mattemill cancel {run.id}", err=True)
        raise
    if as_json:
        print_json(dataclasses.asdict(summary))
    else:
        print_summary(summary)
        click.echo(f"Report: mattemill report {run.id} -o report.html")
        if summary.failed:
            click.echo(f"All failures: mattemill failures {run.id}. Again: mattemill retry {run.id} --wait")
    sys.exit(SOME_FAILED if summary.failed else FINISHED)
