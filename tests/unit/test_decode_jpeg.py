"""Decoding of JPEG, at full and reduced scale."""

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from model.codecs.decode import decode
from model.codecs.scratch import Scratch
from pipeline.errors import Code
from tests.decoding import assert_close, decoded, photo, profile, reference, refusal, saved


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


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_that_share_memory_are_decoded_as_those_that_do_not(orientation: int, mode: str) -> None:
    scratch = Scratch(600 * 400 * 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for height, width, at_least in ((120, 80, None), (400, 600, None), (402, 600, None), (333, 501, (60, 60))):
        image = Image.fromarray(photo(height, width)).convert(mode)
        data = saved(image, "JPEG", exif=exif, icc_profile=profile(1.4) if mode == "RGB" else None)
        expected = decode(data, max_megapixels=50, at_least=at_least).rgb
        rgb = decode(data, max_megapixels=50, at_least=at_least, scratch=scratch).rgb
        np.testing.assert_array_equal(rgb, expected)
        assert rgb.flags.c_contiguous
        if mode == "RGB" or orientation > 1:
            lent = scratch.lend(*rgb.shape)
            assert lent is None if height == 402 else lent is not None and np.shares_memory(rgb, lent)


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
