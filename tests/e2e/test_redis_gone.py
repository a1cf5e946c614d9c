"""Redis is lost for good in the middle of a run: data and all, an empty one in its place."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from engine_build.wrap import wrap
from model.catalogue import ModelSpec
from model.store import ModelStore
from pipeline.ids import SizeBucket
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from producer import Producer
from producer.verify import verify
from tests.conftest import WaitUntil
from tests.processes import empty, photo, process
from tests.proxy import SickProxy, sick_proxy
from tests.tiny_network import tiny_network
from workers.local.valkey import Valkey

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

IMAGES = 60


def asked(proxy: SickProxy, wanted: str, folder: str) -> Counter[str]:
    """How often each key of a folder was fetched or written."""
    paths = (unquote(urlsplit(path).path) for method, path in proxy.requests if method == wanted)
    return Counter(
        path.partition(f"/{folder}/")[2] for path in paths if f"/{folder}/" in path and "_mattemill" not in path
    )


@pytest.mark.timeout(300)
def test_sweeping_again_makes_exactly_what_is_missing(
    settings: Settings, environment: dict[str, str], s3_bucket: str, s3_client: "S3Client", tmp_path: Path,
    wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    size = SizeBucket(320, 320)
    ModelStore(settings.home).install(
        ModelSpec("u2netp", "7" * 64, (size,), "Apache-2.0", "made for this test"),
        wrap(tiny_network(size), input_size=size),
    )
    names = [f"{n:02d} 产品" for n in range(IMAGES)]
    for n, name in enumerate(names):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{name}.jpg", Body=photo(n))
    source, target = f"s3://{s3_bucket}/in/", f"s3://{s3_bucket}/out/"

    def made() -> set[str]:
        found = s3_client.list_objects_v2(Bucket=s3_bucket, Prefix="out/").get("Contents", [])
        return {entry["Key"] for entry in found if "_mattemill" not in entry["Key"]}

    (tmp_path / "valkey").mkdir()
    with Valkey(tmp_path / "valkey") as server, sick_proxy(settings.s3_endpoint_url or "") as proxy:
        there = environment | {"MATTEMILL_REDIS_URL": server.url, "MATTEMILL_S3_ENDPOINT_URL": proxy.url}
        for name, value in there.items():
            monkeypatch.setenv(name, value)
        command = ("producer.commands", "worker")
        with (
            process(there, *command, "gpu", "--devices", "cpu"),
            process(there, *command, "cpu", "--concurrency", "1"),
            S3Store(settings) as store,
        ):
            producer = Producer(store=store)
            lost = producer.sweep(source, target)
            wait_until(lambda: len(made()) >= IMAGES // 4, 120)
            last = [time.monotonic()]
            proxy.rule = lambda method, path: last.append(time.monotonic()) or ""  # type: ignore[func-returns-value]
            server.restart()
            assert producer.runs() == []

            # Until nothing was asked of S3 for two seconds: nobody has anything in hand any more.
            wait_until(lambda: time.monotonic() - last[-1] > 2, 60)
            right = {key.removeprefix("out/").removesuffix(".png") for key in made()}
            assert IMAGES // 4 <= len(right) < IMAGES
            proxy.requests.clear()
            again = producer.sweep(source, target)
            summary = again.wait(timeout=180)
            assert (summary.listed, summary.skipped, summary.failed) == (IMAGES, len(right), 0)
            assert summary.done == IMAGES - len(right)
            missing = set(names) - right
            # What was missing is fetched, and written once; the rest is left alone.
            assert set(asked(proxy, "GET", "in")) == {f"{name}.jpg" for name in missing}
            assert asked(proxy, "PUT", "out") == {f"{name}.png": 1 for name in missing}
            assert verify(store, again.spec.reports).wrong == ()
            client = producer.run(again.id)._ledger.client
            assert list(client.scan_iter(f"*{lost.id}*")) == []  # nobody has brought the lost run back to half a life
    empty(s3_client, s3_bucket)
