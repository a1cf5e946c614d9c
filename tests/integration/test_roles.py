"""`mattemill worker all`: both roles of one machine under one supervisor."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pipeline.ledger import Ledger
from tests.conftest import WaitUntil
from tests.processes import metrics, photo, process, put_run
from workers.local.ports import free_ports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

COMMAND = ("producer.commands", "worker", "all")


@pytest.mark.timeout(120)
def test_one_command_does_a_whole_run_and_shows_its_numbers_on_one_page(
    ledger: Ledger, environment: dict[str, str], bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    (port,) = free_ports(1)
    environment["MATTEMILL_METRICS_PORT"] = str(port)
    with process(environment, *COMMAND, "--devices", "fake:1", "--concurrency", "2") as worker:
        spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(5)})
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 90)
        shown = metrics(port)
        kinds = {child.cmdline()[2] for child in psutil.Process(worker.pid).children()}
        worker.terminate()
        assert worker.wait(30) == 0
    assert kinds == {"workers.gpu", "workers.cpu"}
    assert ledger.counts(spec.run).done == 5
    assert shown["mattemill_leader"] == 1
    assert shown['mattemill_stage_seconds_count{stage="fetch"}'] == 5
    assert shown['mattemill_stage_seconds_count{stage="upload"}'] == 5
    deaths = [f'mattemill_worker_deaths_total{{worker="workers.{role}"}}' for role in ("gpu", "cpu")]
    assert [shown[name] for name in deaths] == [0, 0]


@pytest.mark.timeout(120)
def test_it_ends_when_one_role_cannot_run(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *COMMAND, "--devices", "cpu", "--concurrency", "1"],
        env=environment | {"MATTEMILL_MODEL": "no-such-model", "MATTEMILL_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "There is no model named 'no-such-model'" in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    given_up = [line for line in lines if line["event"] == "worker_given_up"]
    assert [line["command"] for line in given_up] == ["workers.gpu"]
