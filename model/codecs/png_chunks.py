"""The chunks that a PNG file is made of: written, and checked."""

import struct
from typing import Final

from isal import isal_zlib

from pipeline.errors import Code, PermanentError

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes | memoryview) -> tuple[bytes, bytes | memoryview, bytes]:
    """One chunk, in three parts to be written one after the other."""
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind, body, struct.pack(">I", checksum)


def verify_png(data: bytes) -> None:
    """Check that a PNG file is whole: every chunk from IHDR to IEND, each with the right checksum.

    Pillow skips the checksums of the pixel data and stops reading before IEND.

    Raises:
        PermanentError: TRUNCATED.
    """
    view = memoryview(data)
    at = len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise PermanentError(Code.TRUNCATED, f"the PNG file ends after {len(data)} bytes, before its end chunk")
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise PermanentError(
                Code.TRUNCATED,
                f"the PNG file ends after {len(data)} bytes, within a chunk that ends at byte {end}",
            )
        (expected,) = struct.unpack_from(">I", data, end - 4)
        if isal_zlib.crc32(view[at + 4 : end - 4]) != expected:
            raise PermanentError(Code.TRUNCATED, f"the PNG chunk {kind!r} at byte {at} has a wrong checksum")
        at = end
