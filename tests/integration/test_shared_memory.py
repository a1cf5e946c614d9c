"""Encode children share what their parent has read, made and compiled, and take no more than they may."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import psutil
import pytest

from pipeline.errors import SetupError
from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings, load_settings
from tests.conftest import WaitUntil
from tests.housekeeping import housekeeping
from tests.processes import photo, process, put_run

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who shares what")
_LEAST = 768 << 20
_OWN_BYTES = 33 << 20
"""Of the 110 MB that a child has after some small images, measured 22 MB are its own; without care 38 to 76."""


def of(pid: int, field: str, library: str = "") -> int:
    """Bytes that a process has: of everything, or of the code of a library."""
    total, counted = 0, not library
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name:
            counted = not library or (library in line and " r-xp " in line)
        elif counted and name == field:
            total += int(value.split()[0]) << 10
    return total


@pytest.mark.timeout(150)
def test_encode_children_share_what_came_before_them(
    settings: Settings, environment: dict[str, str], bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    client = connect(settings)
    ledger = Ledger(client, settings)
    with ExitStack() as stack:
        stack.enter_context(process(environment, "workers.gpu", "fake:1"))
        cpu = stack.enter_context(process(environment, "producer.commands", "worker", "cpu", "--concurrency", "2"))
        spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(20)})
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 100)
        assert ledger.counts(spec.run).done == 20
        (parent,) = [one for one in psutil.Process(cpu.pid).children() if "workers.cpu" in one.cmdline()]
        children = parent.children()
        own = [of(child.pid, "Private_Dirty") for child in children]
        space = [child.memory_info().vms for child in children]
        compiler = of(parent.pid, "Rss", "libllvmlite")
    client.close()
    assert len(own) == 2
    assert max(own) < _OWN_BYTES
    assert max(space) < 600 << 20  # whatever the number of cores
    assert compiler < 10 << 20


def test_less_memory_than_a_child_needs_is_refused_and_the_least_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTEMILL_CHILD_MEMORY", str(_LEAST - 1))
    with pytest.raises(SetupError, match=rf"MATTEMILL_CHILD_MEMORY .* {_LEAST}\b"):
        load_settings()


@pytest.mark.timeout(150)
def test_the_least_that_a_child_may_have_suffices_for_12_megapixels(
    settings: Settings, environment: dict[str, str], bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    ok, large = cv2.imencode(".png", np.full((3000, 4000, 3), 90, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok
    client = connect(settings)
    ledger = Ledger(client, settings)
    least = environment | {"MATTEMILL_CHILD_MEMORY": str(_LEAST)}
    with ExitStack() as stack:
        for role in (("gpu", "--devices", "fake:1"), ("cpu", "--concurrency", "1")):
            stack.enter_context(process(least, "producer.commands", "worker", *role))
        spec = put_run(ledger, s3_client, bucket, {"in/large.png": large.tobytes(), "in/small.jpg": photo(0)})
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 100)
    assert ledger.counts(spec.run).done == 2
    client.close()


@pytest.mark.timeout(170)
def test_a_photo_that_needs_more_memory_than_a_child_may_take_fails_alone(
    settings: Settings, environment: dict[str, str], bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    height, width = 9000, 12_000  # 1.2 GB less the libraries' 0.55 are left for what takes 0.8
    ok, plain = cv2.imencode(".png", np.full((height, width, 3), 90, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok
    client = connect(settings)
    ledger = Ledger(client, settings)
    bounded = environment | {"MATTEMILL_CHILD_MEMORY": str(1200 << 20), "OPENBLAS_NUM_THREADS": "1"}
    with ExitStack() as stack:
        stack.enter_context(process(environment, "workers.gpu", "fake:1"))
        cpu = stack.enter_context(process(bounded, "workers.cpu", "1"))
        house = stack.enter_context(housekeeping(ledger, settings))
        spec = put_run(ledger, s3_client, bucket, {"in/0.jpg": photo(0)})
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 100)
        before = [child.pid for child in psutil.Process(cpu.pid).children()]
        bodies = {"in/large.png": plain.tobytes()} | {f"in/{n}.jpg": photo(n) for n in range(1, 7)}
        spec = put_run(ledger, s3_client, bucket, bodies)
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 100)
        assert [child.pid for child in psutil.Process(cpu.pid).children()] == before
    failed = {str(row["key"]): row["code"] for row in house if row["outcome"] == "failed"}
    assert failed == {"in/large.png": "too_large"}
    assert ledger.counts(spec.run).done == 6
    client.close()
