"""What a loader is asked for and what it answers, for processes that do not load themselves."""

import json
from dataclasses import dataclass

from model.preprocess import Letterbox
from pipeline.errors import Code, PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class Request:
    """What a child is asked for; it chooses among `size_buckets` by what the image turns out to be."""

    bucket: str
    key: str
    etag: str
    size_buckets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it: photo size, size bucket, where it lies there, a digest of those pixels, what it took."""

    height: int
    width: int
    size_bucket: str
    box: Letterbox
    digest: str
    milliseconds: dict[str, float]


def answer(reply: bytes) -> Loaded:
    """Read a child's reply.

    Raises:
        ItemError: what the child raised.
    """
    fields = json.loads(reply)
    if "code" in fields:
        kind = TransientError if fields["transient"] else PermanentError
        error = kind(Code(fields["code"]), fields["reason"])
        error.milliseconds = fields["milliseconds"]
        raise error
    return Loaded(**{**fields, "box": Letterbox(**fields["box"])})
