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
_LEAD: Final = 4
_COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}


class PngWriter:
    """Encodes a picture as PNG without loss, some rows at a time, so that it need never be in memory as a whole.

    ISA-L's deflate level 1 over rows filtered with "Up": a quarter of the CPU time of `cv2.imencode` at its default
    and no larger.

    Args:
        height: pixels.
        width: pixels.
        channels: 1 is grey, 3 RGB, 4 RGBA.
        exif: the TIFF part of EXIF data; left out when empty.
        icc: an ICC profile; left out when empty.

    Raises:
        ValueError: for another number of channels, or no pixels.
    """

    def __init__(self, height: int, width: int, channels: int, *, exif: bytes = b"", icc: bytes = b"") -> None:
        if channels not in _COLOUR_TYPES or height < 1 or width < 1:
            raise ValueError(
                f"a PNG has sides of at least a pixel, of 1, 3 or 4 bytes; got {height}x{width}x{channels}"
            )
        self._left = height
        self._deflate = isal_zlib.compressobj(1)
        self._begun = False
        row_bytes = width * channels
        self._filtered = np.empty((max(1, min(height, _STRIP_BYTES // row_bytes)), 1 + row_bytes), np.uint8)
        self._filtered[:, 0] = _FILTER_UP
        self._above = np.zeros(row_bytes, np.uint8)
        header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
        self._parts = [SIGNATURE, *_chunk(b"IHDR", header)]
        if icc:
            self._parts += _chunk(b"iCCP", b"ICC profile\0\0" + isal_zlib.compress(icc, 1))
        if exif:
            self._parts += _chunk(b"eXIf", exif)

    def write(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Add rows: uint8 [n, width, channels] or, when grey, [n, width]; copied when they are not C-contiguous."""
        rows = pixels.reshape(len(pixels), -1)
        for top in range(0, len(rows), len(self._filtered)):
            part = rows[top : top + len(self._filtered)]
            strip = self._filtered[: len(part)]
            np.subtract(part[0], self._above, out=strip[0, 1:])
            np.subtract(part[1:], part[:-1], out=strip[1:, 1:])
            self._above = part[-1].copy()  # the caller may use its rows again
            if compressed := self._compress(strip.reshape(-1)):
                self._parts += _chunk(b"IDAT", compressed)
        self._left -= len(rows)

    def _compress(self, data: npt.NDArray[np.uint8]) -> bytes:
        if self._begun:
            return self._deflate.compress(data.data)
        # ISA-L's fast loop begins a stream by hashing an address (docs/decisions/0020): its slow one does it instead.
        self._begun = True
        first = self._deflate.compress(data[:_LEAD].data) + self._deflate.flush(isal_zlib.Z_SYNC_FLUSH)
        return first + self._deflate.compress(data[_LEAD:].data)

    def finish(self) -> bytes:
        """The file.

        Raises:
            ValueError: when rows are missing, or there were too many.
        """
        if self._left:
            raise ValueError(f"the PNG still lacks {self._left} rows")
        self._parts += _chunk(b"IDAT", self._deflate.flush())
        self._parts += _chunk(b"IEND", b"")
        return b"".join(self._parts)


def encode_png(image: npt.NDArray[np.uint8], *, exif: bytes = b"", icc: bytes = b"") -> bytes:
    """Encode a whole picture: uint8 [h, w] grey, [h, w, 3] RGB or [h, w, 4] RGBA. See `PngWriter`.

    Raises:
        ValueError: for another dtype or shape, or no pixels.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"a PNG is made of uint8 [h, w] or [h, w, 3 or 4]; got {image.dtype} {list(image.shape)}")
    channels = 1 if image.ndim == 2 else image.shape[2]
    writer = PngWriter(image.shape[0], image.shape[1], channels, exif=exif, icc=icc)
    writer.write(image)
    return writer.finish()


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
