"""Redis at its memory limit: producers wait, engines are not fed, workers finish, nothing is lost."""

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from bench.synthetic_store import SOURCES, SyntheticStore
from pipeline.ids import ETag, Key, RunId
from pipeline.jobs import Job
from pipeline.ledger import FEEDING_LIMIT, LISTING_LIMIT, Ledger, Listing, fill
from pipeline.manifest import read_rows, write_part
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.settings import Settings, load_settings
from producer import Producer
from tests.conftest import WaitUntil
from workers.app import make_app, publish
from workers.housekeeping import Housekeeper
from workers.local.valkey import Valkey

KEYS = 16_000


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A server of its own, whose memory fifteen thousand keys fill."""
    with Valkey(tmp_path, config={"maxmemory": "6mb"}) as server:
        yield load_settings(redis_url=server.url, home=tmp_path / "home", chunk=32)


class Workers:
    """Both stages without pixels, for what a housekeeper sends."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._jobs = deque[Job]()

    def send(self, jobs: Sequence[Job], priority: int) -> None:
        self._jobs.extend(jobs)

    def work(self) -> None:
        ledger = self._ledger
        while self._jobs:
            job = self._jobs.popleft()
            taken = ledger.take(job.run_id, job.queue, job.fed, job.item_ids)
            fed = ledger.hand_over(job.run_id, [(one, b"\1" * 4000) for one in taken])
            for one, number in zip(taken, fed, strict=True):
                assert number is not None
                for encoding in ledger.take(job.run_id, "encode", number, [one.item.id]):
                    ledger.done(encoding, {"key": one.item.key, "outcome": "done"})


def fill_up(client: redis.Redis, share: float) -> None:
    """Somebody else's data."""
    number = 0
    while fill(client) < share:
        client.set(f"other:{number}", b"x" * 20_000)
        number += 1


def entry(spec: RunSpec, key: str) -> Listing:
    item = Item(item_id(spec.output_key(Key(key))), Key(key), ETag("e"), 10, "320x320")
    return Listing("todo", item, short_hash(key))


def test_a_sweep_waits_at_the_limit_and_goes_on_when_images_are_finished(
    settings: Settings, ledger: Ledger, caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    caplog.set_level(logging.WARNING)
    store = SyntheticStore(KEYS)
    runs: list[RunId] = []
    producer = threading.Thread(
        target=lambda: runs.append(Producer(settings, store).sweep(f"s3://{SOURCES}/in/", "s3://cutouts/out/").id)
    )
    producer.start()

    def said() -> list[str]:
        return [one.getMessage() for one in caplog.records if "listing waits" in one.getMessage()]

    wait_until(said)
    (run,) = ledger.runs()
    spec, at_limit = ledger.spec(run), ledger.counts(run).listed
    assert 1000 < at_limit < KEYS
    assert LISTING_LIMIT <= fill(ledger.client) < LISTING_LIMIT + 0.05

    workers, finished, rows = Workers(ledger), list[RunId](), list[str]()

    def finish(run: RunId) -> None:  # after it the run is closed, and what it had in Redis is dropped
        rows.extend(str(row["key"]) for row in read_rows(store, ledger, spec))
        finished.append(run)

    with Housekeeper(
        ledger, workers.send, finish, settings, lambda run: void(write_part(store, ledger, spec))
    ) as keeper:
        while ledger.counts(run).state != "finished":
            assert keeper.step()
            workers.work()
            assert fill(ledger.client) < 1
    producer.join()
    assert finished == [run]
    assert runs == [run]
    counts = ledger.counts(run)
    assert (counts.listed, counts.done, counts.failed, counts.error) == (KEYS, KEYS, 0, "")
    assert len(rows) == len(set(rows)) == KEYS
    assert len(said()) == 1


def void(_: object) -> None: ...


def test_what_was_fed_is_finished_and_closed_by_a_full_redis(
    settings: Settings, ledger: Ledger, wait_until: WaitUntil
) -> None:
    spec = RunSpec(new_run_id(), "photos", "", "cutouts", "", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    ledger.list_page(spec.run, 0, [entry(spec, f"{n}.jpg") for n in range(64)])
    ledger.close_listing(spec.run, 64)
    fed = ledger.feed(spec, 32, 32)
    fill_up(ledger.client, FEEDING_LIMIT)
    workers, finished = Workers(ledger), list[RunId]()
    with Housekeeper(ledger, workers.send, finished.append, settings) as keeper:
        assert keeper.step()
        assert ledger.places(spec.run)["todo"] == 32  # engines get nothing more

        with pytest.raises(redis.OutOfMemoryError):
            fill_up(ledger.client, 2.0)
        ledger.client.delete("mm:leader")
        assert keeper.step()  # the lead can be taken by a server that takes nothing
        workers.send([Job(spec.run, [o.item.id for o in fed], [o.item.key for o in fed], fed[0].fed, fed[0].queue)], 0)
        workers.work()
        counts = ledger.counts(spec.run)
        assert (counts.done, counts.pending) == (32, 32)
        ledger.cancel(spec.run)
        wait_until(lambda: keeper.step() and ledger.counts(spec.run).state == "finished")
    assert finished == [spec.run]
    with pytest.raises(redis.OutOfMemoryError):
        ledger.create(spec.with_run(new_run_id()))


def test_a_message_that_a_full_redis_refuses_is_sent_later_and_holds_up_no_other_run(
    settings: Settings, ledger: Ledger, wait_until: WaitUntil
) -> None:
    impatient = settings.model_copy(update={"waiting_timeout": 0.2})
    ledger = Ledger(ledger.client, impatient)
    specs = [RunSpec(new_run_id(), "photos", "", "cutouts", "", "u2netp", "0" * 64, ("320x320",)) for _ in range(2)]
    for spec in specs:
        ledger.create(spec)
        ledger.list_page(spec.run, 0, [entry(spec, "a.jpg")])
        ledger.close_listing(spec.run, 1)
    first, second = specs
    (fed,) = ledger.feed(first, 1, 1)
    (taken,) = ledger.take(first.run, fed.queue, fed.fed, [fed.item.id])
    ledger.hand_over(first.run, [(taken, b"alpha")])
    ledger.cancel(second.run)
    app, finished = make_app(settings), list[RunId]()
    with Housekeeper(ledger, lambda jobs, priority: publish(app, jobs, priority), finished.append, impatient) as keeper:
        with pytest.raises(redis.OutOfMemoryError):
            fill_up(ledger.client, 2.0)

        def step() -> None:
            try:
                keeper.step()
            except Exception as error:  # noqa: BLE001 - as the supervisor does
                refused.append(error)

        refused: list[Exception] = []
        wait_until(lambda: (step(), refused and second.run in finished)[1])
        ledger.client.delete(*ledger.client.keys("other:*"))  # type: ignore[misc]

        def sent() -> bool:
            step()
            return ledger.client.llen("encode\x06\x166") > 0 and ledger.places(first.run)["waiting:encode"] == 1

        wait_until(sent)
    app.close()
