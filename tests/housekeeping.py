"""Housekeeping without a CPU worker, for tests that look at what workers do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.ids import RunId
from pipeline.ledger import Ledger
from pipeline.settings import Settings
from workers.app import make_app, publish
from workers.housekeeping import Housekeeper


@contextmanager
def housekeeping(ledger: Ledger, settings: Settings) -> Iterator[list[dict[str, object]]]:
    """Feed and finish; gives a list that receives the rows of every run that ends."""
    app, stop = make_app(settings), threading.Event()
    rows: list[dict[str, object]] = []

    def finish(run: RunId) -> None:
        rows.extend(ledger.rows(run))

    with Housekeeper(ledger, lambda jobs, priority: publish(app, jobs, priority), finish, settings) as keeper:

        def lead() -> None:
            while not stop.is_set():
                keeper.step()
                keeper.wait(0.1)

        thread = threading.Thread(target=lead)
        thread.start()
        try:
            yield rows
        finally:
            stop.set()
            thread.join()
    app.close()
