"""What one image costs in requests, commands, decodes and memory: counted, so that no clock can make it fail."""

import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import boto3
import cv2
import numpy as np
import pytest
import simplejpeg

from bench.redis_load import family, overheard, ports
from model.codecs.alpha import PackedAlpha
from model.cutout import warm_up
from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, connect
from pipeline.runs import Item, RunSpec, item_id, new_run_id
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from tests.conftest import WaitUntil
from tests.processes import empty, photo, process, put_run
from tests.proxy import SickProxy, sick_proxy
from workers.app import make_app, publish
from workers.encoding import make_cutout, upload_cutout
from workers.housekeeping import Housekeeper
from workers.loading import load
from workers.loads import Request
from workers.source_cache import SourceCache

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

IMAGES, CHUNK = 64, 16
BY_THE_CLOCK = {"LLEN", "BRPOP", "PING", "HELLO", "CLIENT"}
"""What a process asks however few images there are: looks at queues, waits, new connections."""
MOST = {"matte": 3.0, "encode parent": 9.5, "encode children": 3.8}
"""Commands sent to Redis for one image that has pictures in the report, a script being one, at 16 keys in a message."""


@contextmanager
def housekeeping(settings: Settings) -> Iterator[None]:
    app, client, stop = make_app(settings), connect(settings), threading.Event()
    with Housekeeper(
        Ledger(client, settings), lambda jobs, priority: publish(app, jobs, priority), lambda run: None, settings
    ) as keeper:

        def lead() -> None:
            while not stop.is_set():
                keeper.step()
                keeper.wait(0.2)

        thread = threading.Thread(target=lead)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
    app.close()
    client.close()


def requests(proxy: SickProxy) -> Counter[str]:
    """What a stage asked of S3, without the warm-up's."""
    asked = ((method, unquote(urlsplit(path).path)) for method, path in proxy.requests)
    return Counter(f"{method} {path}" for method, path in asked if "/warm" not in path)


@pytest.mark.timeout(170)
def test_requests_and_commands_for_an_image(
    settings: Settings, environment: dict[str, str], s3_bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    # On a slow machine nothing is taken for lost and fed again: late copies would be counted too.
    settings = settings.model_copy(update={"held_timeout": 100, "waiting_timeout": 100})
    client = connect(settings)
    ledger = Ledger(client, settings)
    upstream = environment["MATTEMILL_S3_ENDPOINT_URL"]
    full_batches = {"MATTEMILL_MAX_DELAY_MS": "2000"}  # however slow the loaders are
    with ExitStack() as stack:
        of_matte, of_encode = (stack.enter_context(sick_proxy(upstream)) for _ in range(2))
        env = environment | full_batches | {"MATTEMILL_S3_ENDPOINT_URL": of_matte.url}
        gpu = stack.enter_context(process(env, "workers.gpu", "fake:20"))
        env = environment | {"MATTEMILL_S3_ENDPOINT_URL": of_encode.url}
        cpu = stack.enter_context(process(env, "workers.cpu", "2"))
        stack.enter_context(housekeeping(settings))
        warm = put_run(ledger, s3_client, s3_bucket, {f"warm{n}.jpg": photo(n) for n in range(CHUNK)}, chunk=CHUNK)
        wait_until(lambda: ledger.counts(warm.run).state == "finished", 60)
        roles = family("matte", gpu.pid, "loaders") | family("encode parent", cpu.pid, "encode children")
        keys = [f"in/{n}.jpg" for n in range(100, 100 + IMAGES)]
        bodies = {key: photo(n) for n, key in enumerate(keys, 100)}
        with overheard(client) as heard:
            spec = put_run(ledger, s3_client, s3_bucket, bodies, chunk=CHUNK)
            wait_until(lambda: ledger.counts(spec.run).state == "finished", 60)
            role_of = ports(roles)
    counts = ledger.counts(spec.run)
    empty(s3_client, s3_bucket)
    client.close()
    assert (counts.done, counts.listed) == (IMAGES, IMAGES)

    sources = Counter(f"GET /{s3_bucket}/{key}" for key in keys)
    outputs = [f"/{s3_bucket}/{spec.output_key(Key(key))}" for key in keys]
    assert requests(of_matte) == sources
    assert requests(of_encode) == sources + Counter(f"PUT {out}" for out in outputs)

    commands: dict[str, Counter[str]] = {role: Counter() for role in MOST}
    for port, names in heard.items():
        if (role := role_of.get(port)) is not None:
            commands.setdefault(role, Counter()).update(
                {name: times for name, times in names.items() if name not in BY_THE_CLOCK}
            )
    found = {role: round(names.total() / IMAGES, 2) for role, names in commands.items()}
    told = {role: {name: round(n / IMAGES, 2) for name, n in names.items()} for role, names in commands.items()}
    assert {role for role, number in found.items() if number > MOST[role]} == set(), f"{found}: {told}"
    assert commands["matte"]["LPUSH"] == IMAGES, told  # a message to the encode stage for each image, and no more
    assert min(found.values()) > 0, told  # all of them were heard


@pytest.mark.timeout(120)
def test_one_get_where_both_workers_share_a_machine(
    settings: Settings, environment: dict[str, str], s3_bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    client = connect(settings)
    ledger = Ledger(client, settings)
    keys = [f"in/{n} 产品.jpg" for n in range(CHUNK)]
    with ExitStack() as stack:
        proxy = stack.enter_context(sick_proxy(environment["MATTEMILL_S3_ENDPOINT_URL"]))
        env = environment | {"MATTEMILL_S3_ENDPOINT_URL": proxy.url, "MATTEMILL_SOURCE_CACHE_BYTES": str(16 << 20)}
        stack.enter_context(process(env, "producer.commands", "worker", "cpu", "--concurrency", "2"))
        lock = settings.home / "source-cache" / "lock"
        wait_until(lock.exists, 60)
        stack.enter_context(process(env, "producer.commands", "worker", "gpu", "--devices", "fake:20"))
        spec = put_run(ledger, s3_client, s3_bucket, {key: photo(n) for n, key in enumerate(keys)}, chunk=CHUNK)
        wait_until(lambda: ledger.counts(spec.run).done == CHUNK, 60)
        asked = requests(proxy)
        copies = [path.name for path in lock.parent.iterdir()]
    client.close()
    empty(s3_client, s3_bucket)
    assert {name: times for name, times in asked.items() if name.startswith("GET") and "/in/" in name} == {
        f"GET /{s3_bucket}/{key}": 1 for key in keys
    }
    assert copies == ["lock"]  # each is gone with the image that it was for


def test_decodes_and_memory_for_an_image(
    settings: Settings,
    s3_bucket: str,
    s3_client: "S3Client",
    aws_session: boto3.Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    height, width = 1600, 2000
    rng = np.random.default_rng(1)
    smooth = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    body = bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(smooth, np.uint8), quality=90))
    s3_client.put_object(Bucket=s3_bucket, Key="in.jpg", Body=body)
    etag = ETag(s3_client.head_object(Bucket=s3_bucket, Key="in.jpg")["ETag"].strip('"'))
    spec = RunSpec(new_run_id(), s3_bucket, "", s3_bucket, "out/", "u2netp", "0" * 64, ("320x320",))
    item = Item(item_id(spec.output_key(Key("in.jpg"))), Key("in.jpg"), etag, len(body), "320x320")
    ramp = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))
    decoded: list[tuple[int, ...]] = []
    decode_jpeg = simplejpeg.decode_jpeg

    def counted(*args: object, **options: object) -> object:
        pixels = decode_jpeg(*args, **options)
        decoded.append(pixels.shape)
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    warm_up()
    cache = SourceCache(settings)
    with S3Store(settings, pool=2, session=aws_session) as store:

        def matte() -> None:
            request = Request(s3_bucket, item.key, etag, ("320x320",))
            load(store, settings, cache, request, np.empty(320 * 320 * 3, np.uint8))

        def encode() -> None:
            upload_cutout(store, make_cutout(store, settings, cache, spec, item, PackedAlpha(ramp, {}, "fake")))

        found = {}
        for stage in (matte, encode):
            stage()  # what is made once for a process
            decoded.clear()
            s3_client.delete_object(Bucket=s3_bucket, Key=spec.output_key(item.key))
            tracemalloc.start()
            try:
                stage()
                found[stage.__name__] = (tuple(decoded), tracemalloc.get_traced_memory()[1] / (height * width))
            finally:
                tracemalloc.stop()
    empty(s3_client, s3_bucket)
    # The engine needs 320 pixels; twice that comes out of the JPEG at half its scale.
    assert found["matte"][0] == ((height // 2, width // 2, 3),), found
    assert found["encode"][0] == ((height, width, 3),), found
    # Bytes for a pixel of the photo at the worst moment. A picture is 3, its alpha 1.
    assert found["matte"][1] < 1.1, found
    assert found["encode"][1] < 7, found
