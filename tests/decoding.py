"""What the tests of decoding share: pictures, and what another library makes of them."""

import io
import struct

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from model.codecs.decode import Picture, decode
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
