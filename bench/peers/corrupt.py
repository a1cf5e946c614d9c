"""Five files that are no good images, one of each kind that turns up in real buckets."""

import struct
import zlib


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int) -> bytes:
    """A PNG whose header says more than its pixels hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def corrupt_files(photo: bytes) -> dict[str, bytes]:
    """Their keys and bodies; `photo` is the JPEG that is cut short."""
    return {
        "bad-truncated.jpg": photo[: len(photo) // 2],
        "bad-empty.jpg": b"",
        "bad-text.jpg": b"<html><body>404 Not Found</body></html>\n" * 20,
        "bad-zero-size.png": _png(0, 0),
        "bad-400-megapixels.png": _png(20_000, 20_000),
    }
