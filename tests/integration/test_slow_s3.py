"""S3 whose answers are a long way off: an encode child makes the next cutout meanwhile, and loses none by it."""

import subprocess
import threading
from typing import TYPE_CHECKING, Literal

import pytest

from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings
from tests.conftest import WaitUntil
from tests.housekeeping import housekeeping
from tests.processes import photo, process, put_run
from tests.proxy import sick_proxy
from workers.app import length

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@pytest.mark.timeout(170)
def test_one_child_has_four_uploads_on_their_way_keeps_them_and_waits_for_them(
    settings: Settings, environment: dict[str, str], bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    environment |= {"MATTEMILL_TOUCH_INTERVAL": "0.2"}
    client = connect(settings)
    ledger = Ledger(client, settings.model_copy(update={"held_timeout": 1, "waiting_timeout": 1}))
    answer = threading.Event()

    def far_away(method: str, path: str) -> Literal[""]:
        if method == "PUT":
            answer.wait()
        return ""

    with sick_proxy(environment["MATTEMILL_S3_ENDPOINT_URL"]) as proxy, housekeeping(ledger, settings) as rows:
        proxy.rule = far_away
        try:
            spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(4)})
            with process(environment, "workers.gpu", "fake:1"):
                wait_until(lambda: length(client, "encode") == 4, 60)
            with process(environment | {"MATTEMILL_S3_ENDPOINT_URL": proxy.url}, "workers.cpu", "1") as worker:
                wait_until(lambda: sum(method == "PUT" for method, _ in proxy.requests) == 4, 60)
                worker.terminate()
                with pytest.raises(subprocess.TimeoutExpired):
                    worker.wait(2)  # twice as long as what nobody touches stays held
                assert ledger.places(spec.run)["held"] == 4
                answer.set()
                assert worker.wait(30) == 0
            wait_until(lambda: ledger.counts(spec.run).state == "finished", 60)
        finally:
            answer.set()
    client.close()
    assert [(row["outcome"], row["attempts"]) for row in rows] == [("done", 1)] * 4
