"""Decoding of every format: exact, upright, and never half a picture."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from model.codecs.decode import decode, turn
from pipeline.errors import Code, PermanentError
from tests.decoding import assert_close, assert_visible_equal, decoded, photo, reference, refusal, saved


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WebP", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_lossless_formats_are_exact(format: str, options: dict[str, object], mode: str) -> None:
    alpha = photo(43, 57, 1)[:, :, 0]
    image = Image.fromarray(np.dstack([photo(43, 57), alpha]))
    image = image.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else image.convert(mode)
    try:
        data = saved(image, format, exact=True, **options)
    except OSError:
        pytest.skip(f"Pillow writes no {mode} as {format}")
    picture = decoded(data)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGBA").convert("RGB"))
    assert_visible_equal(picture, expected)
    if mode in ("RGBA", "LA") and format != "BMP":
        np.testing.assert_array_equal(picture.alpha, alpha)
    elif mode not in ("RGBA", "LA"):
        assert picture.alpha is None


@pytest.mark.parametrize("format", ["PNG", "WebP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_format_is_turned_upright(format: str, orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(photo(41, 67, 4)).convert(mode)
    data = saved(image, format, exif=exif, **({"lossless": True, "exact": True} if format == "WebP" else {}))
    picture = decoded(data)
    assert_visible_equal(picture, reference(data, mode)[:, :, :3])
    if mode == "RGBA":
        np.testing.assert_array_equal(picture.alpha, reference(data, mode)[:, :, 3])


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7), (1, 7, 3), (7, 1), (1, 1, 3)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_is_that_of_pillow(shape: tuple[int, ...], orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = decoded(data)
    assert picture.rgb.shape == (10, 20, 3)
    assert (picture.rgb == (255, 0, 0)).all()


def test_animated_webp_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
    data = saved(frames[0], "WebP", save_all=True, append_images=frames[1:], lossless=True)
    assert (decoded(data).rgb == (255, 0, 0)).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    levels = np.linspace(0, 65535, 40 * 50).astype(np.uint16).reshape(40, 50)
    picture = decoded(saved(Image.fromarray(levels), format))
    expected = np.rint(levels / 257).astype(np.uint8)
    assert_close(picture.rgb, np.dstack([expected] * 3), 0)


def test_sixteen_bit_rgb_and_rgba_png() -> None:
    for channels in (3, 4):
        levels = (np.maximum(photo(30, 40, channels), 1).astype(np.uint16) * 257) ^ 3
        ok, data = cv2.imencode(".png", levels)
        assert ok
        picture = decoded(data.tobytes())
        assert_close(picture.rgb, (levels[:, :, 2::-1] / 257).astype(np.uint8), 1)
        assert (picture.alpha is None) == (channels == 3)


@pytest.mark.parametrize(("mode", "key"), [("L", 0), ("P", 0), ("P", b"\0\x80"), ("RGB", (10, 20, 30)), ("I;16", 0)])
def test_transparent_colours(mode: str, key: object) -> None:
    data = saved(Image.new(mode, (9, 7), (10, 20, 30) if mode == "RGB" else 0), "PNG", transparency=key)
    alpha = decoded(data).alpha
    assert alpha is not None
    assert (alpha == 0).all()


def test_an_opaque_alpha_is_none() -> None:
    assert decoded(saved(Image.new("RGBA", (9, 7), (1, 2, 3, 255)), "PNG")).alpha is None


def test_pixels_with_more_than_sixteen_bits_are_refused() -> None:
    assert refusal(saved(Image.new("F", (9, 7)), "TIFF")) is Code.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF"])
def test_tiny_pictures(format: str, size: tuple[int, int]) -> None:
    picture = decoded(saved(Image.new("RGB", size, "gray"), format), at_least=(1, 1))
    assert (picture.full_width, picture.full_height) == size


# Damage


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("WebP", {}),
        ("WebP", {"lossless": True}),
        ("AVIF", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
    ],
)
def test_a_cut_file_never_passes(format: str, options: dict[str, object]) -> None:
    data = saved(Image.fromarray(photo(120, 170)), format, **options)
    # A GIF is whole without its closing bytes, a BMP without the padding of its last row.
    last = len(data) - (3 if format in ("GIF", "BMP") else 1)
    for cut in np.linspace(20, last, 25).astype(int):
        assert refusal(data[:cut]) is Code.TRUNCATED, cut


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "AVIF", "BMP", "GIF", "TIFF"])
def test_damaged_bytes_never_raise_anything_else(format: str) -> None:
    data = saved(Image.fromarray(photo(40, 60)), format)
    random = np.random.default_rng(11)
    for _ in range(150):
        damaged = bytearray(data)
        for at in random.integers(0, min(len(data), 600), 3):
            damaged[at] = random.integers(0, 256)
        with contextlib.suppress(PermanentError):
            decode(bytes(damaged), max_megapixels=4)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_a_png_with_too_few_rows() -> None:
    rows = bytes(1 + 3 * 10) * 10
    assert decoded(raw_png(10, 10, rows)).rgb.shape == (10, 10, 3)
    assert refusal(raw_png(10, 10, rows[:200])) is Code.TRUNCATED


def test_too_little_memory_is_an_answer_not_a_crash() -> None:
    script = (
        "import resource, struct, sys, zlib\n"
        "from model.codecs.decode import decode\n"
        "from pipeline.errors import PermanentError\n"
        "data = sys.stdin.buffer.read()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)\n"
        "try:\n    decode(data, max_megapixels=150)\n"
        "except PermanentError as error:\n    print(error.code, error.reason)\n"
    )
    jpeg = io.BytesIO()
    Image.new("RGB", (10_000, 10_000)).save(jpeg, "JPEG")
    for data in (raw_png(10_000, 10_000, bytes((1 + 30_000) * 10_000)), jpeg.getvalue()):
        done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=False)
        assert done.stdout.decode().startswith("too_large the image of 10000 x 10000 pixels needs more memory"), done


@pytest.mark.parametrize("make", [lambda: b"", lambda: b"no picture at all, just words"])
def test_what_probe_refuses_decode_refuses(make: Callable[[], bytes]) -> None:
    assert refusal(make()) in (Code.EMPTY_OBJECT, Code.NOT_AN_IMAGE)


DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("name", ["upright.heic", "rgba.heic"])
def test_heic(name: str) -> None:
    pytest.importorskip("pi_heif")
    data = (DATA / name).read_bytes()
    picture = decoded(data)
    # Encoded from 6 x 4 random colours, enlarged by cubic interpolation.
    small = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    expected = cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC)
    assert np.abs(picture.rgb.astype(np.int16) - expected).mean() < 8
    for cut in np.linspace(30, len(data) - 1, 40).astype(int):
        assert refusal(data[:cut]) is Code.TRUNCATED
