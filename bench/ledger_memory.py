"""What a run costs in Redis: `python -m bench.ledger_memory [--items 200000] [--million]`.

Keys of 40 characters, as a sweep writes them, through the real ledger into a real server: bytes an item while it waits
(todo, and fed), and after it is finished, with rows leaving Redis in parts of the manifest as housekeeping does it; and
what stays when the run is closed. `--million` does the same with a million items: fake work, one process.

Caveats: `used_memory` of the server less what it used before, so hash tables in the middle of growing are in it; other
counts of items give other figures. No broker messages and no alphas: the marks of the queues bound them.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import facts
from bench.synthetic_store import SOURCES, SyntheticStore, source
from pipeline.ids import Key
from pipeline.ledger import Ledger, Listing, connect
from pipeline.manifest import PART_ROWS, write_part
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.settings import load_settings
from workers.local.valkey import Valkey

PAGE = 500
RESULT = Path(__file__).parent / "results" / "ledger_memory.json"


def row(spec: RunSpec, key: Key) -> dict[str, object]:
    """As long as what `workers.encoding` writes."""
    return {
        "key": key, "outcome": "done", "output": spec.output_key(key), "bytes": 412_345, "etag": "0" * 32,
        "output_bytes": 812_345, "output_etag": "1" * 32, "fingerprint": "2" * 32, "width": 1600, "height": 1200,
        "ms": {"fetch": 3.25, "decode": 9.5, "engine": 21.75, "fetch again": 3.5, "refine": 30.25, "upload": 8.5},
        "engine": "fake", "model": "u2netp",
    }  # fmt: skip


def measure(items: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
        client = connect(load_settings(redis_url=server.url))
        ledger = Ledger(client, load_settings(redis_url=server.url))
        spec = RunSpec(new_run_id(), SOURCES, "in/", "cutouts", "out/", "u2netp", "0" * 64, ("320x320",))
        store = SyntheticStore(0)
        ledger.create(spec)
        before, started, peak = int(client.info("memory")["used_memory"]), time.perf_counter(), 0

        def used() -> int:
            nonlocal peak
            now = int(client.info("memory")["used_memory"]) - before
            peak = max(peak, now)
            return now

        for page, start in enumerate(range(0, items, PAGE)):
            entries = []
            for number in range(start, start + PAGE):
                listed = source("in/", number)
                item = Item(item_id(spec.output_key(listed.key)), listed.key, listed.etag, listed.bytes, "320x320")
                entries.append(Listing("todo", item, short_hash(listed.key)))
            ledger.list_page(spec.run, page, entries)
        ledger.close_listing(spec.run, items)
        todo, listed_in = used(), time.perf_counter() - started
        jobs = []
        while fed := ledger.feed(spec, PAGE, PAGE):
            jobs.append((fed[0].fed, fed[0].queue, [one.item.id for one in fed]))
        waiting = used()
        for fed_number, queue, ids in jobs:
            for taken in ledger.take(spec.run, queue, fed_number, ids):
                ledger.done(taken, row(spec, taken.item.key))
            used()
            while ledger.row_count(spec.run) >= PART_ROWS:
                write_part(store, ledger, spec)
        finished = used()
        worked_in = time.perf_counter() - started - listed_in
        while write_part(store, ledger, spec):
            pass
        counts = ledger.counts(spec.run)
        assert (counts.listed, counts.done, counts.pending) == (items, items, 0)
        ledger.close(spec.run)
        time.sleep(1)  # what is unlinked is freed in the background
        closed = used()
        client.close()
    return {
        "items": items,
        "bytes_per_item": {"todo": round(todo / items, 1), "waiting": round(waiting / items, 1),
                           "finished": round(finished / items, 1)},
        "peak_mb": round(peak / 1e6, 1),
        "bytes_after_closing": closed,
        "seconds": {"listing": round(listed_in, 1), "fake_work": round(worked_in, 1)},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--million", action="store_true")
    asked = parser.parse_args()
    answer = {
        "bench": "ledger_memory",
        "machine": facts(),
        "runs": [measure(items) for items in [asked.items, *([1_000_000] if asked.million else [])]],
        "caveats": " ".join((__doc__ or "").split("Caveats: ")[1].split()),
    }
    text = json.dumps(answer, indent=2) + "\n"
    if asked.items == 200_000 and asked.million:
        RESULT.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
