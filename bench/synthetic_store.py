"""A store whose sources are made up while they are listed, and whose written objects lie in memory."""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from threading import Lock

import numpy as np
import simplejpeg

from pipeline.errors import Code, PermanentError
from pipeline.ids import ETag, Key
from pipeline.storage import Fetched, Head, Listed, Page

PAGE = 1000
SIDE = 64
SOURCES = "photos"
"""The bucket of the made-up sources."""


class SyntheticStore:
    """An `ObjectStore` with `keys` sources in the bucket `photos`; counts what it is asked in `requests`."""

    def __init__(self, keys: int) -> None:
        self.requests = Counter[str]()
        self._keys = keys
        self._objects: dict[tuple[str, Key], tuple[bytes, ETag, dict[str, str]]] = {}
        self._order: list[tuple[str, Key]] | None = None
        self._lock = Lock()

    def check_bucket(self, bucket: str) -> None:
        self.requests["list"] += 1

    def list_page(self, bucket: str, prefix: str, token: str | None = None) -> Page:
        self.requests["list"] += 1
        if bucket == SOURCES:
            start = int(token or 0)
            end = min(start + PAGE, self._keys)
            made_up = (source(prefix, number) for number in range(start, end))
            return Page(tuple(made_up), str(end) if end < self._keys else None)
        with self._lock:
            if self._order is None:
                self._order = sorted(self._objects)
            order = self._order
        names = [key for place, key in order if place == bucket and key.startswith(prefix)]
        start = bisect_left(names, token) if token else 0
        rows = tuple(Listed(key, *self._about(bucket, key)) for key in names[start : start + PAGE])
        return Page(rows, names[start + PAGE] if start + PAGE < len(names) else None)

    def _about(self, bucket: str, key: Key) -> tuple[ETag, int]:
        body, etag, _ = self._objects[bucket, key]
        return etag, len(body)

    def head(self, bucket: str, key: Key) -> Head | None:
        self.requests["head"] += 1
        if (bucket, key) not in self._objects:
            return None
        body, etag, metadata = self._objects[bucket, key]
        return Head(etag, len(body), metadata)

    def get(self, bucket: str, key: Key, *, etag: ETag | None = None, max_bytes: int) -> Fetched:
        self.requests["get"] += 1
        if (bucket, key) not in self._objects:
            raise PermanentError(Code.NOT_FOUND, "There is no such object.")
        body, etag, _ = self._objects[bucket, key]
        return Fetched(body, etag)

    def peek(self, bucket: str, key: Key, most: int, *, etag: ETag) -> bytes:
        return self.get(bucket, key, max_bytes=most).body[:most]

    def put(
        self,
        bucket: str,
        key: Key,
        body: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        if_match: ETag | None = None,
        if_none_match: bool = False,
    ) -> ETag:
        self.requests["put"] += 1
        etag = ETag(hashlib.md5(body, usedforsecurity=False).hexdigest())
        with self._lock:
            self._objects[bucket, key] = (body, etag, dict(metadata or {}))
            self._order = None
        return etag

    def delete(self, bucket: str, key: Key) -> None:
        self.requests["delete"] += 1
        with self._lock:
            self._objects.pop((bucket, key), None)
            self._order = None


def source(prefix: str, number: int) -> Listed:
    """A source with names and numbers as long as real ones."""
    name = f"{prefix}shop-{number % 97:02d}/{number:08d}-front.jpg"
    return Listed(Key(name), ETag(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()), 400_000 + number)


class TinyPhotos:
    """What an encode child needs of a store: every source is the same small JPEG, and what is written is forgotten."""

    def __init__(self, *_: object, **__: object) -> None:
        self._body = tiny_photo(0)

    def head(self, bucket: str, key: Key) -> Head | None:
        return None

    def get(self, bucket: str, key: Key, *, etag: ETag | None = None, max_bytes: int) -> Fetched:
        return Fetched(self._body, etag or ETag("e"))

    def put(
        self,
        bucket: str,
        key: Key,
        body: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        if_match: ETag | None = None,
        if_none_match: bool = False,
    ) -> ETag:
        return ETag(hashlib.md5(body, usedforsecurity=False).hexdigest())


def tiny_photo(number: int) -> bytes:
    """A JPEG of `SIDE` x `SIDE` pixels; every number looks different."""
    pixels = np.full((SIDE, SIDE, 3), 20, np.uint8)
    pixels[SIDE // 4 : -SIDE // 4, SIDE // 5 : -SIDE // 5] = (200, number % 256, number // 256 % 256)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=90))
