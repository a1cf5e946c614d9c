"""A producer that is killed while it lists: the same sweep goes on with its run, and nothing is doubled."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import SetupError
from pipeline.ids import RunId
from pipeline.ledger import Ledger
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from producer import Producer, Selection
from tests.command_line import COMMAND, run
from tests.conftest import WaitUntil
from tests.processes import empty
from tests.proxy import SickProxy, sick_proxy

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

KEYS = 2300


@pytest.fixture
def photos(s3_bucket: str, s3_client: "S3Client") -> Iterator[str]:
    for n in range(KEYS):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{n:04d}.jpg", Body=b"x")
    yield s3_bucket
    empty(s3_client, s3_bucket)


@pytest.fixture
def proxy(settings: Settings) -> Iterator[SickProxy]:
    with sick_proxy(settings.s3_endpoint_url or "") as proxy:
        yield proxy


@contextmanager
def stuck_sweep(
    environment: dict[str, str], proxy: SickProxy, ledger: Ledger, photos: str, wait_until: WaitUntil
) -> Iterator[tuple[RunId, "subprocess.Popen[bytes]"]]:
    """`mattemill sweep` that has listed its first thousand keys and hangs on the next page."""
    proxy.rule = lambda method, path: "hang" if "continuation-token" in path and "prefix=in" in path else ""
    command = [*COMMAND, "sweep", f"s3://{photos}/in/", "--to", f"s3://{photos}/out/"]
    child = subprocess.Popen(command, env=environment | {"MATTEMILL_S3_ENDPOINT_URL": proxy.url})
    try:
        wait_until(lambda: ledger.runs() and ledger.counts(ledger.runs()[0]).listed == 1000, 60)
        yield ledger.runs()[0], child
    finally:
        child.kill()
        child.wait()


@pytest.mark.timeout(400)
def test_the_same_sweep_goes_on_with_a_killed_listing(
    environment: dict[str, str],
    settings: Settings,
    proxy: SickProxy,
    ledger: Ledger,
    photos: str,
    wait_until: WaitUntil,
    s3_client: "S3Client",
) -> None:
    with stuck_sweep(environment, proxy, ledger, photos, wait_until) as (first, child):
        child.send_signal(signal.SIGKILL)
        child.wait()
        # Work has begun, and the sources have changed: keys have gone, and come.
        assert len(ledger.feed(ledger.spec(first), 100, 100)) == 100
        s3_client.delete_object(Bucket=photos, Key="in/0500.jpg")
        s3_client.put_object(Bucket=photos, Key="in/0000-new.jpg", Body=b"x")
        again = run(environment, "sweep", f"s3://{photos}/in/", "--to", f"s3://{photos}/out/")
    assert (again.returncode, again.stdout.strip()) == (0, first), again.stderr
    assert "going on with it" in again.stderr
    counts = ledger.counts(first)
    assert (counts.listed, counts.pending, counts.state, counts.error) == (KEYS + 1, KEYS + 1, "listed", "")
    assert ledger.runs() == [first]
    places = ledger.places(first)
    assert (places["todo"], places["waiting:matte.u2netp.320x320"]) == (KEYS - 99, 100)


@pytest.mark.timeout(400)
def test_other_sweeps_and_living_listings_are_left_alone(
    environment: dict[str, str],
    settings: Settings,
    proxy: SickProxy,
    ledger: Ledger,
    photos: str,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    source, target = f"s3://{photos}/in/", f"s3://{photos}/out/"
    with (
        S3Store(settings) as store,
        stuck_sweep(environment, proxy, ledger, photos, wait_until) as (first, child),
    ):
        producer = Producer(settings, store)
        assert producer.sweep(source, target, recipe="alpha").id != first
        assert producer.sweep(source, target, selection=Selection(exclude=("*9.jpg",))).id != first
        second = producer.sweep(source, target)  # the first lives: two sweeps overlap
        assert second.id != first
        assert (second.counts().listed, ledger.counts(first).state) == (KEYS, "listing")
        # The first is frozen, taken for dead, and comes back: of two that list one run, one ends.
        child.send_signal(signal.SIGSTOP)
        third = producer.sweep(source, target)
        assert (third.id, third.counts().listed) == (first, KEYS)
        proxy.rule = lambda method, path: ""
        child.send_signal(signal.SIGCONT)
        assert child.wait(60) == 2
    assert (ledger.counts(first).listed, ledger.counts(first).error) == (KEYS, "")


def test_a_listing_that_is_slow_is_not_given_up_and_a_dead_one_is(
    environment: dict[str, str],
    settings: Settings,
    ledger: Ledger,
    photos: str,
    proxy: SickProxy,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    impatient = settings.model_copy(update={"listing_timeout": 1.0, "s3_endpoint_url": proxy.url})
    slow, housekeeping = threading.Event(), Ledger(ledger.client, impatient)
    paused = threading.Event()

    def rule(method: str, path: str) -> "str":
        if "continuation-token" in path and "prefix=in" in path:
            paused.set()
            slow.wait(30)
        return ""

    proxy.rule = rule  # type: ignore[assignment]
    with S3Store(impatient) as store:
        listing = threading.Thread(
            target=lambda: Producer(impatient, store).sweep(f"s3://{photos}/in/", f"s3://{photos}/out/")
        )
        listing.start()
        assert paused.wait(30)
        (run_id,) = ledger.runs()
        begun = ledger.counts(run_id)
        wait_until(lambda: ledger.counts(run_id).now - begun.now > 2.5)
        assert not housekeeping.abandon_listing(run_id)
        assert ledger.counts(run_id).moved > begun.moved  # who watches from elsewhere is not told of a stall
        slow.set()
        listing.join()
    assert (ledger.counts(run_id).listed, ledger.counts(run_id).error) == (KEYS, "")
    dead = ledger.spec(run_id).with_run(RunId("20261124-000000-dead00"))
    ledger.create(dead)
    wait_until(lambda: housekeeping.abandon_listing(dead.run))
    assert ledger.adopt_listing(dead.run, 0) is None
    with pytest.raises(SetupError, match="it has ended"):
        ledger.list_page(dead.run, 0, [])
