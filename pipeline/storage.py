"""What Mattemill needs of an object store, and nothing more.

`pipeline.s3.S3Store` is the real one. Errors are the image's own (`PermanentError`, `TransientError`), so that whoever
handles an image never sees a store's private exceptions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.ids import ETag, Key


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a listing; `bytes` is the object's length."""

    key: Key
    etag: ETag
    bytes: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `token` asks for the next page and is None on the last."""

    objects: tuple[Listed, ...]
    token: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of an object without its body; metadata names are lower case."""

    etag: ETag
    bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole object; `body` has exactly the length that the store announced."""

    body: bytes
    etag: ETag


class ObjectStore(Protocol):
    """A store of objects in buckets. Implementations are safe to use from many threads.

    Every method raises `PermanentError(ACCESS_DENIED)` when the store says no, and `TransientError` when it cannot be
    reached, is slow, or answers 5xx or a body that is cut short (code NOT_FOUND is never transient).
    """

    def check_bucket(self, bucket: str) -> None:
        """Raise `SetupError`, with a hint, unless the bucket exists and may be used with these credentials."""

    def list_page(self, bucket: str, prefix: str, token: str | None = None) -> Page:
        """List up to 1000 objects, in the store's own order. Folder markers (keys that end in "/") are left out."""

    def head(self, bucket: str, key: Key) -> Head | None:
        """Return what is known of an object, or None where there is none."""

    def get(self, bucket: str, key: Key, *, etag: ETag | None = None, max_bytes: int) -> Fetched:
        """Fetch a whole object.

        Args:
            bucket: S3 bucket.
            key: object key.
            etag: when given, the object must still be this one.
            max_bytes: larger objects are refused before their body is read.

        Raises:
            PermanentError: NOT_FOUND; CHANGED_WHILE_PROCESSING (the ETag differs); TOO_LARGE; EMPTY_OBJECT.
            TransientError: NOT_FOUND never; TRUNCATED when fewer bytes came than were announced.
        """

    def peek(self, bucket: str, key: Key, most: int, *, etag: ETag) -> bytes:
        """Fetch the first `most` bytes of an object, or all where there are fewer.

        Raises:
            PermanentError: NOT_FOUND; CHANGED_WHILE_PROCESSING (the ETag differs).
            TransientError: TRUNCATED when fewer bytes came than were announced.
        """

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
        """Write a whole object atomically, make sure that it is what was sent, and return its ETag.

        Raises:
            PreconditionFailedError: the object that is there is not what `if_match` or `if_none_match` demands.
        """

    def delete(self, bucket: str, key: Key) -> None:
        """Delete an object; one that is not there is no error."""


class PreconditionFailedError(Exception):
    """A conditional write met another object than expected; look again and decide."""
