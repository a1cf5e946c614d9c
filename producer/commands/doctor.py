"""`mattemill doctor`: a verdict on everything the system stands on, and the command that mends it."""

import dataclasses
import os
import secrets
import shutil
import sys
import textwrap

import click

from pipeline.settings import load_settings
from producer.checkup import check_up
from producer.commands.closing import FINISHED, SETUP, print_json
from producer.finding import Finding

_COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command()
@click.argument("buckets", metavar="[S3_URL]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def doctor(buckets: tuple[str, ...], as_json: bool) -> None:
    """Find out what is missing or wrong here, and what mends it.

    It looks at Python, settings, disk, model, engine, Redis, S3, queues and workers; exit 2 if anything is bad. Each
    line that is not ok ends with what mends it. With S3_URLs it also looks whether these buckets can be used.

    \b
    Examples:
      mattemill doctor
      mattemill doctor s3://photos/ s3://cutouts/ --json
    """
    findings = check_up(load_settings(), buckets, secrets.token_hex(8), os.environ)
    bad = any(finding.state == "bad" for finding in findings)
    if as_json:
        print_json({"ok": not bad, "checks": [dataclasses.asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.name) for finding in findings)
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for finding in findings:
            click.echo(_line(finding, width, columns))
        click.echo(_verdict(findings))
    sys.exit(SETUP if bad else FINISHED)


def _line(finding: Finding, width: int, columns: int | None) -> str:
    """One line, or, on a terminal of so many columns, what was found and below it, to be copied, what mends it."""
    # click leaves colours out where there is no terminal.
    state = click.style(
        f"{finding.state.upper() if finding.state == 'bad' else finding.state:4}", fg=_COLOURS[finding.state]
    )
    told = finding.told
    indent = " " * (len("note") + width + 4)
    if columns is not None:
        told = f"\n{indent}".join(textwrap.wrap(told, max(columns - len(indent), 40), break_on_hyphens=False))
    before = " Hint: " if columns is None else f"\n{indent}-> "
    hint = f"{before}{click.style(finding.hint, fg='cyan')}" if finding.hint else ""
    return f"{state}  {finding.name:{width}}  {told}{hint}"


def _verdict(findings: list[Finding]) -> str:
    bad = list(dict.fromkeys(finding.name for finding in findings if finding.state == "bad"))
    if bad:
        return click.style(f"Bad: {', '.join(bad)}. Their lines end with what mends them.", fg="red", bold=True)
    notes = sum(finding.state == "note" for finding in findings)
    more = f" {notes} {'note' if notes == 1 else 'notes'} to read." if notes else ""
    return click.style(f"All is well.{more}", fg="green", bold=True)
