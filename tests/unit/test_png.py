import io
import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from model.codecs.png import PngWriter, encode_png
from model.codecs.png_chunks import verify_png
from pipeline.errors import Code, PermanentError


def assert_exact(image: npt.NDArray[np.uint8]) -> None:
    data = encode_png(image)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == ("L" if image.ndim == 2 else {3: "RGB", 4: "RGBA"}[image.shape[2]])
        np.testing.assert_array_equal(np.asarray(opened), image)
    by_cv2 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert by_cv2 is not None
    if image.ndim == 3:
        by_cv2 = by_cv2[:, :, [2, 1, 0, 3][: image.shape[2]]]
    np.testing.assert_array_equal(by_cv2, image)
    verify_png(data)


@settings(max_examples=150)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    channels=st.sampled_from([1, 3, 4]),
    smooth=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_decodes_to_the_same_pixels(height: int, width: int, channels: int, smooth: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    image = random.integers(0, 256, shape, dtype=np.uint8)
    assert_exact(image // 64 * 64 if smooth else image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 4), (1, 70_001, 4), (300_001, 1, 4), (1501, 999, 4), (2100, 1033)])
def test_strips_fit_together(shape: tuple[int, ...]) -> None:
    assert_exact(np.random.default_rng(3).integers(0, 40, shape, dtype=np.uint8))


def test_an_array_that_is_not_contiguous() -> None:
    image = np.random.default_rng(3).integers(0, 255, (40, 60, 4), dtype=np.uint8)
    assert_exact(image[::-2, 3::3])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4), np.uint16),
        np.zeros((0, 4), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((1, 4, 4, 4), np.uint8),
    ],
)
def test_refuses_what_is_no_picture(image: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="a PNG"):
        encode_png(image)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=6), st.integers(1, 700))
def test_rows_may_come_in_any_pieces(pieces: list[int], width: int) -> None:
    image = np.random.default_rng(3).integers(0, 40, (sum(pieces), width, 4), dtype=np.uint8)
    writer = PngWriter(*image.shape)
    buffer = np.empty_like(image)
    for top, count in zip(np.cumsum([0, *pieces]), pieces, strict=False):
        buffer[:count] = image[top : top + count]  # the same memory each time, as the cutout does it
        writer.write(buffer[:count])
    with Image.open(io.BytesIO(writer.finish())) as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)


def test_too_few_and_too_many_rows() -> None:
    writer = PngWriter(2, 5, 4)
    writer.write(np.zeros((1, 5, 4), np.uint8))
    with pytest.raises(ValueError, match="lacks 1 rows"):
        writer.finish()
    with pytest.raises(ValueError, match="2 rows too many"):
        writer.write(np.zeros((3, 5, 4), np.uint8))


@pytest.mark.parametrize(
    "rows",
    [np.zeros((1, 6, 4), np.uint8), np.zeros((1, 4, 4), np.uint8), np.zeros((1, 5, 4)), np.zeros((1, 5, 4), np.uint16)],
    ids=["wider", "narrower", "floats", "16 bits"],
)
def test_rows_of_another_picture(rows: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="uint8 of 20 bytes"):
        PngWriter(2, 5, 4).write(rows)


def test_exif_and_profile_are_found_again() -> None:
    exif = Image.Exif()
    exif[0x8298] = "somebody"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode_png(np.zeros((3, 4, 4), np.uint8), exif=exif.tobytes().removeprefix(b"Exif\0\0"), icc=icc)
    verify_png(data)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info["icc_profile"] == icc
        assert opened.getexif()[0x8298] == "somebody"


def test_every_changed_byte_is_noticed() -> None:
    data = encode_png(np.random.default_rng(0).integers(0, 255, (9, 9, 4), dtype=np.uint8))
    for at in range(8, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(PermanentError) as caught:
            verify_png(bytes(damaged))
        assert caught.value.code is Code.TRUNCATED


def test_a_chunk_that_claims_to_be_longer_than_the_file() -> None:
    data = encode_png(np.zeros((2, 2), np.uint8))
    huge = b"IDAT" + bytes(10)
    with pytest.raises(PermanentError, match="ends after"):
        verify_png(data[:33] + struct.pack(">I", 0xFFFFFFF0) + huge + struct.pack(">I", zlib.crc32(huge)))
