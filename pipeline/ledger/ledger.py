"""The ledger: what is owed. Every transition is one Lua function in lua/; Redis's clock alone counts.

listing ──▶ todo ──feed──▶ waiting:<queue> ──take──▶ held ──hand_over──▶ waiting:encode ──take──▶ held ──▶ finished
             ▲                    │ reclaim                │ try_again, give_back, reclaim
             └────────────────────┴────────────────────────┘
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import resources
from typing import TypeAlias, cast

import redis
from redis.commands.core import Script

from pipeline.errors import Code, ItemError, SetupError, TransientError
from pipeline.ids import ItemId, RunId
from pipeline.ledger.reader import ACTIVE, RUNS, LedgerReader, base
from pipeline.ledger.records import Fed, Listing, Taken, failure_row
from pipeline.preview import Preview
from pipeline.runs import Item, RunSpec
from pipeline.settings import Settings

WAKE, LEADER = "mm:wake", "mm:leader"
_SCRIPTS = (
    "list_page", "claimed", "keep_listing", "adopt_listing", "close_listing", "abandon_listing", "feed", "take",
    "touch", "hand_over", "done", "fail", "try_again", "give_back", "reclaim", "cancel", "suspect", "close",
    "keep_preview",
)  # fmt: skip
_Value: TypeAlias = "bytes | bytearray | memoryview[int] | str | int | float"
_Fields: TypeAlias = "dict[_Value, _Value]"
_WAKE = """#!lua flags=allow-oom
redis.call('LPUSH', KEYS[1], 1) return redis.call('LTRIM', KEYS[1], 0, 0)"""
_BACKOFF = 2.0
"""Seconds before the second try; each further one waits twice as long."""


_PREVIEW_SECONDS = 7 * 86400
"""Since the last one of a run was kept, should it never be closed."""


class Ledger(LedgerReader):
    """Every question to and every change of the ledger. Safe to use from many threads."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        super().__init__(client)
        self._settings = settings

    @cached_property
    def _scripts(self) -> dict[str, Script]:
        folder = resources.files("pipeline.ledger") / "lua"
        prelude = (folder / "prelude.lua").read_text("utf-8")
        return {
            name: self.client.register_script(prelude + (folder / f"{name}.lua").read_text("utf-8"))
            for name in _SCRIPTS
        }

    @cached_property
    def _wake(self) -> Script:
        return self.client.register_script(_WAKE)

    def _call(self, script: str, run: RunId, *args: str | bytes | int | float) -> object:
        return self._scripts[script](keys=[base(run)], args=list(args))

    # --- runs

    def create(self, spec: RunSpec, call: str = "", selection: str = "") -> None:
        """Open a run for listing.

        Args:
            spec: the run.
            call: the same for all that ask for the same, see `interrupted`.
            selection: JSON of which keys it takes; for who proves the run, not for who works on it.
        """
        seconds, micros = self.client.time()
        now = seconds * 1_000_000 + micros
        with self.client.pipeline(transaction=True) as pipe:
            counts: _Fields = dict.fromkeys(("listed", "done", "skipped", "failed", "page"), 0)
            clocks: _Fields = dict.fromkeys(("created", "moved", "listing_at"), now)
            pipe.hset(
                base(spec.run),
                mapping={
                    "spec": spec.dump(), "state": "listing", "call": call, "selection": selection, **counts, **clocks
                },
            )  # fmt: skip
            pipe.zadd(RUNS, {spec.run: now})
            pipe.zadd(ACTIVE, {spec.run: now})
            pipe.execute()

    # --- listing

    def claimed(self, run: RunId, ids: Sequence[ItemId]) -> list[str]:
        """For each output the short hash of the source that has claimed it, or ""."""
        found = cast(list[bytes], self._call("claimed", run, *ids))
        return [source.decode() for source in found]

    def list_page(self, run: RunId, page: int, entries: Iterable[Listing]) -> int:
        """Add page number `page` in one step; returns how many items were new.

        Raises:
            SetupError: when the run has ended or another process lists it.
        """
        args: list[str | int] = [page]
        for entry in entries:
            payload = entry.item.dump() if entry.outcome == "todo" else _json(entry.row or {})
            args += [entry.outcome, entry.item.id + entry.source, payload]
        added = cast(int, self._call("list_page", run, *args))
        if added < 0:
            why = "another process lists it too" if added == -1 else "it has ended"
            raise SetupError(f"Run {run} takes no more keys: {why}.", "start a new run")
        self.wake()
        return added

    def keep_listing(self, run: RunId, *, moves: bool) -> None:
        """Say that whoever lists this run is alive, and whether the listing moves or waits for memory."""
        self._call("keep_listing", run, int(moves))

    def interrupted(self, call: str) -> list[tuple[RunId, float]]:
        """Open listings that were begun with this `call`, and when each was last heard of, in seconds since 1970."""
        found = []
        for run in self.runs(active=True):
            state, theirs, heard = cast(
                "list[bytes | None]", self.client.hmget(base(run), "state", "call", "listing_at")
            )
            if state == b"listing" and theirs == call.encode():
                found.append((run, int(heard or 0) / 1e6))
        return found

    def adopt_listing(self, run: RunId, quiet: float) -> tuple[int, int] | None:
        """Go on with a listing of which nothing was heard for `quiet` seconds.

        Returns:
            the number of its next page and how many items it has added so far; None when it lives, or has ended.
        """
        answer = cast("list[int]", self._call("adopt_listing", run, int(quiet * 1e6)))
        return (answer[0], answer[1]) if answer else None

    def close_listing(self, run: RunId, listed: int) -> int:
        """End the listing, stating how many items it added; returns how many the ledger knows."""
        known = cast(int, self._call("close_listing", run, listed))
        self.wake()
        return known

    # --- feeding and housekeeping

    def wake(self) -> None:
        """Tell the housekeeping leader that there is something to do."""
        self._wake(keys=[WAKE])

    def feed(self, spec: RunSpec, most: int, engines: int) -> list[Fed]:
        """Move up to `most` due items to their queues, `engines` of them to the matte stage. Publish them next."""
        answer = cast(list[bytes], self._call("feed", spec.run, most, engines, f"matte.{spec.model}."))
        fed = int(answer[0])
        return [
            Fed(Item.load(ItemId(id.decode()), record), fed, queue.decode())
            for id, record, queue in zip(answer[1::3], answer[2::3], answer[3::3], strict=True)
        ]

    def reclaim(self, run: RunId, oldest: Mapping[str, int | None]) -> int:
        """Bring back what nobody works on and whose message is gone.

        Args:
            run: the run.
            oldest: queue to the fed number of its oldest message, None when the queue is empty; queues whose
                oldest message cannot be read must be left out.
        """
        pairs = [part for queue, fed in oldest.items() for part in (queue, "" if fed is None else str(fed))]
        held, wait = self._settings.held_timeout, self._settings.waiting_timeout
        back = self._call("reclaim", run, int(held * 1e6), int(wait * 1e6), *pairs)
        return cast(int, back)

    def abandon_listing(self, run: RunId) -> bool:
        """Close a listing that has been silent for too long."""
        return self._call("abandon_listing", run, int(self._settings.listing_timeout * 1e6)) == 1

    def close(self, run: RunId, error: str = "") -> None:
        """The reports are written: the run is finished, and its counts leave Redis after the retention time.

        All else goes at once; with an `error`, which says why there is no manifest, its rows stay as long.
        """
        self._scripts["close"](keys=[base(run), ACTIVE], args=[run, self._settings.run_retention, error])

    def forget(self, run: RunId) -> None:
        """Drop a finished run before its retention time is over."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.unlink(base(run), f"{base(run)}:rows")
            pipe.zrem(RUNS, run)
            pipe.execute()

    def forget_expired(self) -> None:
        """Drop the names of runs whose retention time is over."""
        for run in self.runs():
            if not self.client.exists(base(run)):
                self.client.zrem(RUNS, run)
                self.client.zrem(ACTIVE, run)

    def cancel(self, run: RunId) -> None:
        """Finish every unfinished item as failed/cancelled."""
        self.counts(run)
        while cast(int, self._call("cancel", run, 500)):
            pass
        self.wake()

    # --- working

    def take(self, run: RunId, queue: str, fed: int, ids: Sequence[ItemId]) -> list[Taken]:
        """Hold those of the items whose current message this is; late copies drop out."""
        answer = cast(list[bytes | None], self._call("take", run, queue, fed, *ids))
        return [
            Taken(run, Item.load(id, record), fed, alpha, bool(suspect))
            for id, record, alpha, suspect in zip(ids, answer[::3], answer[1::3], answer[2::3], strict=True)
            if record is not None
        ]

    def touch(self, run: RunId, fed: Iterable[tuple[ItemId, int]]) -> None:
        """Say that these are still worked on."""
        args = [part for id, number in fed for part in (id, str(number))]
        if args:
            self._call("touch", run, *args)

    def hand_over(self, run: RunId, alphas: Sequence[tuple[Taken, bytes]]) -> list[int | None]:
        """Leave the alphas and move the items to the encode queue; fed numbers of their messages, None when stale."""
        args = [part for taken, alpha in alphas for part in (taken.item.id, taken.fed, alpha)]
        answer = cast(list[bytes | int], self._call("hand_over", run, *args))
        return [int(answer[0]) if moved else None for moved in answer[1:]]

    def done(self, taken: Taken, row: Mapping[str, object]) -> bool:
        """Count a success and keep its row; False when it was counted before."""
        return self._call("done", taken.run, taken.item.id, _json(row)) == 1

    def fail(self, taken: Taken, error: ItemError, engine: str = "") -> str:
        """Count a failure, or send the item back when trying again may help: "failed", "again" or "stale".

        `engine` is that of its matte or of the worker, for the row.
        """
        row = failure_row(taken.item.key, error.code, error.reason, error.milliseconds, engine)
        if isinstance(error, TransientError):
            return self._try_again(taken, row, "tries", self._settings.max_tries, _BACKOFF)
        counted = self._call("fail", taken.run, taken.item.id, taken.fed, _json(row))
        return "failed" if counted == 1 else "stale"

    def blame(self, taken: Taken, reason: str, engine: str = "") -> str:
        """Count the death of a process against the one item it worked on."""
        limit = self._settings.max_deaths
        said = f"It ended {limit} processes that worked on it; last: {reason}"
        row = failure_row(taken.item.key, Code.ATTEMPTS_EXHAUSTED, said, engine=engine)
        return self._try_again(taken, row, "deaths", limit, 0)

    def suspect(self, batch: Sequence[Taken], engine: str = "") -> list[str]:
        """These were in the `engine` of a process that ended by its own act: "suspect", "failed" or "stale" for each.

        Which one ended it is known only when there was one; the others run alone from now on.
        """
        limit = self._settings.max_deaths
        reason = f"It was alone in the engine {limit} times when the engine's process ended."
        outcomes = []
        for one in batch:
            row = _json(failure_row(one.item.key, Code.ATTEMPTS_EXHAUSTED, reason, engine=engine))
            answer = self._call("suspect", one.run, one.item.id, one.fed, int(len(batch) == 1), limit, row)
            outcomes.append(cast(bytes, answer).decode())
        self.wake()
        return outcomes

    def lost_alpha(self, taken: Taken, reason: str) -> str:
        """The alpha is missing or damaged: back to the start."""
        row = failure_row(taken.item.key, Code.ENGINE_ERROR, reason)
        return self._try_again(taken, row, "tries", self._settings.max_tries, 0, drop=True)

    def give_back(self, taken: Iterable[Taken]) -> None:
        """Return held items without blame."""
        for one in taken:
            self._call("give_back", one.run, one.item.id, one.fed)
        self.wake()

    def _try_again(
        self, taken: Taken, row: Mapping[str, object], kind: str, limit: int, delay: float, *, drop: bool = False
    ) -> str:
        answer = self._call(
            "try_again", taken.run, taken.item.id, taken.fed, kind, limit, int(delay * 1e6), _json(row),
            "drop" if drop else "",
        )  # fmt: skip
        return cast(bytes, answer).decode()

    def keep_preview(self, taken: Taken, preview: Preview) -> None:
        """Keep the small pictures of an image that is not finished until its run is closed."""
        self._call("keep_preview", taken.run, taken.item.id, preview.dump(), _PREVIEW_SECONDS)

    def trim_rows(self, run: RunId, last: str) -> None:
        """Drop the rows up to this stream id: they lie in a part of the manifest."""
        milliseconds, number = last.split("-")
        self.client.xtrim(f"{base(run)}:rows", minid=f"{milliseconds}-{int(number) + 1}", approximate=False)


def _json(row: Mapping[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))
