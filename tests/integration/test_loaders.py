"""Loader processes: one image's crash or hang is that image's alone, and the pool heals."""

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest

from pipeline.errors import Code, ItemError
from pipeline.ids import SizeBucket
from tests.conftest import WaitUntil
from tests.processes import empty, photo
from tests.proxy import SickProxy, sick_proxy
from workers.loaders import LoaderDiedError, Loaders, LoaderStoppedError
from workers.loads import Request

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

SIZE = SizeBucket(320, 320)
_OWN_BYTES = 25 << 20
"""Measured 14 MB; 60 where every loader is a program of its own."""


def request(bucket: str, key: str) -> Request:
    return Request(bucket, key, "", (str(SIZE),))


def nursery() -> psutil.Process:
    """The process that this one's loaders are forked from."""
    (one,) = [child for child in psutil.Process().children() if "workers.loading" in child.cmdline()]
    return one


@pytest.fixture
def proxy(
    environment: dict[str, str], s3_bucket: str, s3_client: "S3Client", monkeypatch: pytest.MonkeyPatch
) -> Iterator[SickProxy]:
    """Before a bucket with a.jpg, b.jpg and hang.jpg; who asks for the last one hears nothing."""
    for key in ("hang.jpg", "a.jpg", "b.jpg"):
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=photo(ord(key[0])))
    with sick_proxy(environment["MATTEMILL_S3_ENDPOINT_URL"]) as proxy:
        proxy.rule = lambda method, path: "hang" if "hang.jpg" in path else ""
        for name, value in (environment | {"MATTEMILL_S3_ENDPOINT_URL": proxy.url}).items():
            monkeypatch.setenv(name, value)
        yield proxy
    empty(s3_client, s3_bucket)


def test_an_overrun_and_a_crash_are_the_one_images_and_the_pool_heals(
    proxy: SickProxy, s3_bucket: str, wait_until: WaitUntil
) -> None:
    with Loaders(2, 4, SIZE, deadline=2) as loaders:
        hung = loaders.load(request(s3_bucket, "hang.jpg"))
        fine = [loaders.load(request(s3_bucket, key)) for key in ("a.jpg", "b.jpg", "a.jpg")]
        slots = [future.result(60) for future in fine]  # the neighbour goes on beside the hanging one
        with pytest.raises(LoaderDiedError, match="more than 2 s"):
            hung.result(60)
        assert (slots[0].image == slots[2].image).all()
        assert slots[0].loaded.digest == slots[2].loaded.digest != slots[1].loaded.digest
        for slot in slots:
            loaders.free(slot)

        hung = loaders.load(request(s3_bucket, "hang.jpg"))
        wait_until(lambda: [path for _, path in proxy.requests if "hang" in path][1:])
        victims = [child.pid for child in nursery().children() if child.status() != "zombie"]
        assert victims
        for pid in victims:
            os.kill(pid, signal.SIGSEGV)
        with pytest.raises(LoaderDiedError, match="SIGSEGV"):
            hung.result(60)
        wait_until(lambda: all(psutil.Process(pid).status() == "zombie" for pid in victims if psutil.pid_exists(pid)))
        for key in ("a.jpg", "b.jpg"):  # the idle one was killed too: that is no image's fault
            loaders.free(loaders.load(request(s3_bucket, key)).result(60))
        with pytest.raises(ItemError) as caught:
            loaders.load(request(s3_bucket, "none.jpg")).result(60)
        assert caught.value.code == Code.NOT_FOUND


def test_loaders_share_what_they_are_made_of_end_with_it_and_are_made_again(
    proxy: SickProxy, s3_bucket: str, wait_until: WaitUntil
) -> None:
    with Loaders(2, 4, SIZE, deadline=60) as loaders:
        hung = loaders.load(request(s3_bucket, "hang.jpg"))
        loaders.free(loaders.load(request(s3_bucket, "a.jpg")).result(60))
        first, born = nursery(), nursery().children()
        assert len(born) == 2
        assert max(loader.memory_full_info().uss for loader in born) < _OWN_BYTES
        wait_until(lambda: [path for _, path in proxy.requests if "hang" in path])
        first.kill()
        with pytest.raises(LoaderStoppedError):  # it says nothing of the image
            hung.result(60)
        wait_until(lambda: not any(loader.is_running() for loader in born))
        loaders.free(loaders.load(request(s3_bucket, "a.jpg")).result(60))
        assert nursery() != first
    assert not [child for child in psutil.Process().children() if "workers.loading" in child.cmdline()]
