"""Blame is exact: a file that kills or hangs decoders fails alone, and what is killed from outside convicts nobody."""

import signal
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest

from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings
from tests.conftest import ROOT, WaitUntil
from tests.housekeeping import housekeeping
from tests.processes import photo, process, put_run
from tests.proxy import sick_proxy
from workers.app import length

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

QUICK = {"held_timeout": 1, "waiting_timeout": 1}
SEVERE = {"MATTEMILL_MAX_DEATHS": "1"}  # the first time that an image is blamed it fails


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    client = connect(settings)
    yield Ledger(client, settings.model_copy(update=QUICK))
    client.close()


@pytest.fixture
def theirs(environment: dict[str, str]) -> dict[str, str]:
    """The environment of workers that touch what they hold often enough for impatient housekeeping."""
    return environment | {"MATTEMILL_TOUCH_INTERVAL": "0.2"}


@pytest.mark.timeout(170)
@pytest.mark.parametrize(("illness", "reason"), [("crash", "ended with SIGSEGV"), ("hang", "took more than 2 s")])
@pytest.mark.parametrize("role", ["gpu", "cpu"])
def test_a_file_that_breaks_its_decoder_three_times_fails_alone(
    role: str,
    illness: str,
    reason: str,
    ledger: Ledger,
    settings: Settings,
    theirs: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    sick = theirs | {"POISON": illness, "PYTHONPATH": f"{ROOT / 'tests/poison'}:{ROOT}"}
    if illness == "hang":
        sick |= {"MATTEMILL_LOADER_DEADLINE": "2", "MATTEMILL_ENCODE_DEADLINE": "2"}
    bodies = {f"in/{n}.jpg": photo(n) for n in range(11)} | {"in/poison.jpg": photo(1, background=255)}
    spec = put_run(ledger, s3_client, bucket, bodies, chunk=4)
    with (
        housekeeping(ledger, settings) as rows,
        process(sick if role == "gpu" else theirs, "workers.gpu", "fake:1"),
        process(sick if role == "cpu" else theirs, "workers.cpu", "2"),
    ):
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 150)
    (failed,) = [row for row in rows if row["outcome"] == "failed"]
    assert (failed["key"], failed["code"]) == ("in/poison.jpg", "attempts_exhausted")
    assert "ended 3 processes" in str(failed["reason"])
    assert reason in str(failed["reason"])
    assert Counter(row["outcome"] for row in rows) == {"done": 11, "failed": 1}
    engine = next(row["engine"] for row in rows if row["outcome"] == "done")
    # The parent of encode processes knows no more than the message of what it has lost.
    assert failed.get("engine") == (engine if role == "gpu" else None)


@pytest.mark.timeout(170)
def test_a_cpu_worker_killed_from_outside_convicts_nobody(
    ledger: Ledger,
    settings: Settings,
    theirs: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    theirs |= SEVERE
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(3)}, chunk=3)
    with sick_proxy(theirs["MATTEMILL_S3_ENDPOINT_URL"]) as proxy, housekeeping(ledger, settings):
        proxy.rule = lambda method, path: "hang"
        with process(theirs, "workers.gpu", "fake:1"):
            wait_until(lambda: length(ledger.client, "encode") == 3, 60)
        for _ in range(2):
            with process(theirs | {"MATTEMILL_S3_ENDPOINT_URL": proxy.url}, "workers.cpu", "3") as victim:
                wait_until(lambda: ledger.places(spec.run)["held"] == 3, 60)
                victim.kill()
                victim.wait()
            wait_until(lambda: ledger.places(spec.run)["held"] == 0)
        with process(theirs, "workers.cpu", "1"):
            wait_until(lambda: ledger.counts(spec.run).pending == 0, 60)
    assert (ledger.counts(spec.run).done, ledger.counts(spec.run).failed) == (3, 0)


@pytest.mark.timeout(170)
@pytest.mark.parametrize(("role", "number"), [("gpu", signal.SIGTERM), ("cpu", signal.SIGTERM), ("cpu", signal.SIGHUP)])
def test_a_child_that_is_told_to_stop_from_outside_convicts_nobody(
    role: str,
    number: signal.Signals,
    ledger: Ledger,
    settings: Settings,
    theirs: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    theirs |= SEVERE
    spec = put_run(ledger, s3_client, bucket, {"in/1.jpg": photo(1)})
    module, argument = ("workers.gpu", "fake:1") if role == "gpu" else ("workers.cpu", "1")
    child = "workers.loading" if role == "gpu" else "workers.cpu"
    with sick_proxy(theirs["MATTEMILL_S3_ENDPOINT_URL"]) as proxy, housekeeping(ledger, settings):
        proxy.rule = lambda method, path: "hang"
        if role == "cpu":
            with process(theirs, "workers.gpu", "fake:1"):
                wait_until(lambda: length(ledger.client, "encode") == 1, 60)
        with process(theirs | {"MATTEMILL_S3_ENDPOINT_URL": proxy.url}, module, argument) as worker:
            for asked in (1, 2):
                wait_until(lambda asked=asked: len(proxy.requests) == asked, 60)
                for one in psutil.Process(worker.pid).children(recursive=True):
                    if child in one.cmdline():
                        one.send_signal(number)
            wait_until(lambda: len(proxy.requests) == 3, 60)
            proxy.rule = lambda method, path: ""
            worker.kill()
            worker.wait()
        with process(theirs, "workers.gpu", "fake:1"), process(theirs, "workers.cpu", "1"):
            wait_until(lambda: ledger.counts(spec.run).pending == 0, 60)
    assert (ledger.counts(spec.run).done, ledger.counts(spec.run).failed) == (1, 0)
