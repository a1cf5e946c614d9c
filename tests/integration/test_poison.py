"""Blame is exact: a file that kills or hangs decoders fails alone, and what is killed from outside convicts nobody."""

import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psutil
import pytest

from pipeline.ledger import Ledger, connect
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from tests.conftest import ROOT, WaitUntil
from tests.housekeeping import housekeeping
from tests.processes import photo, process, put_run
from tests.proxy import SickProxy, sick_proxy
from workers.app import length

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

QUICK = {"held_timeout": 1, "waiting_timeout": 1}
SEVERE = {"MATTEMILL_MAX_DEATHS": "1"}  # the first time that an image is blamed it fails
CHILDREN = {"gpu": "workers.loading", "cpu": "workers.cpu"}


@dataclass
class Site:
    """Impatient housekeeping, and workers that touch what they hold often enough for it."""

    ledger: Ledger
    settings: Settings
    environment: Mapping[str, str]
    bucket: str
    s3: "S3Client"
    wait_until: WaitUntil

    def put(self, bodies: Mapping[str, bytes], chunk: int = 0) -> RunSpec:
        return put_run(self.ledger, self.s3, self.bucket, bodies, chunk=chunk)

    def housekeeping(self) -> AbstractContextManager[list[dict[str, object]]]:
        return housekeeping(self.ledger, self.settings)

    def worker(
        self, role: str, variables: Mapping[str, str] | None = None, *, children: int = 1
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        argument = "fake:1" if role == "gpu" else str(children)
        return process({**self.environment, **(variables or {})}, f"workers.{role}", argument)

    def make_mattes(self, count: int) -> None:
        """Let a GPU worker do its part, and stop it."""
        with self.worker("gpu"):
            self.wait_until(lambda: length(self.ledger.client, "encode") == count, 60)

    def wait_for_the_end(self, spec: RunSpec, seconds: float = 60) -> None:
        self.wait_until(lambda: self.ledger.counts(spec.run).state == "finished", seconds)

    @contextmanager
    def proxy(self) -> Iterator[tuple[SickProxy, dict[str, str]]]:
        """A proxy before S3, and the variables that send a worker through it."""
        with sick_proxy(self.environment["MATTEMILL_S3_ENDPOINT_URL"]) as proxy:
            yield proxy, {"MATTEMILL_S3_ENDPOINT_URL": proxy.url}


@pytest.fixture
def site(
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
) -> Iterator[Site]:
    client = connect(settings)
    ledger = Ledger(client, settings.model_copy(update=QUICK))
    yield Site(ledger, settings, environment | {"MATTEMILL_TOUCH_INTERVAL": "0.2"}, bucket, s3_client, wait_until)
    client.close()


def children(worker: subprocess.Popen[bytes], role: str) -> list[psutil.Process]:
    return [one for one in psutil.Process(worker.pid).children(recursive=True) if CHILDREN[role] in one.cmdline()]


def outcomes(rows: list[dict[str, object]]) -> Counter[object]:
    return Counter(row["outcome"] for row in rows)


@pytest.mark.timeout(170)
@pytest.mark.parametrize(("illness", "reason"), [("crash", "ended with SIGSEGV"), ("hang", "took more than 2 s")])
@pytest.mark.parametrize("role", ["gpu", "cpu"])
def test_a_file_that_breaks_its_decoder_three_times_fails_alone(
    role: str, illness: str, reason: str, site: Site
) -> None:
    sick = {"POISON": illness, "PYTHONPATH": f"{ROOT / 'tests/poison'}:{ROOT}"}
    if illness == "hang":
        sick |= {"MATTEMILL_LOADER_DEADLINE": "2", "MATTEMILL_ENCODE_DEADLINE": "2"}
    spec = site.put({f"in/{n}.jpg": photo(n) for n in range(11)} | {"in/poison.jpg": photo(1, background=255)}, chunk=4)
    with (
        site.housekeeping() as rows,
        site.worker("gpu", sick if role == "gpu" else {}),
        site.worker("cpu", sick if role == "cpu" else {}, children=2),
    ):
        site.wait_for_the_end(spec, 150)
    (failed,) = [row for row in rows if row["outcome"] == "failed"]
    assert (failed["key"], failed["code"]) == ("in/poison.jpg", "attempts_exhausted")
    assert "ended 3 processes" in str(failed["reason"])
    assert reason in str(failed["reason"])
    assert outcomes(rows) == {"done": 11, "failed": 1}
    engine = next(row["engine"] for row in rows if row["outcome"] == "done")
    # The parent of encode processes knows no more than the message of what it has lost.
    assert failed.get("engine") == (engine if role == "gpu" else None)


@pytest.mark.timeout(170)
def test_a_cpu_worker_killed_from_outside_convicts_nobody(site: Site) -> None:
    spec = site.put({f"in/{n}.jpg": photo(n) for n in range(3)}, chunk=3)
    with site.proxy() as (proxy, through), site.housekeeping() as rows:
        proxy.rule = lambda method, path: "hang"
        site.make_mattes(3)
        for _ in range(2):
            with site.worker("cpu", through | SEVERE, children=3) as victim:
                site.wait_until(lambda: site.ledger.places(spec.run)["held"] == 3, 60)
                victim.kill()
                victim.wait()
            site.wait_until(lambda: site.ledger.places(spec.run)["held"] == 0)
        with site.worker("cpu", SEVERE):
            site.wait_for_the_end(spec)
    assert outcomes(rows) == {"done": 3}


@pytest.mark.timeout(170)
@pytest.mark.parametrize(("role", "number"), [("gpu", signal.SIGTERM), ("cpu", signal.SIGTERM), ("cpu", signal.SIGHUP)])
def test_a_child_that_is_told_to_stop_from_outside_convicts_nobody(
    role: str, number: signal.Signals, site: Site
) -> None:
    spec = site.put({"in/1.jpg": photo(1)})
    with site.proxy() as (proxy, through), site.housekeeping() as rows:
        proxy.rule = lambda method, path: "hang"
        if role == "cpu":
            site.make_mattes(1)
        with site.worker(role, through | SEVERE) as worker:
            for asked in (1, 2):
                site.wait_until(lambda asked=asked: len(proxy.requests) == asked, 60)
                for child in children(worker, role):
                    child.send_signal(number)
            site.wait_until(lambda: len(proxy.requests) == 3, 60)
            proxy.rule = lambda method, path: ""
            worker.kill()
            worker.wait()
        with site.worker("gpu", SEVERE), site.worker("cpu", SEVERE):
            site.wait_for_the_end(spec)
    assert outcomes(rows) == {"done": 1}


@pytest.mark.timeout(170)
def test_the_image_of_an_encode_child_that_is_killed_once_is_made_by_another(site: Site) -> None:
    spec = site.put({f"in/{n}.jpg": photo(n) for n in range(6)})
    go_on = threading.Event()

    def wait(method: str, path: str) -> Literal[""]:
        go_on.wait()
        return ""

    with site.proxy() as (proxy, through), site.housekeeping() as rows:
        proxy.rule = wait
        site.make_mattes(6)
        with site.worker("cpu", through, children=3) as worker:
            site.wait_until(lambda: len(proxy.requests) == 3, 60)
            children(worker, "cpu")[0].kill()
            site.wait_until(lambda: len(proxy.requests) == 4, 60)
            go_on.set()
            site.wait_for_the_end(spec)
    assert outcomes(rows) == {"done": 6}
    assert sorted(row["attempts"] for row in rows) == [1, 1, 1, 1, 1, 2]


@pytest.mark.timeout(170)
def test_an_image_whose_encode_child_is_killed_three_times_fails_alone(site: Site) -> None:
    """Nobody can tell who kills a single child: the kernel does when an image takes too much memory."""
    spec = site.put({f"in/{n}.jpg": photo(n) for n in range(4)})
    with site.proxy() as (proxy, through), site.housekeeping() as rows:
        proxy.rule = lambda method, path: "hang" if "in/2.jpg" in path else ""
        site.make_mattes(4)
        with site.worker("cpu", through) as worker:
            for asked in (1, 2, 3):
                site.wait_until(lambda asked=asked: sum("in/2.jpg" in path for _, path in proxy.requests) == asked, 60)
                (child,) = children(worker, "cpu")
                child.kill()
            site.wait_for_the_end(spec)
    assert outcomes(rows) == {"done": 3, "failed": 1}
    (failed,) = [row for row in rows if row["outcome"] == "failed"]
    assert (failed["key"], failed["code"]) == ("in/2.jpg", "attempts_exhausted")
    assert "ended with SIGKILL" in str(failed["reason"])
