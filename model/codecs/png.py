"""PNG: a fast writer, and a check of every checksum of a file to be read."""

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from pipeline.errors import Code, PermanentError

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_STRIP_BYTES: Final = 1 << 20
_FILTER_UP: Final = 2
_GRAY: Final = 0
_RGBA: Final = 6


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGBA picture or one gray plane as PNG, without loss.

    ISA-L's deflate level 1 over rows filtered with "Up": a quarter of the CPU time of `cv2.imencode` at its
    default and no larger. Works in strips of a megabyte, so that the extra memory is the compressed size.

    Args:
        image: uint8 [h, w, 4] RGBA or [h, w] gray; copied once when it is not C-contiguous.

    Raises:
        ValueError: for another dtype or shape, or no pixels.
    """
    if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or image.shape[2:] == (4,)):
        raise ValueError(f"a PNG is made of uint8 [h, w] or [h, w, 4]; got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    rows = image.reshape(height, -1)
    row_bytes = rows.shape[1]
    strip_rows = max(1, min(height, _STRIP_BYTES // row_bytes))
    filtered = np.empty((strip_rows, 1 + row_bytes), np.uint8)
    filtered[:, 0] = _FILTER_UP

    color_type = _GRAY if image.ndim == 2 else _RGBA
    parts = [SIGNATURE, *_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))]
    deflate = isal_zlib.compressobj(1)
    for top in range(0, height, strip_rows):
        strip = filtered[: min(strip_rows, height - top)]
        bottom = top + len(strip)
        if top == 0:
            strip[0, 1:] = rows[0]
            np.subtract(rows[1:bottom], rows[: bottom - 1], out=strip[1:, 1:])
        else:
            np.subtract(rows[top:bottom], rows[top - 1 : bottom - 1], out=strip[:, 1:])
        if compressed := deflate.compress(strip.data):
            parts += _chunk(b"IDAT", compressed)
    parts += _chunk(b"IDAT", deflate.flush())
    parts += _chunk(b"IEND", b"")
    return b"".join(parts)


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


def _chunk(kind: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind, body, struct.pack(">I", checksum)
