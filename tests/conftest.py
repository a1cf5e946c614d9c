"""Real servers and settings for every test that asks for them; a test that does not, starts nothing."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import boto3
import hypothesis
import pytest
import redis
from botocore.config import Config

from pipeline.ledger import Ledger, connect
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from tests.processes import empty
from workers.local.seaweed import Seaweed
from workers.local.valkey import Valkey

# A busy machine may take a second for an example of a millisecond; no test of ours is one of time.
hypothesis.settings.register_profile("mattemill", deadline=None)
hypothesis.settings.load_profile("mattemill")

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ROOT = Path(__file__).parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: what tests start would inherit that and be deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class WaitUntil(Protocol):
    def __call__(self, predicate: Callable[[], object], timeout: float = 20) -> None: ...


def _wait_until(predicate: Callable[[], object], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            pytest.fail(f"not so within {timeout:g} s: {getattr(predicate, '__name__', predicate)}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """A function that polls `predicate` until it is true and fails the test after `timeout` seconds."""
    return _wait_until


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server for all tests of this process: do not stop it; start one of your own for that."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A server for all tests of this process: do not stop it; start one of your own for that."""
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def aws_session(seaweed: Seaweed) -> boto3.Session:
    """What holds the credentials of `seaweed`, for code that would look for them in the environment."""
    return boto3.Session(
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
        region_name="us-east-1",
    )


@pytest.fixture(scope="session")
def s3_client(aws_session: boto3.Session, seaweed: Seaweed) -> Iterator["S3Client"]:
    """A plain boto3 client, to look at the server past our own code."""
    client = aws_session.client(
        "s3", endpoint_url=seaweed.endpoint_url, config=Config(signature_version="s3v4", proxies={})
    )
    yield client
    client.close()


@pytest.fixture
def s3_bucket(s3_client: "S3Client") -> Iterator[str]:
    """A fresh, empty bucket; it goes with all it holds."""
    name = f"test-{uuid.uuid4().hex[:16]}"
    s3_client.create_bucket(Bucket=name)
    yield name
    s3_client.delete_bucket(Bucket=name)


@pytest.fixture
def settings(valkey: Valkey, seaweed: Seaweed, tmp_path: Path) -> Settings:
    """Settings for these servers, with Redis empty and a home of their own."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return load_settings(redis_url=valkey.url, s3_endpoint_url=seaweed.endpoint_url, home=tmp_path / "home")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """The ledger in that Redis."""
    client = connect(settings)
    yield Ledger(client, settings)
    client.close()


@pytest.fixture
def bucket(s3_bucket: str, s3_client: "S3Client") -> Iterator[str]:
    """A bucket whose objects go with it."""
    yield s3_bucket
    empty(s3_client, s3_bucket)


@pytest.fixture
def environment(settings: Settings, seaweed: Seaweed) -> dict[str, str]:
    """The environment for a process that a test starts: the same servers and home as `settings`."""
    theirs = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MATTEMILL_"))}
    return theirs | {
        "MATTEMILL_REDIS_URL": settings.redis_url.get_secret_value(),
        "MATTEMILL_S3_ENDPOINT_URL": seaweed.endpoint_url,
        "MATTEMILL_HOME": str(settings.home),
        "AWS_ACCESS_KEY_ID": seaweed.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweed.secret_key,
        "AWS_REGION": "us-east-1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def store(settings: Settings, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A store with this process's environment set to that of the ones that a test starts."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with S3Store(settings) as store:
        yield store
