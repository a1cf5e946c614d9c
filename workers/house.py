"""What a supervisor does beside its encode pool: it keeps house, or stands by to."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import CollectorRegistry

from pipeline.errors import MattemillError, SetupError
from pipeline.ids import RunId
from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings
from workers.app import make_app, publish
from workers.house_gauges import HouseGauges
from workers.housekeeping import Housekeeper, StoppedError
from workers.metrics import Metrics

log = structlog.get_logger(__name__)
_FINISH_SECONDS = 600


class ReportsError(MattemillError):
    """The reports of a run were not written, and may be by the next try."""


def keep_house(settings: Settings, stop: threading.Event, metrics: Metrics, gauges: HouseGauges) -> None:
    """Lead the housekeeping, or stand by to lead, until `stop`; `gauges` are told which."""
    app = make_app(settings)
    client = connect(settings)
    with Housekeeper(
        Ledger(client, settings),
        lambda jobs, priority: publish(app, jobs, priority),
        lambda run: write_reports(run, stop),
        settings,
        lambda run: write_reports(run, stop, "part"),
        metrics,
    ) as keeper:
        while not stop.is_set():
            try:
                gauges.leads = keeper.step()
                if gauges.leads:
                    keeper.wait(0.2)
                else:
                    stop.wait(1)
            except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the house must be kept after it
                gauges.leads = False
                log.warning("housekeeping_failed", error=str(error))
                stop.wait(1)
    app.close()
    client.close()


@contextmanager
def housekeeping(settings: Settings, registry: CollectorRegistry, metrics: Metrics) -> Iterator[None]:
    """Keep house in a thread while this lasts; what it knows is on the page of `registry`."""
    stop, gauges = threading.Event(), HouseGauges(settings)
    registry.register(gauges)
    house = threading.Thread(target=keep_house, args=(settings, stop, metrics, gauges), name="housekeeping")
    house.start()
    try:
        yield
    finally:
        stop.set()
        house.join()


def write_reports(run: RunId, stop: threading.Event, *what: str) -> None:
    """Write manifest, summary and report, or a "part", in a process of its own: what they take goes with it.

    Raises:
        SetupError: when they cannot be written, now or later.
        ReportsError: when they were not written, or not in time; the next try may.
        StoppedError: when `stop` was set before they were.
    """
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "workers.finisher", run, *what]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        deadline = time.monotonic() + _FINISH_SECONDS
        try:
            while child.poll() is None:
                if stop.wait(0.05):
                    raise StoppedError
                if time.monotonic() > deadline:
                    raise ReportsError(f"The reports were not written in {_FINISH_SECONDS} s.")
        finally:
            child.kill()
            child.wait()
        said.seek(0)
        if child.returncode == 0:
            sys.stderr.write(said.read().decode(errors="replace"))  # its log
        else:
            lines = said.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"The reports' process ended with status {child.returncode}."
            raise SetupError(reason) if child.returncode == 2 else ReportsError(reason)
