"""Real workers, real Redis, real S3: a run from listing to its last row."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import boto3
import cv2
import numpy as np
import pytest
import simplejpeg

from pipeline.ids import Key, RunId
from pipeline.ledger import Ledger, Listing, connect
from pipeline.runs import FINGERPRINT, Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.settings import Settings
from tests.conftest import WaitUntil
from workers.app import make_app, publish
from workers.housekeeping import Housekeeper


def photo(number: int) -> bytes:
    pixels = np.full((90, 120, 3), 20, np.uint8)
    pixels[20:70, 30:90] = (200, 10 * number, 40)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=95))


@contextmanager
def process(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-m", *arguments], env=environment)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def housekeeping(ledger: Ledger, settings: Settings, finished: dict[RunId, list[dict[str, object]]]) -> Iterator[None]:
    app = make_app(settings)
    stop = threading.Event()

    def finish(run: RunId) -> None:
        assert run not in finished
        finished[run] = list(ledger.rows(run))

    keeper = Housekeeper(ledger, lambda jobs, priority: publish(app, jobs, priority), finish, settings)

    def lead() -> None:
        while not stop.is_set():
            keeper.step()
            keeper.wait(0.1)

    thread = threading.Thread(target=lead)
    with keeper:
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
    app.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kill", [False, True], ids=["quiet", "both workers killed"])
def test_every_image_is_done_or_says_why_not(
    settings: Settings,
    environment: dict[str, str],
    s3_bucket: str,
    aws_session: boto3.Session,
    wait_until: WaitUntil,
    kill: bool,
) -> None:
    quick = settings.model_copy(update={"held_timeout": 3, "waiting_timeout": 3})
    environment |= {"MATTEMILL_HELD_TIMEOUT": "3", "MATTEMILL_TOUCH_INTERVAL": "1"}
    s3 = aws_session.client("s3", endpoint_url=settings.s3_endpoint_url)
    good = [f"in/{n} 产品.jpg" for n in range(20)]
    bodies = {key: photo(n) for n, key in enumerate(good)}
    bodies |= {"in/cut.jpg": photo(1)[:-300], "in/notes.jpg": b"just text, no picture\n" * 9}
    client = connect(settings)
    ledger = Ledger(client, quick)
    spec = RunSpec(new_run_id(), s3_bucket, "in/", s3_bucket, "out/", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    entries = []
    for key, body in bodies.items():
        etag = s3.put_object(Bucket=s3_bucket, Key=key, Body=body)["ETag"].strip('"')
        item = Item(item_id(spec.output_key(Key(key))), Key(key), etag, len(body), "320x320")
        entries.append(Listing("todo", item, short_hash(key)))
    gpu, cpu = ("workers.gpu", "fake:20"), ("workers.cpu", "2")
    finished: dict[RunId, list[dict[str, object]]] = {}
    with housekeeping(ledger, quick, finished):
        if kill:
            with process(environment, *gpu) as one, process(environment, *cpu) as other:
                ledger.list_page(spec.run, 0, entries)
                ledger.close_listing(spec.run, len(entries))
                wait_until(lambda: ledger.counts(spec.run).finished >= 1, 40)
                one.kill()
                other.kill()
        else:
            ledger.list_page(spec.run, 0, entries)
            ledger.close_listing(spec.run, len(entries))
        with process(environment, *gpu), process(environment, *cpu):
            wait_until(lambda: ledger.counts(spec.run).state == "finished", 60)
    counts = ledger.counts(spec.run)
    assert (counts.listed, counts.done, counts.failed, counts.pending) == (22, 20, 2, 0)
    rows = {row["key"]: row for row in finished[spec.run]}
    assert len(rows) == 22
    assert rows["in/cut.jpg"]["code"] == "truncated"
    assert rows["in/notes.jpg"]["code"] == "not_an_image"
    for row in (rows["in/cut.jpg"], rows["in/notes.jpg"]):
        assert list(cast(dict[str, float], row["ms"])) == ["fetch", "decode"]
        assert row["engine"] == rows[good[0]]["engine"]
    for key in good:
        answer = s3.get_object(Bucket=s3_bucket, Key=spec.output_key(Key(key)))
        picture = cv2.imdecode(np.frombuffer(answer["Body"].read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert picture.shape == (90, 120, 4)
        assert picture[45, 60, 3] > picture[5, 5, 3]  # the subject is lighter than its surroundings: not mixed up
        assert answer["Metadata"][FINGERPRINT]
    for entry in s3.list_objects_v2(Bucket=s3_bucket)["Contents"]:
        s3.delete_object(Bucket=s3_bucket, Key=entry["Key"])
    s3.close()
    client.close()
