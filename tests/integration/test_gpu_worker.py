"""The life of a GPU worker: sick engines, poison, backpressure, a stop in the middle."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from pipeline.jobs import Job
from pipeline.ledger import Ledger
from pipeline.settings import Settings
from tests.conftest import ROOT, WaitUntil
from tests.housekeeping import housekeeping
from tests.processes import photo, process, put_run
from tests.proxy import sick_proxy
from workers.app import length, lists, make_app

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

MATTE = "matte.u2netp.320x320"


@pytest.mark.timeout(150)
@pytest.mark.parametrize("illness", ["lost", "segv", "stuck", "error"])
def test_the_image_that_breaks_the_engine_fails_alone(
    illness: str,
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    environment |= {"MATTEMILL_ENGINE_DEADLINE": "0.5", "MATTEMILL_MAX_TRIES": "2", "MATTEMILL_MAX_DEATHS": "2"}
    bodies = {f"in/{n}.jpg": photo(n) for n in range(11)} | {"in/poison.jpg": photo(1, background=255)}
    spec = put_run(ledger, s3_client, bucket, bodies, chunk=4)
    with (
        housekeeping(ledger, settings) as rows,
        process(environment, "tests.sick_worker", illness),
        process(environment, "workers.cpu", "1"),
    ):
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 120)
    (failed,) = [row for row in rows if row["outcome"] == "failed"]
    code = "engine_error" if illness == "error" else "attempts_exhausted"
    assert (failed["key"], failed["code"], failed["engine"]) == ("in/poison.jpg", code, rows[0]["engine"])
    # What a process took with it nobody knows.
    assert list(cast(dict[str, float], failed.get("ms", {}))) == (["fetch", "decode"] if illness == "error" else [])
    assert Counter(row["outcome"] for row in rows) == {"done": 11, "failed": 1}


@pytest.mark.timeout(120)
def test_a_worker_killed_from_outside_again_and_again_convicts_nobody(
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    environment["MATTEMILL_TOUCH_INTERVAL"] = "0.3"
    quick = settings.model_copy(update={"held_timeout": 1, "waiting_timeout": 1})
    impatient = Ledger(ledger.client, quick)
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(3)}, chunk=3)
    with housekeeping(impatient, quick):
        for _ in range(4):
            with process(environment, "workers.gpu", "fake:1500") as worker:
                wait_until(lambda: ledger.places(spec.run)["held"] == 3, 60)
                worker.kill()
                worker.wait()
            wait_until(lambda: ledger.places(spec.run)["held"] == 0)
        with process(environment, "workers.gpu", "fake:1"), process(environment, "workers.cpu", "1"):
            wait_until(lambda: ledger.counts(spec.run).pending == 0, 60)
    assert ledger.counts(spec.run).done == 3


def finish(ledger: Ledger, count: int) -> None:
    """Work off messages of the encode queue as if their cutouts were made."""
    for _ in range(count):
        names = [name.encode() for name in lists("encode")]
        (raw,) = [raw for name in names if (raw := ledger.client.rpop(name)) is not None][:1]
        _, arguments, _ = json.loads(base64.b64decode(json.loads(cast(bytes, raw))["body"]))
        job = Job.parse(arguments["job"])
        for taken in ledger.take(job.run_id, "encode", job.fed, job.item_ids):
            ledger.done(taken, {"key": taken.item.key, "outcome": "done"})


@pytest.mark.timeout(170)
@pytest.mark.parametrize("chunk", [1, 32])
def test_it_stops_pulling_while_encoding_is_behind_and_goes_on_after(
    chunk: int,
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    images, mark, slots = 200, 20, 8
    environment |= {"MATTEMILL_ENCODE_MARK": str(mark), "MATTEMILL_LOADER_SLOTS": str(slots)}
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(images)}, chunk=chunk)
    seen: list[int] = []

    def still() -> bool:
        seen.append(length(ledger.client, "encode"))
        return seen[-1] > 0 and len(seen) > 75 and len(set(seen[-75:])) == 1  # 1.5 s without a change

    with housekeeping(ledger, settings), process(environment, "workers.gpu", "fake:1"):
        wait_until(still, 90)
        in_flight = 2 * slots - 1 + chunk  # with one less than it may hold it pulls another message
        assert mark <= max(seen) <= mark + in_flight
        messages = length(ledger.client, MATTE)
        assert messages > 0
        assert ledger.places(spec.run)["held"] == 0  # it waits in the queue: nobody's hands, no visibility time
        assert ledger.client.hlen("unacked") == 0
        finish(ledger, seen[-1] - mark // 2 - 1)
        seen.clear()
        wait_until(still)
        assert (seen[-1], length(ledger.client, MATTE)) == (mark // 2 + 1, messages)  # not yet half gone
        finish(ledger, 1)
        wait_until(lambda: length(ledger.client, MATTE) < messages)
        with process(environment, "workers.cpu", "2"):
            wait_until(lambda: ledger.counts(spec.run).pending == 0, 90)
    assert ledger.counts(spec.run).done == images


@pytest.mark.timeout(90)
def test_a_message_is_in_hand_from_the_moment_that_it_is_pulled(
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    environment |= {"POISON": "late", "PYTHONPATH": f"{ROOT / 'tests/poison'}:{ROOT}", "MATTEMILL_LOADER_SLOTS": "8"}
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(64)}, chunk=4)
    seen: list[int] = []

    def still() -> bool:
        seen.append(ledger.client.hlen("unacked"))
        return seen[-1] > 0 and len(seen) > 75 and len(set(seen[-75:])) == 1

    with housekeeping(ledger, settings), process(environment, "workers.gpu", "fake:1") as worker:
        wait_until(still, 60)
        assert ledger.places(spec.run)["held"] == 0  # no thread has begun
        assert seen[-1] * 4 == 2 * 8
        worker.kill()


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "names", ["SIGTERM", "SIGTERM SIGTERM", "SIGQUIT", "SIGQUIT SIGQUIT", "SIGINT SIGINT", "SIGTERM SIGQUIT"]
)
def test_a_stop_finishes_what_is_in_hand_and_gives_the_rest_back(
    names: str,
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(60)}, chunk=2)
    with housekeeping(ledger, settings), process(environment, "workers.gpu", "fake:300") as worker:
        wait_until(lambda: length(ledger.client, "encode") >= 1, 60)
        for name in names.split():
            os.kill(worker.pid, getattr(signal, name))
        assert worker.wait(45) == 0
        places = ledger.places(spec.run)
        assert places["held"] == 0
        assert sum(places.values()) == 60
        assert ledger.counts(spec.run).failed == 0


@pytest.mark.timeout(90)
def test_flower_is_told_of_every_task_also_of_the_last_before_a_stop(
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(30)})
    told: dict[str, set[str]] = {}

    def tell(event: dict[str, str]) -> None:
        told.setdefault(event["type"], set()).add(event.get("uuid", ""))

    app = make_app(settings)
    with (
        app.connection_for_read() as connection,
        app.events.Receiver(connection, handlers={"*": tell}).consumer_context() as (hearing, _, _),
        housekeeping(ledger, settings),
    ):

        def heard(event: str) -> bool:
            with suppress(TimeoutError):
                hearing.drain_events(timeout=0.2)
            return event in told

        with process(environment, "workers.gpu", "fake:300") as worker:
            wait_until(lambda: heard("task-succeeded"), 60)
            worker.terminate()
            assert worker.wait(45) == 0
        wait_until(lambda: heard("worker-offline"), 20)
    app.close()
    assert told["task-started"]
    assert told["task-started"] == told["task-succeeded"]


@pytest.mark.timeout(170)
@pytest.mark.parametrize(("grace", "names"), [(600, ["SIGTERM", "SIGTERM"]), (600, ["SIGQUIT"]), (4, ["SIGTERM"])])
@pytest.mark.parametrize("role", ["gpu", "cpu"])
def test_what_is_not_ended_in_time_goes_back_and_the_worker_leaves_well(
    role: str,
    grace: int,
    names: list[str],
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
    tmp_path: Path,
) -> None:
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(3)}, chunk=3)
    words = ["gpu", "--devices", "fake:1"] if role == "gpu" else ["cpu", "--concurrency", "2"]
    with ExitStack() as stack:
        proxy = stack.enter_context(sick_proxy(environment["MATTEMILL_S3_ENDPOINT_URL"]))
        proxy.rule = lambda method, path: "hang"
        sick = environment | {"MATTEMILL_S3_ENDPOINT_URL": proxy.url, "MATTEMILL_GRACE": str(grace)}
        if role == "cpu":
            with housekeeping(ledger, settings), process(environment, "workers.gpu", "fake:1"):
                wait_until(lambda: length(ledger.client, "encode") == 3, 60)
        else:
            stack.enter_context(housekeeping(ledger, settings))
        log = stack.enter_context((tmp_path / "log").open("w+"))
        command = [sys.executable, "-m", "producer.commands", "worker", *words]
        worker = subprocess.Popen(command, env=sick, stderr=log)
        stack.callback(worker.wait)
        stack.callback(worker.kill)
        wait_until(lambda: ledger.places(spec.run)["held"] > 0 and proxy.requests, 60)
        for name in names:
            worker.send_signal(getattr(signal, name))
            wait_until(lambda: "worker_stopping" in (tmp_path / "log").read_text())  # two that come at once are one
        assert worker.wait(60) == 0
        places = ledger.places(spec.run)
        said = (tmp_path / "log").read_text()
    assert places["held"] == 0
    assert sum(places.values()) == 3
    assert ledger.counts(spec.run).retried == 0
    assert said.count("left_unfinished") == 1, said
