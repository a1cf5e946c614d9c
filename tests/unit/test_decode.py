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
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import Image, ImageCms, ImageOps

from model.codecs.decode import Picture, decode, turn
from pipeline.errors import Code, PermanentError

UInt8 = npt.NDArray[np.uint8]


def photo(height: int, width: int, channels: int = 3) -> UInt8:
    """Smooth random colours with some grain."""
    random = np.random.default_rng(7)
    small = random.integers(0, 255, (6, 8, channels), dtype=np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def decoded(data: bytes, at_least: tuple[int, int] | None = None) -> Picture:
    picture = decode(data, max_megapixels=50, at_least=at_least)
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.flags.c_contiguous
    assert picture.rgb.flags.writeable
    if picture.alpha is not None:
        assert picture.alpha.dtype == np.uint8
        assert picture.alpha.flags.c_contiguous
        assert picture.alpha.shape == picture.rgb.shape[:2]
    return picture


def reference(data: bytes, mode: str = "RGB") -> UInt8:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert(mode))


def assert_visible_equal(picture: Picture, rgb: UInt8) -> None:
    """What is fully transparent is white, whatever the file hides there."""
    expected = rgb if picture.alpha is None else np.where(picture.alpha[:, :, None] == 0, np.uint8(255), rgb)
    np.testing.assert_array_equal(picture.rgb, expected)


def assert_close(one: UInt8, other: UInt8, levels: int) -> None:
    assert one.shape == other.shape
    assert np.abs(one.astype(np.int16) - other).max() <= levels


def refusal(data: bytes) -> Code:
    with pytest.raises(PermanentError) as caught:
        decode(data, max_megapixels=50)
    assert caught.value.reason
    return caught.value.code


# JPEG


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_jpeg_is_what_pillow_decodes(mode: str, options: dict[str, object]) -> None:
    data = saved(Image.fromarray(photo(211, 317)).convert(mode), "JPEG", **options)
    picture = decoded(data)
    assert_close(picture.rgb, reference(data), 3)
    assert picture.alpha is None
    assert (picture.full_height, picture.full_width) == (211, 317)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("at_least", [None, (40, 40), (100, 79), (1000, 1000)])
def test_jpeg_is_turned_upright(orientation: int, at_least: tuple[int, int] | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(photo(336, 504)), "JPEG", exif=exif, quality=95)
    whole = reference(data)
    picture = decoded(data, at_least)
    assert (picture.full_height, picture.full_width) == whole.shape[:2]
    if picture.rgb.shape == whole.shape:
        assert_close(picture.rgb, whole, 3)
    else:
        height, width = picture.rgb.shape[:2]
        shrunk = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(picture.rgb.astype(np.int16) - shrunk).mean() < 2


@pytest.mark.parametrize(
    ("at_least", "scale"),
    [
        ((42, 63), 8),
        ((43, 63), 4),
        ((42, 64), 4),
        ((84, 126), 4),
        ((85, 1), 2),
        ((167, 251), 2),
        ((168, 1), 1),
    ],
)
def test_the_scale_is_the_smallest_that_suffices(at_least: tuple[int, int], scale: int) -> None:
    data = saved(Image.fromarray(photo(333, 501)), "JPEG")
    rgb = decoded(data, at_least).rgb
    assert rgb.shape[:2] == (-(-333 // scale), -(-501 // scale))


def test_a_turned_jpeg_is_large_enough_on_the_right_sides() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(photo(200, 800)), "JPEG", exif=exif)
    assert decoded(data, at_least=(400, 60)).rgb.shape[:2] == (400, 100)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_never_passes(mode: str, progressive: bool) -> None:
    data = saved(Image.fromarray(photo(120, 170)).convert(mode), "JPEG", progressive=progressive)
    assert refusal(data[:-1]) is Code.TRUNCATED
    for cut in np.linspace(3, len(data) - 3, 40).astype(int):
        assert refusal(data[:cut]) is Code.TRUNCATED
        assert refusal(data[:cut] + b"\xff\xd9") is Code.TRUNCATED
        assert refusal(data[:cut] + bytes(len(data) - cut)) is Code.TRUNCATED


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
def test_zeroes_before_an_end_marker(cut: float) -> None:
    data = saved(Image.fromarray(photo(400, 600)), "JPEG")
    kept = int(len(data) * cut)
    assert refusal(data[:kept] + bytes(len(data) - kept - 2) + b"\xff\xd9") is Code.TRUNCATED


def test_a_progressive_jpeg_that_lacks_whole_scans() -> None:
    data = saved(Image.fromarray(photo(120, 170)), "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for start in scans[1:]:
        faked = data[:start] + b"\xff\xd9"
        assert refusal(faked) is Code.TRUNCATED


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm() -> None:
    data = saved(Image.fromarray(photo(50, 60)), "JPEG")
    np.testing.assert_array_equal(decoded(data + b"a motion photo's film").rgb, decoded(data).rgb)


@pytest.mark.parametrize("precision", [12, 16])
def test_a_jpeg_with_more_bits_is_refused_or_named(precision: int) -> None:
    data = bytearray(saved(Image.fromarray(photo(50, 60)), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = precision
    assert refusal(bytes(data)) in (Code.UNSUPPORTED_FORMAT, Code.TRUNCATED)


def test_cmyk_jpeg() -> None:
    data = saved(Image.fromarray(photo(90, 130)).convert("CMYK"), "JPEG", quality=95)
    assert_close(decoded(data).rgb, reference(data), 3)
    assert decoded(data, at_least=(20, 20)).rgb.shape == (23, 33, 3)


def test_ycck_jpeg() -> None:
    inks = photo(90, 130, 4)
    data = bytearray(saved(Image.frombytes("CMYK", (130, 90), inks.tobytes()), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    assert simplejpeg.decode_jpeg_header(bytes(data))[2] in ("YCCK", "CMYK")
    assert_close(decoded(bytes(data)).rgb, reference(bytes(data)), 4)


# Colours


def profile(gamma: float, space: str = "RGB") -> bytes:
    """An ICC profile with the primaries of sRGB and another tone curve, or a gray one."""
    curve = struct.pack(">4sIIHxx", b"curv", 0, 1, round(gamma * 256))
    xyz = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
    tags = {
        b"wtpt": _xyz((0.9642, 1.0, 0.8249)),
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
    }
    if space == "RGB":
        for channel, primary in zip(b"rgb", xyz, strict=True):
            tags[bytes([channel]) + b"XYZ"] = _xyz(primary)
            tags[bytes([channel]) + b"TRC"] = curve
    else:
        tags[b"kTRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    header = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02400000, b"mntr", space.ljust(4).encode(), b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    whole = header.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">iii", *(round(v * 65536) for v in values))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "TIFF"])
def test_colours_become_srgb(format: str) -> None:
    icc = profile(1.0)
    options = {"quality": 100} | (
        {"lossless": True} if format == "WebP" else {"subsampling": 0} if format == "JPEG" else {}
    )
    data = saved(Image.fromarray(photo(60, 80)), format, icc_profile=icc, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        )
    assert expected is not None
    rgb = decoded(data).rgb
    # A linear profile makes dark levels much brighter, so an error of the decoder by one level weighs more.
    assert np.abs(rgb.astype(np.int16) - np.asarray(expected)).mean() < 1
    assert rgb.mean() > photo(60, 80).mean() + 20


def test_gray_with_a_gray_profile() -> None:
    data = saved(Image.fromarray(photo(60, 80)).convert("L"), "PNG", icc_profile=profile(1.0, "GRAY"))
    rgb = decoded(data).rgb
    level = int(reference(data, "L")[30, 40])
    assert abs(int(rgb[30, 40, 0]) - 255 * (1.055 * (level / 255) ** (1 / 2.4) - 0.055)) < 3
    assert np.ptp(rgb.astype(np.int16), axis=2).max() <= 1


def test_an_srgb_profile_changes_nothing() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = photo(60, 80)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(pixels), "PNG", icc_profile=icc)).rgb, pixels)


@pytest.mark.parametrize("icc", [b"rubbish", b"", profile(1.0)[:150], profile(1.0, "GRAY"), profile(1.0, "CMYK")])
def test_a_profile_that_does_not_fit_is_ignored(icc: bytes) -> None:
    pixels = photo(60, 80)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(pixels), "PNG", icc_profile=icc)).rgb, pixels)


# Other formats


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


def test_own_colours_come_with_their_profile() -> None:
    pixels, icc = photo(60, 80), profile(1.0)
    data = saved(Image.fromarray(pixels), "PNG", icc_profile=icc)
    kept = decode(data, max_megapixels=50, own_colours=True)
    np.testing.assert_array_equal(kept.rgb, pixels)
    assert kept.icc == icc
    assert decoded(data).icc is None


def test_own_colours_that_are_not_rgb_become_srgb() -> None:
    for mode, space in (("L", "GRAY"), ("CMYK", "CMYK")):
        data = saved(Image.fromarray(photo(60, 80)).convert(mode), "JPEG", icc_profile=profile(1.0, space))
        picture = decode(data, max_megapixels=50, own_colours=True)
        assert picture.icc is None
        np.testing.assert_array_equal(picture.rgb, decoded(data).rgb)


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
