"""A small picture of a photo and one of its cutout: made where the pixels are, shown in the report."""

from dataclasses import dataclass
from typing import Self

_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Preview:
    """Two encoded pictures of the same size.

    Attributes:
        before: of the photo, JPEG.
        after: of the cutout, WebP.
    """

    before: bytes
    after: bytes

    def dump(self) -> bytes:
        """As bytes, for the ledger."""
        return len(self.before).to_bytes(_LENGTH, "big") + self.before + self.after

    @classmethod
    def load(cls, data: bytes) -> Self:
        """From the bytes of `dump`."""
        end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
        return cls(data[_LENGTH:end], data[end:])
