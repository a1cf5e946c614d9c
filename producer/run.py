"""`Run`: the handle of what a producer started."""

import time
from collections.abc import Callable, Iterator

from pipeline.errors import MattemillError, SetupError
from pipeline.ids import RunId
from pipeline.ledger import LISTING_LIMIT, Counts, Ledger, fill
from pipeline.manifest import read_rows
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from pipeline.storage import ObjectStore
from producer.summary import Summary, summarise


class StallError(MattemillError):
    """Nothing has moved for too long; the message says what was waited for."""


class Run:
    """A handle on a run; any machine that reaches the ledger can have one."""

    def __init__(self, id: RunId, ledger: Ledger, store: ObjectStore, settings: Settings) -> None:
        self.id = id
        self._ledger = ledger
        self._store = store
        self._settings = settings

    @property
    def spec(self) -> RunSpec:
        """Its immutable part."""
        return self._ledger.spec(self.id)

    def counts(self) -> Counts:
        """Where it stands, exact at this moment."""
        return self._ledger.counts(self.id)

    def wait(
        self,
        progress: Callable[[Counts], None] | None = None,
        timeout: float | None = None,
        stall_timeout: float | None = None,
    ) -> Summary:
        """Wait until every item has its outcome and the run is closed.

        Args:
            progress: called with the counts some times a second.
            timeout: seconds after which to give up.
            stall_timeout: seconds without any progress after which to give up; by default the setting's.

        Raises:
            StallError: says what it waited for.
            SetupError: when the listing was incomplete.
        """
        patience = stall_timeout if stall_timeout is not None else self._settings.stall_timeout
        deadline = time.monotonic() + timeout if timeout is not None else None
        while True:
            counts = self.counts()
            if progress is not None:
                progress(counts)
            if counts.state == "finished":
                if counts.error:
                    raise SetupError(f"Run {self.id}: {counts.error}.", "sweep again: what is right is skipped")
                return self.summary()
            if counts.now - counts.moved > patience:
                raise StallError(f"Run {self.id}: nothing has moved for {patience:g} s; {self._waits_for(counts)}.")
            if deadline is not None and time.monotonic() > deadline:
                raise StallError(f"Run {self.id}: not finished in {timeout:g} s; {self._waits_for(counts)}.")
            time.sleep(0.1)

    def summary(self) -> Summary:
        """The closing table, as far as the run is."""
        return summarise(self._ledger.spec(self.id), self.counts(), self.results())

    def results(self) -> Iterator[dict[str, object]]:
        """The row of every finished item."""
        yield from read_rows(self._store, self._ledger, self._ledger.spec(self.id))

    def failures(self) -> list[dict[str, object]]:
        """Key, code and reason of every failed item."""
        return list(self.summary().failures)

    def cancel(self) -> None:
        """Stop: what is not finished fails as cancelled."""
        self._ledger.cancel(self.id)

    def _waits_for(self, counts: Counts) -> str:
        if counts.state == "listing" and fill(self._ledger.client) >= LISTING_LIMIT:
            return "its listing waits for memory in Redis"
        places = {name: count for name, count in self._ledger.places(self.id).items() if count}
        if places:
            return "it waits for " + ", ".join(f"{count} images in {name}" for name, count in places.items())
        return f"its listing is {counts.state}" if counts.state == "listing" else "it waits for its closing"
