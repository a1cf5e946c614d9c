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
from model.preprocess import content, letterbox
from model.size_buckets import fit
from pipeline.ids import ETag, Key
from pipeline.recipe import Recipe
from pipeline.storage import ObjectStore

_MEGAPIXELS = 10
_MODEL = "u2netp"


@dataclass(frozen=True, slots=True)
class Picture:
    """A source in S3, and the ETag that its cutout must have."""

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
        return Picture(key, etag, len(body), _cutout(body))

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(count)))


def _photo(number: int) -> bytes:
    random = Random(number)
    pixels = np.full((90, 120, 3), [random.randrange(60) for _ in range(3)], np.uint8)
    top, left = random.randrange(5, 35), random.randrange(5, 55)
    pixels[top : top + 45, left : left + 55] = [random.randrange(90, 256) for _ in range(3)]
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def _cutout(body: bytes) -> ETag:
    """What loader, engine and encode child make of it, in this process; S3's ETag of a plain object is its MD5."""
    sizes = find(_MODEL).size_buckets
    header = probe(body)
    size = fit(header.height, header.width, list(sizes))
    picture = decode(body, max_megapixels=_MEGAPIXELS, at_least=(2 * size.height, 2 * size.width))
    image, box = letterbox(picture.rgb, size)
    alpha = content(FakeEngine(0, sizes, 8).infer(image[None])[0], box)
    sent = unpack_alpha(pack_alpha(PackedAlpha(alpha, {}, "")))
    made = make_cutout(body, sent.alpha, Recipe(), None, _MEGAPIXELS)
    return ETag(hashlib.md5(made.body, usedforsecurity=False).hexdigest())
