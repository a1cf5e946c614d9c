"""Image files with something wrong in them: the same number always gives the same file."""

import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageCms

_EXTREMES: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One file.

    Attributes:
        name: of the sound file that it was.
        change: what was done to it.
        data: the file.
        sound: the file before.
    """

    name: str
    change: str
    data: bytes
    sound: bytes


def mutant(number: int) -> Mutant:
    """File `number` of an endless series."""
    chance = random.Random(number)
    files = sound_files()
    name = chance.choice(list(files))
    change = chance.choice(list(_CHANGES))
    data = files[name]
    for _ in range(1 if change == "cut" else chance.choice((1, 1, 2, 5))):
        data = _CHANGES[change](data, chance)
    return Mutant(name, change, data, files[name])


@lru_cache(maxsize=1)
def sound_files() -> Mapping[str, bytes]:
    """A small picture in every format and kind that is read, by name."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 13, 4), dtype=np.uint8)
    rgba = Image.fromarray(cv2.resize(noise, (131, 97), interpolation=cv2.INTER_CUBIC).astype(np.uint8))
    rgb = rgba.convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "somebody"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    more = {"exif": exif, "icc_profile": icc}
    sixteen = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [rgb.rotate(90, expand=False)]}
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "JPEG": (rgb, "JPEG", more),
        "JPEG progressive": (rgb, "JPEG", {"progressive": True}),
        "JPEG restarts": (rgb, "JPEG", {"restart_marker_rows": 1}),
        "JPEG grey": (rgb.convert("L"), "JPEG", {}),
        "JPEG CMYK": (rgb.convert("CMYK"), "JPEG", {}),
        "PNG": (rgb, "PNG", more),
        "PNG RGBA": (rgba, "PNG", {}),
        "PNG palette": (rgb.convert("P"), "PNG", {"transparency": 3}),
        "PNG 16 bit": (sixteen, "PNG", {}),
        "PNG 1 bit": (rgb.convert("1"), "PNG", {}),
        "WebP": (rgb, "WEBP", more),
        "WebP RGBA": (rgba, "WEBP", {}),
        "WebP lossless": (rgba, "WEBP", {"lossless": True}),
        "WebP animated": (rgb, "WEBP", frames),
        "AVIF": (rgb, "AVIF", more),
        "AVIF RGBA": (rgba, "AVIF", {}),
        "BMP": (rgb, "BMP", {}),
        "BMP palette": (rgb.convert("P"), "BMP", {}),
        "TIFF": (rgb, "TIFF", more),
        "TIFF LZW": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "TIFF deflate": (rgb, "TIFF", {"compression": "tiff_deflate"}),
        "TIFF JPEG": (rgb, "TIFF", {"compression": "jpeg"}),
        "TIFF G4": (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        "TIFF 16 bit": (sixteen, "TIFF", {}),
        "GIF": (rgb, "GIF", {}),
        "GIF animated": (rgb, "GIF", frames),
    }
    files = {}
    for name, (image, format, options) in kinds.items():
        out = io.BytesIO()
        image.save(out, format, **options)
        files[name] = out.getvalue()
    return files | {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "data").glob("*.heic"))}


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_header(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(min(len(data), 300))] = chance.randrange(256)
    return bytes(changed)


def _number(data: bytes, chance: random.Random) -> bytes:
    value, size = chance.choice(_EXTREMES), chance.choice((1, 2, 4))
    at = chance.randrange(min(len(data), chance.choice((64, 1 << 20))))
    order = "big" if chance.random() < 0.5 else "little"
    return data[:at] + (value % (1 << 8 * size)).to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data))]


def _zeroes(data: bytes, chance: random.Random) -> bytes:
    at, count = chance.randrange(len(data)), chance.randrange(1, 200)
    return data[:at] + bytes(min(count, len(data) - at)) + data[at + count :]


def _drop(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randrange(1, 64) :] or b"\0"


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.randrange(1, 64)) + data[at:]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    part = data[at : at + chance.randrange(1, 400)]
    return data[:at] + part * chance.choice((2, 3, 200)) + data[at + len(part) :]


def _splice(data: bytes, chance: random.Random) -> bytes:
    other = chance.choice(list(sound_files().values()))
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :] or b"\0"


_CHANGES: Final[Mapping[str, Callable[[bytes, random.Random], bytes]]] = {
    "flip": _flip,
    "header": _flip_header,
    "number": _number,
    "cut": _cut,
    "zeroes": _zeroes,
    "drop": _drop,
    "insert": _insert,
    "repeat": _repeat,
    "splice": _splice,
}
