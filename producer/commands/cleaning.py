"""The command that removes what is old."""

import dataclasses
from collections import Counter

import click

from pipeline.ledger import Ledger, check, connect
from pipeline.places import Places
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from producer.commands.closing import print_json


@click.command()
@click.option("--yes", is_flag=True, help="remove it; without this it is only shown")
@click.option("--due", is_flag=True, help="only if a night of [clean] is due; what beat calls")
@click.option("--json", "as_json", is_flag=True, help="print a list of {kind, where, why}")
def clean(yes: bool, due: bool, as_json: bool) -> None:
    """Remove old runs, reports, and outputs without a source.

    The rules stand in the file that MATTEMILL_SWEEPS names. Shows what would go, and removes it with --yes. It
    never touches what Mattemill did not write (docs/sweeps.md).
    """
    from producer.clean import Cleaner
    from producer.sweeps.file import load_sweeps
    from producer.sweeps.nights import Nights

    settings = load_settings()
    file = load_sweeps(settings)
    client = connect(settings)
    check(client, settings)
    ledger = Ledger(client, settings)
    nights = Nights(ledger, settings.home)
    outlook = nights.look(file.clean) if due and file.clean is not None else None
    night = f"clean-{outlook.night:.0f}" if outlook is not None else ""
    if due and (file.clean is None or outlook is None or outlook.what != "due"):
        click.echo("Nothing is due.")
        return
    if file.clean is not None and outlook is not None and not nights.take(file.clean, outlook, night):
        click.echo("Nothing is due.")
        return
    seconds, micros = client.time()
    with S3Store(settings) as store:
        cleaner = Cleaner(ledger, store, Places.parse(settings.allowed_targets), seconds + micros / 1e6, act=yes)
        found = []
        for one in cleaner.clean(file):
            found.append(one)
            if not as_json:
                click.echo(f"{one.kind:6}  {one.where}  {one.why}")
    if file.clean is not None and night:
        nights.listed(file.clean, night)
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        kinds = Counter(one.kind for one in found)
        sums = ", ".join(f"{kinds[kind]} {kind}s" for kind in ("run", "report", "output"))
        click.echo(f"{sums} {'removed' if yes else 'would be removed: mattemill clean --yes'}")
