"""The processes that `bench.scale` starts beside GPU workers: `python -m bench.scale_part PART ...`.

producer KEYS PREFIX made-up|real   sweeps, and prints what that took
house made-up|real                  keeps house; holds and goes on as standard input says, ends with it
encoder CONCURRENCY                 `workers.cpu`, its pictures made up
"""

import json
import sys
import threading
import time
from typing import cast

import workers.cpu
from bench.synthetic_store import SOURCES, SyntheticStore, TinyPhotos
from pipeline.ids import RunId
from pipeline.ledger import Ledger, connect
from pipeline.manifest import write_part
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from pipeline.storage import ObjectStore
from producer import Producer
from workers.app import make_app, publish
from workers.house import write_reports
from workers.housekeeping import Housekeeper
from workers.lifecycle import start


def producer(keys: int, prefix: str, store: str) -> None:
    settings = load_settings()
    sweeping = Producer(settings, SyntheticStore(keys) if store == "made-up" else S3Store(settings))
    started, used = time.perf_counter(), time.process_time()
    run = sweeping.sweep(f"s3://{SOURCES}/{prefix}", f"s3://cutouts/{prefix}", force=True)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    print(json.dumps({"run": run.id, "seconds": seconds, "cpu_seconds": cpu}))


def house(store: str) -> None:
    settings, stop, going = load_settings(), threading.Event(), threading.Event()
    app, client = make_app(settings), connect(settings)
    ledger = Ledger(client, settings)
    outputs = cast(ObjectStore, TinyPhotos())

    def finish(run: RunId) -> None:
        if store == "real":
            write_reports(run, stop)

    def part(run: RunId) -> None:
        if store == "real":
            write_reports(run, stop, "part")
        else:
            write_part(outputs, ledger, ledger.spec(run))

    keeper = Housekeeper(ledger, lambda jobs, priority: publish(app, jobs, priority), finish, settings, part)

    def lead() -> None:
        while not stop.is_set():
            if not going.wait(0.1):
                continue
            if keeper.step():
                keeper.wait(0.2)

    with keeper:
        thread = threading.Thread(target=lead)
        thread.start()
        for line in sys.stdin:
            if line.strip() == "go":
                going.set()
            else:
                going.clear()
        stop.set()
        thread.join()
    app.close()
    client.close()


def main() -> int:
    part, *arguments = sys.argv[1:]
    if part == "producer":
        producer(int(arguments[0]), *arguments[1:])
    elif part == "house":
        house(arguments[0])
    else:
        vars(workers.cpu)["S3Store"] = TinyPhotos
        sys.argv = [sys.argv[0], *arguments]
        return start("cpu", workers.cpu.run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
