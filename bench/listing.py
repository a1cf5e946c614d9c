"""What listing costs: `python -m bench.listing [--million 1000000] [--right 100000] [--real 10000]`.

Three jobs, each in a process of its own. A sweep of a million made-up keys into a real ledger: seconds, and how far the
process grows. A second sweep of 100 000 keys that are all right, with made-up sources and with outputs in memory:
requests and seconds. The same of 10 000 keys against a real S3 server on this machine (SeaweedFS).

Caveats: made-up keys cost no network, so the first two are our own time and Redis's; what a real store's pages of 1000
keys take, the third tells. Servers share the machine's cores with the producer. Growth is of the resident set, seen 20
times a second; it holds what SQLite and the allocator keep.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import boto3
import psutil
from botocore.config import Config

from bench.machine import facts
from bench.synthetic_store import SOURCES, SyntheticStore, source
from pipeline.ids import Key
from pipeline.ledger import Ledger, connect
from pipeline.manifest import Rows, collect, remember, write_manifest, write_part
from pipeline.runs import FINGERPRINT, RunSpec
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from pipeline.storage import Head, Listed, ObjectStore, Page
from producer import Producer
from workers.local.seaweed import Seaweed
from workers.local.valkey import Valkey

FROM, TO = f"s3://{SOURCES}/in/", "s3://cutouts/out/"
RESULT = Path(__file__).parent / "results" / "listing.json"


class Watch:
    """The largest resident set of this process, in bytes beyond what it was at first."""

    def __enter__(self) -> "Watch":
        self._process, self._stop = psutil.Process(), threading.Event()
        self.first = self.most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def million(settings: Settings, keys: int) -> dict[str, object]:
    Producer(settings, SyntheticStore(2000)).sweep(FROM, "s3://cutouts/first/").cancel()
    store, started = SyntheticStore(keys), time.perf_counter()
    with Watch() as watch:
        counts = Producer(settings, store).sweep(FROM, TO).counts()
    assert (counts.listed, counts.error) == (keys, "")
    seconds = time.perf_counter() - started
    return {"keys": keys, "seconds": round(seconds, 1), "grown_mb": round((watch.most - watch.first) / 1e6, 1)}


def make_right(settings: Settings, store: ObjectStore, threads: int) -> None:
    """What workers and finisher do, without pixels."""
    run = Producer(settings, store).sweep(FROM, TO)
    client = connect(settings)
    ledger, spec = Ledger(client, settings), run.spec
    while fed := ledger.feed(spec, 500, 500):
        taken = ledger.take(spec.run, fed[0].queue, fed[0].fed, [one.item.id for one in fed])
        with ThreadPoolExecutor(threads) as pool:
            rows = list(pool.map(lambda one: put(store, spec, one.item.key, one.item.etag, one.item.bytes), taken))
        for one, row in zip(taken, rows, strict=True):
            ledger.done(one, row)
        while ledger.row_count(spec.run) >= 5000:
            write_part(store, ledger, spec)
    with Rows() as all_rows:
        collect(all_rows, store, ledger, spec)
        write_manifest(all_rows, store, spec)
    remember(store, spec)
    ledger.close(spec.run)
    client.close()


def put(store: ObjectStore, spec: RunSpec, key: Key, etag: str, size: int) -> dict[str, object]:
    output, fingerprint = spec.output_key(key), spec.fingerprint(etag, size)  # type: ignore[arg-type]
    body = key.encode()
    there = store.put("cutouts", output, body, content_type="image/png", metadata={FINGERPRINT: fingerprint})
    return {"key": key, "outcome": "done", "output": output, "fingerprint": fingerprint, "output_etag": there,
            "output_bytes": len(body)}  # fmt: skip


def skip(settings: Settings, store: ObjectStore, keys: int, requests: Counter[str]) -> dict[str, object]:
    requests.clear()
    started, used = time.perf_counter(), time.process_time()
    counts = Producer(settings, store).sweep(FROM, TO).counts()
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    assert (counts.skipped, counts.pending) == (keys, 0), counts
    return {"keys": keys, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "requests": dict(requests)}


def right(settings: Settings, keys: int) -> dict[str, object]:
    store = SyntheticStore(keys)
    make_right(settings, store, 1)
    return skip(settings, store, keys, store.requests)


class Counting(S3Store):
    """Counts what it asks."""

    requests: Counter[str]

    def list_page(self, bucket: str, prefix: str, token: str | None = None) -> Page:
        self.requests["list"] += 1
        return super().list_page(bucket, prefix, token)

    def head(self, bucket: str, key: Key) -> Head | None:
        self.requests["head"] += 1
        return super().head(bucket, key)


def real(settings: Settings, keys: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder, Seaweed(Path(folder)) as seaweed:
        session = boto3.Session(
            aws_access_key_id=seaweed.access_key, aws_secret_access_key=seaweed.secret_key, region_name="us-east-1"
        )
        client = session.client("s3", endpoint_url=seaweed.endpoint_url, config=Config(max_pool_connections=16))
        for bucket in (SOURCES, "cutouts"):
            client.create_bucket(Bucket=bucket)

        def upload(row: Listed) -> None:
            client.put_object(Bucket=SOURCES, Key=row.key, Body=b"x")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(upload, (source("in/", number) for number in range(keys))))
        there = settings.model_copy(update={"s3_endpoint_url": seaweed.endpoint_url})
        with Counting(there, pool=16, session=session) as store:
            store.requests = Counter()
            make_right(there, store, 16)
            return skip(there, store, keys, store.requests)


JOBS = {"million": million, "right": right, "real": real}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--right", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=10_000)
    parser.add_argument("--job", choices=list(JOBS))
    asked = parser.parse_args()
    if asked.job:
        with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
            settings = load_settings(redis_url=server.url, home=Path(folder), log_level="error")
            print(json.dumps(JOBS[asked.job](settings, getattr(asked, asked.job))))
        return
    answers: dict[str, object] = {}
    for job in JOBS:
        command = [sys.executable, "-m", "bench.listing", "--job", job, f"--{job}", str(getattr(asked, job))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        answers[job] = cast(dict[str, object], json.loads(done.stdout))
        print(job, answers[job], file=sys.stderr)
    caveats = " ".join((__doc__ or "").split("Caveats: ")[1].split())
    text = json.dumps({"bench": "listing", "machine": facts(), "jobs": answers, "caveats": caveats}, indent=2) + "\n"
    if (asked.million, asked.right, asked.real) == (1_000_000, 100_000, 10_000):
        RESULT.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
