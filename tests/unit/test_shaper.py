import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from model.codecs.shaper import apply_shaper, shaper_of

SRGB = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
P3 = [(0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)]
ADOBE = [(0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)]


def gamma(value: float) -> bytes:
    return struct.pack(">4sIIHxx", b"curv", 0, 1, round(value * 256))


def table(*values: int) -> bytes:
    return struct.pack(f">4sII{len(values)}H", b"curv", 0, len(values), *values)


def parametric(kind: int, *numbers: float) -> bytes:
    return struct.pack(f">4sIHH{len(numbers)}i", b"para", 0, kind, 0, *(round(n * 65536) for n in numbers))


def profile(primaries: list[tuple[float, float, float]], curve: bytes) -> bytes:
    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">iii", *(round(v * 65536) for v in values))

    tags = {
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
    }
    for channel, primary in zip(b"rgb", primaries, strict=True):
        tags[bytes([channel]) + b"XYZ"] = xyz(primary)
        tags[bytes([channel]) + b"TRC"] = curve
    index, body = struct.pack(">I", len(tags)), b""
    start = 132 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        index += name + struct.pack(">II", start + len(body), len(value))
        body += value
    header = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    whole = header.ljust(128, b"\0") + index + body
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.mark.parametrize("primaries", [SRGB, P3, ADOBE], ids=["sRGB", "P3", "Adobe"])
@pytest.mark.parametrize(
    "curve",
    [
        gamma(1.0),
        gamma(1.8),
        gamma(2.19921875),
        table(),
        table(0, 8000, 30000, 65535),
        parametric(0, 2.2),
        parametric(1, 2.2, 1.02, -0.02),
        parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
        parametric(4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0),
    ],
)
def test_it_gives_what_littlecms_gives(primaries: list[tuple[float, float, float]], curve: bytes) -> None:
    icc = profile(primaries, curve)
    rgb = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        "RGB",
        "RGB",
        flags=ImageCms.Flags.NOOPTIMIZE,
    )
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(rgb), transform))
    shaper = shaper_of(icc)
    assert shaper is not None
    apply_shaper(rgb, shaper)
    difference = np.abs(rgb.astype(np.int16) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.1


@pytest.mark.parametrize(
    "icc",
    [
        b"",
        b"rubbish",
        profile(P3, gamma(2.2))[:200],
        profile(P3, b"curx" + bytes(8)),
        profile(P3, parametric(9, 1.0)),
        profile(P3, parametric(2, 2.2, 0.95, 0.02, 0.01)),
        profile(P3, parametric(3, 2.4)),
        profile(P3, parametric(1, 2.4, 0.0, 0.0)),
        profile(P3, gamma(2.2)).replace(b"RGB ", b"CMYK", 1),
        profile(P3, gamma(2.2)).replace(b"rTRC", b"A2B0", 1),
    ],
)
def test_anything_unusual_is_left_to_littlecms(icc: bytes) -> None:
    assert shaper_of(icc) is None
