"""Hostile messages, places that are not allowed, and where a secret must never be."""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import redis
from celery import Celery

from pipeline.errors import Code, PermanentError, SetupError
from pipeline.jobs import ENCODE_QUEUE
from pipeline.ledger import Ledger
from pipeline.runs import matte_queue
from pipeline.settings import Settings
from producer.api import Producer
from tests.command_line import COMMAND, MARK, run
from tests.conftest import WaitUntil
from tests.processes import photo, put_run
from workers.app import ENCODE, MATTE, lists, make_app

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

    from workers.local.seaweed import Seaweed
    from workers.local.valkey import Valkey

LAST_WORD = "the end of this test"
MATTE_QUEUE = matte_queue("u2netp", "320x320")
JOB = {"run": "none", "items": ["0123456789ab"], "keys": ["a.jpg"], "fed": 1, "queue": MATTE_QUEUE, "v": 1}
HOSTILE: list[object] = [
    {**JOB, "v": 2},
    {**JOB, "v": "x" * 1_000_000},
    {**JOB, "bucket": "somebody-elses"},
    {**JOB, "source_bucket": "somebody-elses", "x" * 1_000_000: 1},
    {**JOB, "keys": ["k" * 1_000_000]},
    {**JOB, "items": ["../../../etc/passwd"] * 33},
    {**JOB, "items": ["../../../etc/passwd"], "keys": ["../../../etc/passwd"]},
    {**JOB, "run": "../../etc/passwd"},
    {**JOB, "run": "x}:items"},
    {**JOB, "queue": "encode\r\nFLUSHALL"},
    {**JOB, "fed": "1"},
    {**JOB, "fed": 10**400},
    {**JOB, "run": None},
    [],
    "text",
    None,
]
PROPERTIES = {
    "delivery_tag": "1",
    "delivery_info": {"exchange": "", "routing_key": "encode"},
    "body_encoding": "base64",
}
GARBAGE: list[bytes] = [
    b"\x00\xff garbage",
    b"",
    b"null",
    b"[]",
    b"7",
    b"[" * 100_000,
    b"x" * 1_000_000,
    b'{"__type__": "uuid", "__value__": 1}',
    b'{"__type__": "decimal", "__value__": "x"}',
    *(
        json.dumps({"body": "e30=", "headers": {}, "properties": properties}).encode()
        for properties in (
            None, 1, [], {}, {**PROPERTIES, "delivery_tag": None}, {**PROPERTIES, "delivery_tag": [1]},
            {**PROPERTIES, "delivery_tag": {"a": 1}}, {**PROPERTIES, "delivery_info": None},
            {**PROPERTIES, "delivery_info": 1}, {**PROPERTIES, "body_encoding": [1]},
        )
    ),
]  # fmt: skip
"""What somebody pushes straight into a list, past Celery."""


class Logged:
    """Workers whose output is kept."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.path = folder / "workers.log"
        self._file = self.path.open("wb")
        roles = (("gpu", "--devices", "fake:5"), ("cpu", "--concurrency", "1"))
        self._children = [
            subprocess.Popen([*COMMAND, "worker", *role], env=environment, stdout=self._file, stderr=self._file)
            for role in roles
        ]

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8", errors="replace")

    def close(self) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.wait(60)
        self._file.close()


@pytest.fixture
def workers(environment: dict[str, str], tmp_path: Path) -> Iterator[Logged]:
    workers = Logged(environment | {"MATTEMILL_LOG_LEVEL": "debug"}, tmp_path)
    yield workers
    workers.close()


def send_hostile(settings: Settings, client: redis.Redis) -> None:
    app = make_app(settings)
    for queue, task in ((MATTE_QUEUE, MATTE), (ENCODE_QUEUE, ENCODE)):
        for job in HOSTILE:
            app.send_task(task, kwargs={"job": job}, queue=queue, headers={"fed": 1})
        app.send_task("os.system", args=("touch pwned",), queue=queue, headers={"fed": 1})
        app.send_task(task, kwargs={"job": JOB, "more": 1}, queue=queue, headers={"fed": 1})
        app.send_task(task, args=(1, 2, 3), queue=queue)
        app.send_task(task, kwargs={"job": JOB}, queue=queue, headers={"fed": float("inf")})
        app.send_task(task, kwargs={"job": JOB}, queue=queue, serializer="pickle", headers={"fed": 1})
        # Not even an envelope of Celery's, or one that claims to be something else.
        raw = _envelope(app, client, task)
        pickled = {**raw, "content-type": "application/x-python-serialize", "body": base64.b64encode(b"cos\n").decode()}
        odd = ({**raw, "headers": {}}, {**raw, "headers": {"task": [1]}}, {**raw, "body": "%%%"}, {**raw, "body": None})
        for envelope in (pickled, *odd, {**raw, "content-type": "x/y"}):
            client.lpush(lists(queue)[1], json.dumps(envelope))
        for name in lists(queue):
            client.lpush(name, *GARBAGE)
    app.close()


def _envelope(app: Celery, client: redis.Redis, task: str) -> dict[str, object]:
    """What Celery would push, from a queue that nobody consumes."""
    app.send_task(task, kwargs={"job": JOB}, queue="nobodys", headers={"fed": 1})
    for name in lists("nobodys"):
        if (raw := client.rpop(name)) is not None:
            return json.loads(raw)
    raise AssertionError("the message is in no list")


@pytest.mark.timeout(400)
def test_hostile_messages_are_refused_logged_and_hurt_nobody(
    settings: Settings,
    bucket: str,
    s3_client: "S3Client",
    ledger: Ledger,
    workers: Logged,
    wait_until: WaitUntil,
) -> None:
    bodies = {f"in/{number}.jpg": photo(number) for number in range(8)}
    first = put_run(ledger, s3_client, bucket, dict(list(bodies.items())[:4]))
    send_hostile(settings, ledger.client)
    wait_until(lambda: ledger.counts(first.run).state == "finished", 90)
    for text in GARBAGE:  # both workers listen to remote control, or do again: Celery subscribes anew after some of it
        wait_until(lambda text=text: ledger.client.publish("/0.celery.pidbox", text) == 2)  # type: ignore[misc]
    second = put_run(ledger, s3_client, bucket, bodies, chunk=4)
    wait_until(lambda: ledger.counts(second.run).state == "finished", 90)
    for spec, count in ((first, 4), (second, 8)):
        counts = ledger.counts(spec.run)
        assert (counts.listed, counts.done, counts.failed) == (count, count, 0)
    wait_until(lambda: not any(ledger.client.llen(name) for q in (MATTE_QUEUE, ENCODE_QUEUE) for name in lists(q)), 60)
    refused = [line for line in workers.text.splitlines() if "message_refused" in line]
    assert len(refused) >= 2 * 10 + 4 * len(GARBAGE)
    assert len(workers.text) < 1_000_000  # what is refused is not repeated
    assert "os.system" in workers.text
    assert "worker_ended" not in workers.text  # nobody died of it


def test_a_place_that_is_not_allowed_is_refused_by_the_producer(
    settings: Settings, environment: dict[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    held = settings.model_copy(
        update={"allowed_sources": f"{bucket}/in, {bucket}/logos", "allowed_targets": f"{bucket}/out/"}
    )
    producer, good = Producer(held), f"s3://{bucket}/out/a"
    assert producer.sweep(f"s3://{bucket}/in/", good).counts().listed == 0
    for source in (f"s3://{bucket}/", f"s3://{bucket}/in", f"s3://{bucket}/in-secret/", f"s3://{bucket}/in/../x/"):
        with pytest.raises(SetupError, match=r"no allowed source.*MATTEMILL_ALLOWED_SOURCES"):
            producer.sweep(source, good)
    with pytest.raises(SetupError, match="no allowed source"):
        producer.sweep(f"s3://{bucket}/in/", good, recipe="jpeg,background=secret/logo.png")
    with pytest.raises(SetupError, match="no allowed source"):
        producer.enqueue([f"s3://{bucket}/secret/a.jpg"], good)
    for target in (f"s3://{bucket}/", f"s3://{bucket}/outside/", f"s3://{bucket}/in/"):
        with pytest.raises(SetupError, match=r"no allowed target.*MATTEMILL_ALLOWED_TARGETS"):
            producer.sweep(f"s3://{bucket}/in/", target)
    with pytest.raises(SetupError, match="no allowed target"):
        producer.sweep(f"s3://{bucket}/in/", good, reports_to=f"s3://{bucket}/reports/")


@pytest.mark.timeout(400)
def test_workers_refuse_what_the_ledger_should_not_have_asked_for(
    environment: dict[str, str],
    settings: Settings,
    bucket: str,
    s3_client: "S3Client",
    ledger: Ledger,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    """Who can write to Redis must not read or write everywhere."""
    keys = {f"in/{number}.jpg": photo(number) for number in range(2)}
    environment |= {"MATTEMILL_ALLOWED_SOURCES": f"{bucket}/in", "MATTEMILL_ALLOWED_TARGETS": f"{bucket}/out"}
    good = put_run(ledger, s3_client, bucket, keys)
    foreign_source = put_run(ledger, s3_client, bucket, {"secret/a.jpg": photo(1), "other/in/b.jpg": photo(2)})
    foreign_target = put_run(ledger, s3_client, bucket, keys)
    forged = replace(foreign_target, target_prefix="elsewhere/")
    ledger.client.hset(f"mm:{{{forged.run}}}", "spec", forged.dump())
    workers = Logged(environment, tmp_path)
    try:
        for spec in (good, foreign_source, forged):
            wait_until(lambda spec=spec: ledger.counts(spec.run).state == "finished", 240)
    finally:
        workers.close()
    assert ledger.counts(good.run).done == 2
    for spec in (foreign_source, forged):
        counts = ledger.counts(spec.run)
        assert (counts.listed, counts.done, counts.failed) == (2, 0, 2)
    assert "no allowed target" in ledger.report_error(forged.run)
    rows = list(ledger.rows(forged.run))
    assert {row["code"] for row in rows} == {Code.ACCESS_DENIED}
    listed = s3_client.list_objects_v2(Bucket=bucket).get("Contents", [])
    assert not [entry["Key"] for entry in listed if entry["Key"].startswith("elsewhere/")]


def test_an_allowed_folder_is_no_prefix_of_a_name() -> None:
    from pipeline.places import Places

    places = Places.parse("photos, s3://cutouts/shoes/ ,cutouts/hats")
    for bucket, key in (("photos", ""), ("photos", "a/b"), ("cutouts", "shoes/a"), ("cutouts", "hats/")):
        assert places.allows(bucket, key)
    for bucket, key in (("cutouts", "shoes"), ("cutouts", "shoes-x/a"), ("photos2", "a"), ("photos", "a/../b")):
        assert not places.allows(bucket, key)
    assert Places.parse(" ").allows("any", "a/../b")
    with pytest.raises(PermanentError):
        places.check_item("other", "a", "source")
    with pytest.raises(ValueError, match="neither bucket"):
        Places.parse("a/../b, ../c")


@pytest.mark.timeout(400)
def test_no_secret_is_in_logs_messages_ledger_reports_or_command_lines(
    environment: dict[str, str],
    settings: Settings,
    bucket: str,
    s3_client: "S3Client",
    ledger: Ledger,
    tmp_path: Path,
    valkey: "Valkey",
    seaweed: "Seaweed",
) -> None:
    for number in range(3):
        s3_client.put_object(Bucket=bucket, Key=f"in/{number}.jpg", Body=photo(number))
    s3_client.put_object(Bucket=bucket, Key="in/none.jpg", Body=b"no picture")
    hook = "hook-s3cret-0123456789"
    file = tmp_path / "sweeps.toml"
    file.write_text(
        f'[sweeps.shoes]\nsource = "s3://{bucket}/in/"\nto = "s3://{bucket}/out/"\ncron = "0 0 1 1 *"\n'
        f'hook = "http://127.0.0.1:1/{hook}"\n'
    )
    environment |= {"MATTEMILL_SWEEPS": str(file), "MATTEMILL_LOG_LEVEL": "debug", MARK: "security"}
    password = redis.Redis.from_url(valkey.url).connection_pool.connection_kwargs["password"]
    secrets = {"S3 secret": seaweed.secret_key, "Redis password": password, "hook": hook}
    said: list[str] = []
    watching = threading.Event()

    def watch(client: redis.Redis) -> None:
        with client.monitor() as monitor:
            watching.set()
            for command in monitor.listen():
                said.append(str(command["command"]))
                if LAST_WORD in said[-1]:
                    return

    # Without a timeout of its own: a busy machine may be silent for longer than redis-py waits by default.
    with (
        redis.Redis.from_url(valkey.url, socket_timeout=None) as monitoring,
        ThreadPoolExecutor(1) as pool,
        told_when_over(ledger.client),
    ):
        watcher = pool.submit(watch, monitoring)
        assert watching.wait(20)
        workers = Logged(environment, tmp_path)
        try:
            done = run(environment, "sweeps", "run", "shoes", "--wait", "--json", timeout=240)
            ours = [p for p in psutil.process_iter(["cmdline"]) if _marked(p)]
            assert len(ours) >= 4
            lines = [" ".join(process.info["cmdline"] or []) for process in ours]
        finally:
            workers.close()
    watcher.result()  # it heard everything, to the last word
    assert json.loads(done.stdout)["done"] == 3
    for command in (("status", "--json"), ("sweeps", "list"), ("sweeps", "check"), ("doctor",)):
        ended = run(environment, *command)
        said += [ended.stdout, ended.stderr]
    places = {
        "commands": "\n".join([*said, done.stdout, done.stderr]),
        "command lines": "\n".join(lines),
        "workers' log": workers.text,
        "Redis": "\n".join(str(ledger.client.dump(key)) for key in ledger.client.keys("*")),
        "objects": "\n".join(_objects(s3_client, bucket)),
    }
    assert "mm:" in places["commands"]  # the messages and all that was written to the ledger
    assert '"hook_failed"' in places["workers' log"]
    assert "listed" in places["objects"]
    for what, secret in secrets.items():
        assert len(secret) >= 16
        coded = base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]
        for place, text in places.items():
            assert secret not in text, f"the {what} is in {place}"
            assert coded not in text, f"the {what} is in {place}, in Base64"


@contextmanager
def told_when_over(client: redis.Redis) -> Iterator[None]:
    """Let whoever listens to all commands go, whatever happened."""
    try:
        yield
    finally:
        client.echo(LAST_WORD)


def _marked(process: psutil.Process) -> bool:
    try:
        return process.environ().get(MARK) == "security"
    except (psutil.Error, OSError):
        return False


def _objects(s3_client: "S3Client", bucket: str) -> Iterator[str]:
    for entry in s3_client.list_objects_v2(Bucket=bucket)["Contents"]:
        answer = s3_client.get_object(Bucket=bucket, Key=entry["Key"])
        yield f"{entry['Key']} {answer['Metadata']} {answer['Body'].read().decode('utf-8', 'replace')}"
