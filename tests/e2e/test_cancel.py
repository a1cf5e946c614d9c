"""A run of hundreds of images is cancelled while it goes on: nothing more is made, and every image is accounted for."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings
from tests.command_line import refused, run
from tests.conftest import ROOT, WaitUntil
from tests.e2e.test_run_commands import workers
from tests.processes import empty, photo

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PHOTOS = 300
ENCODERS = 1
STOPPED_WITHIN = 20.0
"""Seconds from `cancel` to reports that are written; 2 to 7 were measured on two busy cores."""

WAIT = """
import json, sys
from producer import Producer
run = Producer().run(sys.argv[1])
summary = run.wait(timeout=200)
print(json.dumps({"listed": summary.listed, "done": summary.done, "codes": [row["code"] for row in run.failures()]}))
"""


@pytest.fixture
def bucket(s3_bucket: str, s3_client: "S3Client") -> Iterator[str]:
    for number in range(PHOTOS):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{number:03d}.jpg", Body=photo(number))
    s3_client.put_object(Bucket=s3_bucket, Key="later/a.jpg", Body=photo(1))
    yield s3_bucket
    empty(s3_client, s3_bucket)


@pytest.fixture
def servers_alone(environment: dict[str, str]) -> dict[str, str]:
    """The environment of another machine, which knows the servers and nothing else."""
    names = ("MATTEMILL_REDIS_URL", "MATTEMILL_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {name: environment[name] for name in (*names, "AWS_REGION")} | {"PYTHONPATH": str(ROOT)}


def outputs(s3_client: "S3Client", bucket: str) -> dict[str, str]:
    pages = s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="out/")
    found = {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}
    return {key: etag for key, etag in found.items() if "_mattemill/" not in key}


@pytest.mark.timeout(400)
def test_a_cancelled_run_makes_nothing_more_and_explains_every_image(
    environment: dict[str, str],
    servers_alone: dict[str, str],
    settings: Settings,
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:
    client = connect(settings)
    ledger = Ledger(client, settings)
    source, target = f"s3://{bucket}/in/", f"s3://{bucket}/out/"
    with workers(environment | {"MATTEMILL_MAX_BATCH": "2"}, "fake:100"):
        assert run(environment, "sweep", source, "--to", target).returncode == 0
        (id,) = ledger.runs()
        refused(run(environment, "retry", id), "is not finished", "--watch")
        with subprocess.Popen(
            [sys.executable, "-c", WAIT, id], env=servers_alone, stdout=subprocess.PIPE, text=True
        ) as elsewhere:
            wait_until(lambda: ledger.counts(id).done >= 20, 120)
            asked = time.monotonic()
            cancelled = run(environment, "cancel", id)
            assert cancelled.returncode == 0, cancelled.stderr
            told, _ = elsewhere.communicate(timeout=STOPPED_WITHIN)
            assert time.monotonic() - asked < STOPPED_WITHIN
        assert elsewhere.returncode == 0
        # Behind all that was on its way the same workers finish another image.
        later = run(environment, "enqueue", f"s3://{bucket}/later/a.jpg", "--to", f"s3://{bucket}/after/",
                    "--priority", "normal", "--wait", timeout=120)  # fmt: skip
        assert later.returncode == 0, later.stdout + later.stderr
        made = outputs(s3_client, bucket)
        again = run(environment, "enqueue", f"s3://{bucket}/later/a.jpg", "--to", f"s3://{bucket}/after/",
                    "--priority", "normal", "--force", "--wait", timeout=120)  # fmt: skip
        assert again.returncode == 0
        assert outputs(s3_client, bucket) == made  # nothing new, nothing written again

        found = json.loads(run(environment, "status", id, "--json").stdout)
        assert (found["state"], found["cancelled"], found["pending"]) == ("finished", True, 0)
        assert found["listed"] == PHOTOS == found["done"] + found["failed"]
        assert 20 <= found["done"] < PHOTOS
        # An upload that had begun is not called back: a later sweep finds it right.
        assert 0 <= len(made) - found["done"] <= ENCODERS
        seen = json.loads(told)
        assert (seen["listed"], seen["done"]) == (PHOTOS, found["done"])
        assert Counter(seen["codes"]) == {"cancelled": found["failed"]}

        place = f"out/_mattemill/{id}/manifest.jsonl"
        lines = s3_client.get_object(Bucket=bucket, Key=place)["Body"].read().decode().splitlines()
        assert Counter(json.loads(line)["key"] for line in lines) == {f"in/{n:03d}.jpg": 1 for n in range(PHOTOS)}
        assert Counter(json.loads(line)["outcome"] for line in lines) == {
            "done": found["done"], "failed": found["failed"],
        }  # fmt: skip
        proof = run(servers_alone, "verify", f"s3://{bucket}/out/_mattemill/{id}/")
        assert proof.returncode == 0, proof.stdout
        assert "the proof stands" in proof.stdout

        retried = run(servers_alone, "retry", id, "--wait", "--json", timeout=120)
        assert retried.returncode == 0, retried.stderr
        summary = json.loads(retried.stdout)
        assert (summary["listed"], summary["done"]) == (found["failed"], found["failed"])  # only what failed
        assert len(outputs(s3_client, bucket)) == PHOTOS
        refused(run(environment, "retry", summary["run"]), "Nothing failed", "mattemill failures")
    client.close()
