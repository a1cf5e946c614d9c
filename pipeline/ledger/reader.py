"""What can be asked of the ledger without changing it."""

import json
from collections.abc import Iterator
from typing import cast

import redis

from pipeline.errors import SetupError
from pipeline.ids import ItemId, RunId
from pipeline.ledger.records import Counts
from pipeline.preview import Preview
from pipeline.runs import RunSpec

RUNS, ACTIVE = "mm:runs", "mm:active"


def base(run: RunId) -> str:
    """The key of a run's hash; all its other keys begin with it."""
    return f"mm:{{{run}}}"


class LedgerReader:
    """Every question to the ledger; writes nothing. Safe to use from many threads."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def spec(self, run: RunId) -> RunSpec:
        """The immutable part of a run.

        Raises:
            SetupError: when the ledger does not know it (any more).
        """
        text = cast(bytes | None, self.client.hget(base(run), "spec"))
        if text is None:
            raise SetupError(f"There is no run {run!r}.", "mattemill status lists the runs")
        return RunSpec.load(text.decode())

    def selection(self, run: RunId) -> str:
        """JSON of which keys a run takes; "" when it does not say."""
        return (cast(bytes | None, self.client.hget(base(run), "selection")) or b"").decode()

    def counts(self, run: RunId) -> Counts:
        """Where a run stands, exact at this moment.

        Raises:
            SetupError: when the ledger does not know it (any more).
        """
        with self.client.pipeline(transaction=True) as pipe:
            pipe.hgetall(base(run))
            pipe.time()
            fields, (seconds, micros) = pipe.execute()
        if b"spec" not in fields:
            raise SetupError(f"There is no run {run!r}.", "mattemill status lists the runs")
        text = {name.decode(): value.decode() for name, value in fields.items()}

        def number(name: str) -> int:
            return int(text.get(name, "0"))

        return Counts(
            listed=number("listed"),
            done=number("done"),
            skipped=number("skipped"),
            failed=number("failed"),
            retried=number("retried") + number("reclaimed"),
            state=text["state"],
            error=text.get("error", ""),
            cancelled=text.get("cancelled") == "1",
            created=number("created") / 1e6,
            moved=number("moved") / 1e6,
            now=seconds + micros / 1e6,
        )

    def runs(self, *, active: bool = False, most: int = 0) -> list[RunId]:
        """The runs that the ledger knows, newest first; at most `most`, or all for 0."""
        names = cast(list[bytes], self.client.zrevrange(ACTIVE if active else RUNS, 0, most - 1))
        return [RunId(name.decode()) for name in names]

    def places(self, run: RunId) -> dict[str, int]:
        """How many unfinished items are in which place: todo, todo:encode, held, waiting:<queue>."""
        names = ["todo", "todo:encode", "held", *(f"waiting:{queue}" for queue in self.queues(run))]
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zcard(f"{base(run)}:{name}")
            sizes = pipe.execute()
        return dict(zip(names, sizes, strict=True))

    def queues(self, run: RunId) -> list[str]:
        """The queues that items of this run were ever fed to."""
        return sorted(name.decode() for name in cast(set[bytes], self.client.smembers(f"{base(run)}:queues")))

    def report_error(self, run: RunId) -> str:
        """Why the reports of a finished run could not be written, or ""."""
        text = cast(bytes | None, self.client.hget(base(run), "report_error"))
        return text.decode() if text else ""

    def rows(self, run: RunId) -> Iterator[dict[str, object]]:
        """The rows that are still here, in the order of finishing, read in pages; see `pipeline.manifest` for all."""
        last = "-"
        while page := self._row_page(run, last, 1000):
            yield from (json.loads(line) for _, line in page)
            last = f"({page[-1][0]}"

    def row_page(self, run: RunId, most: int, after: str = "") -> list[tuple[str, str]]:
        """The oldest rows, or the first ones after a stream id, with their stream ids."""
        return self._row_page(run, f"({after}" if after else "-", most)

    def row_count(self, run: RunId) -> int:
        """How many rows are here."""
        return self.client.xlen(f"{base(run)}:rows")

    def _row_page(self, run: RunId, first: str, most: int) -> list[tuple[str, str]]:
        page = self.client.xrange(f"{base(run)}:rows", first, "+", count=most)
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], page)
        return [(id.decode(), fields[b"row"].decode()) for id, fields in entries]

    def previewed(self, run: RunId) -> set[ItemId]:
        """The images of which there are small pictures."""
        return {ItemId(name.decode()) for name in cast(list[bytes], self.client.hkeys(f"{base(run)}:previews"))}

    def preview(self, run: RunId, item: ItemId) -> Preview | None:
        """The small pictures of an image; None where there are none."""
        data = cast(bytes | None, self.client.hget(f"{base(run)}:previews", item))
        return Preview.load(data) if data is not None else None
