"""Two that both believe to lead, over a whole run with real workers: nothing is lost, doubled or counted wrongly."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import workers.housekeeping
from pipeline.ids import RunId
from pipeline.jobs import ENCODE_QUEUE
from pipeline.ledger import Ledger, connect
from pipeline.manifest import read_manifest, write_part
from pipeline.runs import matte_queue
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from producer.verify import verify
from tests.conftest import WaitUntil
from tests.processes import empty, photo, process, put_run
from workers.app import lists, make_app, publish
from workers.finisher import write_reports
from workers.housekeeping import Housekeeper
from workers.metrics import Metrics

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

IMAGES = 120


class Counts(Metrics):
    """Counts what a leader does, where a test can read it."""

    def __init__(self) -> None:
        super().__init__()
        self.did = Counter[str]()

    def kept_house(self, what: str, times: int = 1) -> None:
        self.did[what] += times


@contextmanager
def leader(settings: Settings, store: S3Store) -> Iterator[Counter[str]]:
    """Keep house with the real reports; gives what it did."""
    app, client, stop, counts = make_app(settings), connect(settings), threading.Event(), Counts()
    ledger = Ledger(client, settings)
    failed: list[BaseException] = []

    def finish(run: RunId) -> None:
        write_reports(run, settings, ledger, store)

    def part(run: RunId) -> None:
        write_part(store, ledger, ledger.spec(run))

    with Housekeeper(
        ledger, lambda jobs, priority: publish(app, jobs, priority), finish, settings, part, counts
    ) as keeper:

        def lead() -> None:
            try:
                while not stop.is_set():
                    assert keeper.step()
                    keeper.wait(0.1)
            except BaseException as error:
                failed.append(error)
                raise

        thread = threading.Thread(target=lead)
        thread.start()
        try:
            yield counts.did
        finally:
            stop.set()
            thread.join()
    app.close()
    client.close()
    assert failed == []


@pytest.mark.timeout(240)
def test_a_whole_run_with_two_leaders(
    settings: Settings, environment: dict[str, str], s3_bucket: str, s3_client: "S3Client", wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(workers.housekeeping, "_RENEW", "return 1")  # whoever asks leads
    monkeypatch.setattr(workers.housekeeping, "PART_ROWS", 10)
    monkeypatch.setattr(workers.housekeeping, "_RECLAIM_SECONDS", 0.3)
    quick = settings.model_copy(update={"queue_mark": 16, "waiting_timeout": 2.0})
    client = connect(quick)
    ledger = Ledger(client, quick)
    spec = put_run(ledger, s3_client, s3_bucket, {f"in/{n:03d} 产品.jpg": photo(n) for n in range(IMAGES)}, chunk=1)
    queues = (matte_queue("u2netp", "320x320"), ENCODE_QUEUE)
    with (
        S3Store(quick) as store,
        leader(quick, store) as one,
        leader(quick, store) as other,
        process(environment, "workers.gpu", "fake:20"),
        process(environment, "workers.cpu", "2"),
    ):
        wait_until(lambda: ledger.counts(spec.run).finished >= IMAGES // 3, 120)
        # Messages are lost: both leaders feed again.
        wait_until(lambda: sum(client.delete(*lists(queue)) for queue in queues), 60)
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 120)
        counts = ledger.counts(spec.run)
        assert (counts.listed, counts.done, counts.failed, counts.pending) == (IMAGES, IMAGES, 0, 0)
        assert ledger.report_error(spec.run) == ""
        assert one["fed"] + other["fed"] == IMAGES + counts.retried  # none was fed by both
        assert min(one["fed"], other["fed"]) > 0, (one, other)
        assert counts.retried == one["reclaimed"] + other["reclaimed"] > 0
        lines = Counter(str(row["key"]) for row in read_manifest(store, spec.reports))
        assert len(lines) == sum(lines.values()) == IMAGES
        verdict = verify(store, spec.reports)
        assert (verdict.done, verdict.wrong, verdict.newer) == (IMAGES, (), 0)
    empty(s3_client, s3_bucket)
    client.close()
