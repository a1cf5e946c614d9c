"""Queues that nobody serves are named, with what mends it, by `doctor` and `status`."""

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings
from tests.command_line import run
from tests.conftest import WaitUntil
from tests.processes import photo, process, put_run

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

COMMAND = ("producer.commands", "worker")
NAMED = "messages wait in matte.u2netp.320x320"
CURE = "MATTEMILL_MODEL=u2netp mattemill worker gpu"


@pytest.mark.timeout(170)
def test_a_queue_that_nobody_serves_is_named_until_a_worker_is_there(
    environment: dict[str, str], settings: Settings, bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    client = connect(settings)
    ledger = Ledger(client, settings)
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(3)})
    with process(environment, *COMMAND, "cpu", "--concurrency", "1"):
        # Another model is asked for here: the run's queue is seen all the same.
        wait_until(lambda: NAMED in run(environment | {"MATTEMILL_MODEL": "cvunet"}, "doctor").stdout, 60)
        found = json.loads(run(environment, "doctor", "--json").stdout)["checks"]
        queues = [(check["state"], check["hint"]) for check in found if check["name"] == "queues"]
        assert queues == [("ok", ""), ("bad", CURE)]
        wait_until(lambda: NAMED in run(environment, "status").stderr, 30)
        told = run(environment, "status", spec.run, "--json")
        assert json.loads(told.stdout)["pending"] == 3
        assert CURE in told.stderr
        with process(environment, *COMMAND, "gpu", "--devices", "fake:1"):
            wait_until(lambda: ledger.counts(spec.run).state == "finished", 90)
            assert run(environment, "status").stderr == ""
            found = json.loads(run(environment, "doctor", "--json").stdout)["checks"]
            assert [check["state"] for check in found if check["name"] == "queues"] == ["ok"]
    client.close()
