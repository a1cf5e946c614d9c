"""Starts a run of a named sweep: by hand, or because its night is due."""

import contextlib

from pipeline.errors import SetupError
from pipeline.runs import new_run_id
from producer.api import Producer
from producer.run import Run
from producer.sweeps.file import NamedSweep
from producer.sweeps.nights import Nights


def start_by_hand(producer: Producer, nights: Nights, sweep: NamedSweep) -> Run:
    """Sweep now, whatever the time.

    Raises:
        SetupError: as `Producer.sweep`, and when the last run of this sweep is not finished.
    """
    outlook = nights.look(sweep)
    if nights.unfinished(outlook.record, outlook.now):
        raise _unfinished(sweep, outlook.record.run)
    run = _start(producer, nights, sweep, by_hand=True)
    if run is None:
        raise SetupError(f"Sweep {sweep.name} was started by another process just now.", "mattemill sweeps list")
    return run


def start_if_due(producer: Producer, nights: Nights, sweep: NamedSweep) -> Run | None:
    """Sweep if a night is due; None when there is nothing to do, as when another was quicker.

    Raises:
        SetupError: as `Producer.sweep`, and when the night waits for the last run.
    """
    return _start(producer, nights, sweep, by_hand=False)


def _start(producer: Producer, nights: Nights, sweep: NamedSweep, *, by_hand: bool) -> Run | None:
    outlook, run = nights.look(sweep), new_run_id()
    if not by_hand and outlook.what == "waits":
        raise _unfinished(sweep, outlook.record.run)
    if not by_hand and outlook.what != "due":
        return None
    if not nights.take(sweep, outlook, run, by_hand=by_hand):
        return None
    try:
        started = producer.sweep(
            sweep.source,
            sweep.to,
            recipe=sweep.recipe or None,
            model=sweep.model or None,
            selection=sweep.selection,
            reports_to=sweep.reports_to,
            name=sweep.name,
            run=run,
        )
    except BaseException:
        with contextlib.suppress(Exception):  # it may not be there, or Redis may be away
            producer.run(run).cancel()
        nights.give_back(sweep, run, outlook.record)
        raise
    nights.listed(sweep, run)
    return started


def _unfinished(sweep: NamedSweep, run: str) -> SetupError:
    return SetupError(
        f"The last run of sweep {sweep.name}, {run}, is not finished; the next one waits for its end.",
        f"mattemill status {run} --watch, or mattemill cancel {run}",
    )
