"""The photos that `mattemill demo` works on, and four broken inputs that it must survive.

The photos are package data below `photos/`; `SOURCES.md` says where each comes from and under which licence.
The broken inputs are made when they are asked for, always the same bytes for the same zlib.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from pipeline.errors import Code

_TRUNCATED = "bad/truncated.jpg"
_EMPTY = "bad/empty.jpg"
_NOTES = "bad/notes.jpg"
_HUGE = "bad/huge.png"

_WHOLE_PHOTO = "animals/german-shepherd.jpg"
_HUGE_SIDE = 20_000
_NOTES_TEXT = b"Shoot on Thursday: bring the grey backdrop, two soft boxes and the long lens.\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """One object to put into the demo's source bucket.

    Attributes:
        name: key below the demo's prefix, with `/` between folders; may hold spaces and Chinese characters.
        body: the object's bytes.
        expected: None where a cutout is expected, else the code the image must fail with.
    """

    name: str
    body: bytes
    expected: Code | None


def samples() -> Iterator[Sample]:
    """Yield the photos in the order of their names, then the four broken inputs.

    One body is read or made at a time, so the whole set never has to be in memory.
    """
    photos = files(__name__).joinpath("photos")
    for name, photo in _walk(photos, ""):
        yield Sample(name, photo.read_bytes(), None)
    whole = photos.joinpath(*_WHOLE_PHOTO.split("/")).read_bytes()
    bodies = {
        _TRUNCATED: whole[: len(whole) * 6 // 10],
        _EMPTY: b"",
        _NOTES: _NOTES_TEXT,
        _HUGE: _blank_png(_HUGE_SIDE),
    }
    for name, code in expected_failures().items():
        yield Sample(name, bodies[name], code)


def expected_failures() -> dict[str, Code]:
    """Return the name of every broken input and the code it must fail with."""
    return {
        _TRUNCATED: Code.TRUNCATED,
        _EMPTY: Code.EMPTY_OBJECT,
        _NOTES: Code.NOT_AN_IMAGE,
        _HUGE: Code.TOO_LARGE,
    }


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif not entry.name.startswith("."):
            yield prefix + entry.name, entry


def _blank_png(side: int) -> bytes:
    """Return a valid black PNG of side x side pixels, one bit each.

    Rows are fed to zlib one by one: the pixels, 50 MB at side 20000, are never in memory together.
    Source of the layout: PNG specification, https://www.w3.org/TR/png-3/, sections 5, 7.2 and 11.2.1.
    """
    row = bytes(1 + (side + 7) // 8)  # filter type 0, then eight pixels a byte
    deflate = zlib.compressobj(9)
    pixels = bytearray()
    for _ in range(side):
        pixels += deflate.compress(row)
    pixels += deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", bytes(pixels)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
