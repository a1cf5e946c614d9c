"""Small photos that all differ, and the cutout that each must become, byte for byte."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np

from model.catalogue import find
from model.codecs.alpha import PackedAlpha, pack_alpha, unpack_alpha
from model.codecs.decode import decode
from model.codecs.probe import probe
from model.cutout import make_cutout
from model.engines.fake import FakeEngine
from model.preprocess import content, letterbox, settled
from model.size_buckets import fit
from pipeline.ids import ETag, Key
from pipeline.recipe import Recipe
from pipeline.storage import ObjectStore

_MEGAPIXELS = 10
_MODEL = "u2netp"


@dataclass(frozen=True, slots=True)
class Picture:
    """A source in S3, and the ETag that its cutout must have: of a plain object it is the MD5."""

    key: Key
    etag: ETag
    bytes: int
    cutout: ETag


def put_pictures(store: ObjectStore, bucket: str, count: int) -> list[Picture]:
    """Upload `count` photos below in/."""
    cv2.setNumThreads(1)

    def one(number: int) -> Picture:
        body = _photo(number)
        key = Key(f"in/{number:05d} 产品.jpg")
        etag = store.put(bucket, key, body, content_type="image/jpeg")
        made = cutout(body)
        return Picture(key, etag, len(body), ETag(hashlib.md5(made, usedforsecurity=False).hexdigest()))

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(count)))


def _photo(number: int) -> bytes:
    random = Random(number)
    pixels = np.full((90, 120, 3), [random.randrange(60) for _ in range(3)], np.uint8)
    top, left = random.randrange(5, 35), random.randrange(5, 55)
    pixels[top : top + 45, left : left + 55] = [random.randrange(90, 256) for _ in range(3)]
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def cutout(body: bytes) -> bytes:
    """What loader, engine and encode child make of a photo, made in this process."""
    sizes = find(_MODEL).size_buckets
    header = probe(body)
    size = fit(header.height, header.width, list(sizes))
    picture = decode(body, max_megapixels=_MEGAPIXELS, at_least=(2 * size.height, 2 * size.width))
    image, box = letterbox(picture.rgb, size)
    alpha = settled(content(FakeEngine(0, sizes, 8).infer(image[None])[0], box))
    sent = unpack_alpha(pack_alpha(PackedAlpha(alpha, {}, "")))
    return make_cutout(body, sent.alpha, Recipe(), None, _MEGAPIXELS).body


def difference(one: bytes, other: bytes) -> tuple[int, str]:
    """The largest difference of two PNGs in any channel, in levels, and where; 255 when they are not comparable."""
    first, second = (cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED) for body in (one, other))
    if first is None or second is None or first.shape != second.shape:
        return 255, "another size"
    levels = np.abs(first.astype(int) - second.astype(int))
    rows, columns, channels = np.nonzero(levels)
    if not len(rows):
        return 0, "in no pixel, but in bytes"
    where = (
        f"rows {rows.min()}-{rows.max()}, columns {columns.min()}-{columns.max()}, channels {set(channels.tolist())}"
    )
    return int(levels.max()), f"in {len(rows)} values, {where}"
