import io
import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.codecs.png import encode_png, verify_png
from pipeline.errors import Code, PermanentError


def assert_exact(image: npt.NDArray[np.uint8]) -> None:
    data = encode_png(image)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == ("L" if image.ndim == 2 else "RGBA")
        np.testing.assert_array_equal(np.asarray(opened), image)
    by_cv2 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert by_cv2 is not None
    np.testing.assert_array_equal(by_cv2 if image.ndim == 2 else cv2.cvtColor(by_cv2, cv2.COLOR_BGRA2RGBA), image)
    verify_png(data)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    gray=st.booleans(),
    smooth=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_decodes_to_the_same_pixels(height: int, width: int, gray: bool, smooth: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (height, width) if gray else (height, width, 4)
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
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint16),
        np.zeros((0, 4), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((1, 4, 4, 4), np.uint8),
    ],
)
def test_refuses_what_is_no_picture(image: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_png(image)


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
