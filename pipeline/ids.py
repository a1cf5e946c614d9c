"""Names for the things that travel, so that one kind of string is never passed for another."""

import re
from dataclasses import dataclass
from typing import NewType, Self

RunId = NewType("RunId", str)
ItemId = NewType("ItemId", str)
Key = NewType("Key", str)
ETag = NewType("ETag", str)


@dataclass(frozen=True, slots=True, order=True)
class SizeBucket:
    """A fixed (height, width) in pixels that a model's engine is tuned for; written "320x320", height first."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "HxW".

        Raises:
            ValueError: when the text is anything else or a side is not positive.
        """
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
        if match is None:
            raise ValueError(f"a size bucket is written HxW, such as 320x320; got {text!r}")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Location:
    """A place in S3: a bucket and a key prefix or key ("" is the whole bucket)."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read "s3://bucket/key".

        Raises:
            ValueError: when the text is no S3 address.
        """
        match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(.*))?", url, re.DOTALL)
        if match is None:
            raise ValueError(f"an S3 address is written s3://bucket/prefix; got {url!r}")
        return cls(match[1], match[2] or "")
