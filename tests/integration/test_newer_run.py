"""A rolling upgrade in the wrong order: workers meet a run of a newer version, and lose neither it nor another."""

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import Ledger
from pipeline.runs import NewerRunError, RunSpec
from pipeline.settings import Settings
from tests.conftest import WaitUntil
from tests.processes import photo, process, put_run

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def rewrite(ledger: Ledger, spec: RunSpec, **more: object) -> None:
    """Leave in Redis what another version would have."""
    ledger.client.hset(f"mm:{{{spec.run}}}", "spec", json.dumps({**json.loads(spec.dump()), **more}))


@pytest.mark.timeout(170)
def test_a_run_of_a_newer_version_waits_for_newer_workers_and_holds_up_no_other(
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
    capfd: pytest.CaptureFixture[str],
) -> None:
    environment |= {"MATTEMILL_HELD_TIMEOUT": "2", "MATTEMILL_WAITING_TIMEOUT": "2", "MATTEMILL_LOG_FORMAT": "json"}
    said = ""

    def lines(event: str) -> list[str]:
        nonlocal said
        said += capfd.readouterr().err
        return [line for line in said.splitlines() if f'"event": "{event}"' in line]

    with process(environment, "producer.commands", "worker", "cpu", "--concurrency", "2"):
        newer = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(4)})
        # Its messages are there before the run is one of a newer version: workers meet it too, not only the feeder.
        wait_until(lambda: ledger.places(newer.run).get("waiting:matte.u2netp.320x320") == 4, 60)
        rewrite(ledger, newer, shadow="soft")
        with pytest.raises(NewerRunError):
            ledger.spec(newer.run)
        with process(environment, "producer.commands", "worker", "gpu", "--devices", "fake:1"):
            wait_until(lambda: lines("message_refused"), 90)
            plain = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(5, 9)})
            wait_until(lambda: ledger.counts(plain.run).state == "finished", 90)
            assert ledger.counts(plain.run).done == 4
            refused = lines("run_refused")
            assert refused
            assert all("upgrade this worker" in line for line in [*refused, *lines("message_refused")])
            assert "Traceback" not in said
            counts = ledger.counts(newer.run)
            assert (counts.done, counts.failed, counts.pending) == (0, 0, 4)
            rewrite(ledger, newer)  # as if newer workers had come
            wait_until(lambda: ledger.counts(newer.run).state == "finished", 90)
            counts = ledger.counts(newer.run)
            assert (counts.done, counts.failed) == (4, 0)
