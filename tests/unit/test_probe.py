import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from model.codecs.decode import decode
from model.codecs.probe import Header, check, probe
from pipeline.errors import Code, PermanentError

FORMATS = ["JPEG", "PNG", "WebP", "AVIF", "BMP", "TIFF", "GIF"]


def picture(format: str, size: tuple[int, int] = (61, 35), mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize(size).convert(mode).save(out, format, **options)
    return out.getvalue()


def with_orientation(format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture(format, exif=exif)


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def code_of(data: bytes) -> Code:
    with pytest.raises(PermanentError) as caught:
        probe(data)
    return caught.value.code


@pytest.mark.parametrize("format", FORMATS)
def test_names_format_and_size(format: str) -> None:
    assert probe(picture(format)) == Header(format, width=61, height=35, orientation=1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_picture(format: str, orientation: int) -> None:
    header = probe(with_orientation(format, orientation))
    assert (header.width, header.height) == ((35, 61) if orientation >= 5 else (61, 35))
    assert header.orientation == orientation


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exact": True, "icc_profile": b"x" * 40}])
def test_all_kinds_of_webp(options: dict[str, object]) -> None:
    header = probe(picture("WebP", (1023, 77), "RGB", **options))
    assert (header.width, header.height) == (1023, 77)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "BMP", "GIF"])
def test_a_prefix_is_enough(format: str) -> None:
    data = picture(format, (900, 700))
    assert len(data) > 2000
    assert probe(data[:2000]) == Header(format, 900, 700)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_no_reason_to_refuse() -> None:
    assert probe(picture("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrubbish")).orientation == 1


@pytest.mark.parametrize(
    "data",
    [
        b"just some words, no picture",
        b"<!DOCTYPE html><html><body>403</body></html>",
        b"BMW is a maker of cars and not a bitmap",
        b"\0" * 4096,
        np.random.default_rng(5).integers(0, 255, 5000, dtype=np.uint8).tobytes(),
        b'{"error": "<svg"}',
    ],
)
def test_what_is_no_image(data: bytes) -> None:
    assert code_of(data) is Code.NOT_AN_IMAGE


def test_no_bytes() -> None:
    assert code_of(b"") is Code.EMPTY_OBJECT


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100), "CR3"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42isom" + bytes(100), "video"),
        (b"8BPS\0\1" + bytes(100), "PSD"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\xef\xbb\xbf <svg/>", "SVG"),
        (b"\xff\x0a" + bytes(100), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "JPEG 2000"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"\0\0\1\0" + bytes(100), "ICO"),
    ],
)
def test_known_but_refused_formats_are_named(data: bytes, name: str) -> None:
    with pytest.raises(PermanentError, match=name) as caught:
        probe(data)
    assert caught.value.code is Code.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_a_raw_file_is_not_taken_for_its_thumbnail(tags: dict[int, object]) -> None:
    with pytest.raises(PermanentError, match="camera RAW") as caught:
        probe(picture("TIFF", tiffinfo=tags))
    assert caught.value.code is Code.UNSUPPORTED_FORMAT


def test_heic_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.codecs.probe.find_spec", lambda name: None)
    with pytest.raises(PermanentError, match=r"HEIC.*mattemill\[heic\]") as caught:
        probe(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert caught.value.code is Code.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_a_fax_is_refused(compression: str) -> None:
    with pytest.raises(PermanentError, match="fax") as caught:
        probe(picture("TIFF", mode="1", compression=compression))
    assert caught.value.code is Code.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("format", FORMATS)
def test_a_header_that_is_cut_off(format: str) -> None:
    data = picture(format)
    for length in (2, 5, 9, 13, 17):
        assert code_of(data[:length]) in (Code.TRUNCATED, Code.NOT_AN_IMAGE)
    if format != "GIF":  # its header is 13 bytes
        assert code_of(data[:23]) is Code.TRUNCATED


def test_a_picture_without_pixels() -> None:
    assert code_of(png_header(0, 7)) is Code.TRUNCATED


def test_the_cap_is_checked_before_anything_is_decoded() -> None:
    data = png_header(20_000, 20_000) + bytes(1000)
    tracemalloc.start()
    with pytest.raises(PermanentError, match=r"400\.0 megapixels.*at most 150") as caught:
        decode(data, max_megapixels=150)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code is Code.TOO_LARGE
    assert peak < 1_000_000


@pytest.mark.parametrize(("width", "height"), [(1_000_001, 1), (1000, 1001)])
def test_the_cap_counts_pixels(width: int, height: int) -> None:
    check(Header("PNG", 1000, 1000), 1)
    with pytest.raises(PermanentError):
        check(Header("PNG", width, height), 1)


def test_the_cap_may_be_above_the_limit_of_pillow() -> None:
    header = probe(png_header(20_000, 20_000))
    check(header, 500)
    assert header.width * header.height == 400_000_000
