"""Commands about named sweeps: sweeps list, run, check; and beat, which starts them when they are due."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pipeline.errors import MattemillError, SetupError
from pipeline.ledger import Ledger, check, connect
from pipeline.log import configure
from pipeline.settings import Settings, load_settings
from producer.commands.closing import FINISHED, SETUP, close, print_json


@click.group()
def sweeps() -> None:
    """Sweeps that have a name and a time.

    They stand in the TOML file that MATTEMILL_SWEEPS names (docs/sweeps.md).
    """


@sweeps.command("list")
@click.option("--json", "as_json", is_flag=True, help="print a list of objects")
def list_sweeps(as_json: bool) -> None:
    """Show every named sweep: when it is due, its last run, and what it waits for."""
    from producer.sweeps.file import load_sweeps
    from producer.sweeps.nights import Nights

    settings = load_settings()
    file = load_sweeps(settings)
    rows = []
    with _ledger(settings) as ledger:
        nights = Nights(ledger, settings.home)
        for name, sweep in file.sweeps.items():
            outlook, clock = nights.look(sweep), sweep.timetable
            rows.append(
                {
                    "sweep": name,
                    "source": sweep.source,
                    "to": sweep.to,
                    "cron": sweep.cron,
                    "time_zone": sweep.time_zone,
                    "next": clock.local(outlook.next) if outlook.next < float("inf") else "",
                    "last_night": clock.local(outlook.record.night) if outlook.record.night else "",
                    "last_run": outlook.record.run,
                    "state": {"due": "due now", "waits": "waits for its last run", "later": ""}[outlook.what],
                }
            )
    if as_json:
        print_json(rows)
        return
    width = max((len(str(row["sweep"])) for row in rows), default=0)
    for row in rows:
        last = f"last run {row['last_run']}" if row["last_run"] else "no run yet"
        state = f" ({row['state']})" if row["state"] else ""
        click.echo(f"{row['sweep']:{width}}  {row['source']} -> {row['to']}  next {row['next']}, {last}{state}")


@sweeps.command("run")
@click.argument("name")
@click.option("--due", is_flag=True, help="only if a night is due that has no run yet; what beat calls")
@click.option("--wait", is_flag=True, help="wait for the end, print the closing table, exit 1 if any failed")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object, and nothing else")
def run_sweep(name: str, due: bool, wait: bool, as_json: bool) -> None:
    """Start the sweep NAME now; refused while its last run is not finished."""
    from producer.api import Producer
    from producer.sweeps.file import load_sweeps
    from producer.sweeps.nights import Nights
    from producer.sweeps.start import start_by_hand, start_if_due

    if due:
        from workers.lifecycle import die_with_parent

        die_with_parent()
    settings = load_settings()
    sweep = load_sweeps(settings).sweep(name)
    with _ledger(settings) as ledger:
        nights = Nights(ledger, settings.home)
        run = (start_if_due if due else start_by_hand)(Producer(settings), nights, sweep)
    if run is not None:
        close(run, wait, as_json)
    elif as_json:
        print_json({"run": None})
    else:
        click.echo(f"Sweep {name}: nothing is due.")


@sweeps.command("check")
@click.option("--json", "as_json", is_flag=True, help="print a list of {sweep, ok, told}")
def check_sweeps(as_json: bool) -> None:
    """Read the file and reach every bucket that it names; exit 2 if anything is wrong."""
    from producer.api import Producer
    from producer.sweeps.file import load_sweeps

    settings = load_settings()
    file = load_sweeps(settings)
    rows: list[dict[str, object]] = []
    for name, sweep in file.sweeps.items():
        told = f"{sweep.source} -> {sweep.to}, {sweep.timetable}"
        try:
            Producer(settings).check(
                sweep.source, sweep.to, recipe=sweep.recipe or None, model=sweep.model or None,
                selection=sweep.selection, reports_to=sweep.reports_to,
            )  # fmt: skip
        except MattemillError as error:
            rows.append({"sweep": name, "ok": False, "told": str(error)})
        else:
            rows.append({"sweep": name, "ok": True, "told": told})
    if as_json:
        print_json(rows)
    else:
        width = max((len(str(row["sweep"])) for row in rows), default=0)
        for row in rows:
            click.echo(f"{'ok  ' if row['ok'] else 'BAD '}  {row['sweep']:{width}}  {row['told']}")
    sys.exit(FINISHED if all(row["ok"] for row in rows) else SETUP)


@click.command()
def beat() -> None:
    """Start named sweeps, and the cleaning, when they are due.

    It runs until Ctrl-C. Each scheduled time has one run, whoever starts it: a second beat changes nothing. A night
    that was missed is caught up once; one whose predecessor is not finished waits for it.
    """
    from producer.metrics import BeatMetrics
    from producer.sweeps.beat import Starter, run_beat
    from producer.sweeps.file import load_sweeps
    from producer.sweeps.nights import Nights, Scheduled
    from workers.app import make_app
    from workers.metrics_page import metrics_page

    settings = load_settings()
    configure(settings, role="beat")
    file = load_sweeps(settings)
    if not file.sweeps:
        raise SetupError(f"{settings.sweeps} names no sweep.", "docs/sweeps.md shows one")
    with _ledger(settings) as ledger, metrics_page(settings):
        nights = Nights(ledger, settings.home)
        due: list[tuple[Scheduled, tuple[str, ...]]] = [
            (sweep, ("sweeps", "run", name, "--due")) for name, sweep in file.sweeps.items()
        ]
        if file.clean is not None:
            due.append((file.clean, ("clean", "--yes", "--due")))
        metrics = BeatMetrics(scheduled.name for scheduled, _ in due)
        starters = [Starter(nights, scheduled, arguments, metrics) for scheduled, arguments in due]
        run_beat(make_app(settings), starters)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger]:
    """A ledger whose Redis has answered: a wrong address is told at once, not after its tries."""
    client = connect(settings)
    try:
        check(client, settings)
        yield Ledger(client, settings)
    finally:
        client.close()
