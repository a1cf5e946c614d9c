"""What befalls a run from outside: sources change and go, sweeps overlap, another machine cancels, watches, retries."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings
from tests.command_line import COMMAND, run
from tests.conftest import WaitUntil
from tests.e2e.test_run_commands import workers
from tests.processes import empty, photo

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PHOTOS = 40


@pytest.fixture
def bucket(s3_bucket: str, s3_client: "S3Client") -> Iterator[str]:
    for number in range(PHOTOS):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{number:02d}.jpg", Body=photo(number))
    yield s3_bucket
    empty(s3_client, s3_bucket)


@pytest.fixture
def elsewhere(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of another machine: it shares nothing but the servers."""
    return environment | {"MATTEMILL_HOME": str(tmp_path / "elsewhere")}


def status(environment: dict[str, str], run_id: str) -> dict[str, object]:
    found = json.loads(run(environment, "status", run_id, "--json").stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.timeout(400)
def test_sources_that_change_or_go_are_told_and_two_sweeps_at_once_do_no_harm(
    environment: dict[str, str], elsewhere: dict[str, str], bucket: str, s3_client: "S3Client"
) -> None:
    source, target = f"s3://{bucket}/in/", f"s3://{bucket}/out/"
    first, second = (run(where, "sweep", source, "--to", target).stdout.strip() for where in (environment, elsewhere))
    assert first != second
    s3_client.put_object(Bucket=bucket, Key="in/03.jpg", Body=photo(99))
    s3_client.delete_object(Bucket=bucket, Key="in/04.jpg")
    with workers(environment, "fake:5"):
        for id in (first, second):
            watched = run(elsewhere, "status", id, "--watch", "--json", timeout=120)
            assert watched.returncode == 1, watched.stderr
            summary = json.loads(watched.stdout)
            assert (summary["listed"], summary["done"], summary["failed"]) == (PHOTOS, PHOTOS - 2, 2)
            assert {row["key"]: row["code"] for row in summary["failures"]} == {
                "in/03.jpg": "changed_while_processing", "in/04.jpg": "not_found",
            }  # fmt: skip
        s3_client.put_object(Bucket=bucket, Key="in/04.jpg", Body=photo(4))
        again = json.loads(run(elsewhere, "retry", first, "--wait", "--json", timeout=120).stdout)
        assert (again["listed"], again["done"]) == (2, 2)  # only what failed
    made = {row["Key"] for row in s3_client.list_objects_v2(Bucket=bucket, Prefix="out/").get("Contents", [])}
    assert {f"out/{number:02d}.png" for number in range(PHOTOS)} == {key for key in made if "_mattemill" not in key}


@pytest.mark.timeout(400)
def test_cancel_from_another_machine_stops_within_seconds_and_the_table_is_exact(
    environment: dict[str, str], elsewhere: dict[str, str], bucket: str, settings: Settings, wait_until: WaitUntil
) -> None:
    command = [*COMMAND, "sweep", f"s3://{bucket}/in/", "--to", f"s3://{bucket}/out/", "--wait", "--json"]
    slow = environment | {"MATTEMILL_MAX_BATCH": "1"}
    with (
        workers(slow, "fake:2000"),
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as waiting,
    ):
        ledger = Ledger(connect(settings), settings)
        wait_until(lambda: any(ledger.counts(run).done for run in ledger.runs()), 90)
        (id,) = ledger.runs()
        cancelled, asked = run(elsewhere, "cancel", id), time.monotonic()
        assert cancelled.returncode == 0, cancelled.stderr
        assert ledger.counts(id).pending == 0  # at once
        told, _ = waiting.communicate(timeout=60)
        assert time.monotonic() - asked < 60  # its reports are written by then
        ledger.client.close()
    summary = json.loads(told)
    assert waiting.returncode == 1
    assert summary["run"] == id
    assert 0 < summary["done"] < PHOTOS
    assert summary["done"] + summary["failed"] == summary["listed"] == PHOTOS
    assert {row["code"] for row in summary["failures"]} == {"cancelled"}
    assert status(elsewhere, id)["pending"] == 0
