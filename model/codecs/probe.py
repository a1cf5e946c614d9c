"""What an object is, told from its first bytes; no pixel is decoded."""

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from pipeline.errors import Code, PermanentError


def _open_heic(file: io.BytesIO) -> ImageFile.ImageFile:
    # LGPL, with a decoder for HEVC, for which others claim patents: an extra, and only for those who want it.
    from pi_heif import HeifImageFile

    return cast(ImageFile.ImageFile, HeifImageFile(file))


# The plugins are called by name, not through Image.open: that would try forty formats, and guard against
# decompression bombs with a process-wide limit where check() has the one from the settings.
PLUGINS: Final[Mapping[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "HEIC": _open_heic,
}

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SUPPORTED_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (_PNG_SIGNATURE, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_REFUSED_MAGIC: Final = (
    (b"8BPS", "a Photoshop (PSD) file"),
    (b"%PDF-", "a PDF file"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"II\xbc\x01", "a JPEG XR file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"gimp xcf", "a GIMP (XCF) file"),
    (b"\0\0\x01\0", "an ICO file"),
    (b"DDS ", "a DDS texture"),
    (b"qoif", "a QOI file"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG file"),
    (b"FUJIFILMCCD-RAW", "a camera RAW (RAF) file"),
    (b"IIRO", "a camera RAW (ORF) file"),
    (b"IIRS", "a camera RAW (ORF) file"),
    (b"MMOR", "a camera RAW (ORF) file"),
    (b"IIU\0", "a camera RAW (RW2) file"),
    *((b"P%d%c" % (n, space), "a Netpbm file") for n in range(1, 7) for space in b"\n\r "),
)
_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_BMP_HEADER_SIZES: Final = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_SMALLEST_SNIFF: Final = 16
_DNG_VERSION: Final = 50706
_NEW_SUBFILE_TYPE: Final = 254
_FAX: Final = frozenset(("tiff_ccitt", "group3", "group4"))


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an image say.

    Attributes:
        format: JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF or HEIC.
        width: pixels, as shown: after the EXIF orientation.
        height: pixels, as shown.
        orientation: EXIF orientation 1…8 (1 upright). Metadata behind the given bytes is not seen.
    """

    format: str
    width: int
    height: int
    orientation: int = 1


def probe(data: bytes) -> Header:
    """Tell format and size from the bytes of an object, or from a prefix of them.

    A prefix of some ten kilobytes is enough for most files. A TIFF may keep its directory at the end and AVIF
    and HEIC are read only as a whole: for these a prefix raises TRUNCATED.

    Raises:
        PermanentError: EMPTY_OBJECT; NOT_AN_IMAGE; UNSUPPORTED_FORMAT, naming what it is; TRUNCATED when the
            header is cut off or damaged.
    """
    if not data:
        raise PermanentError(Code.EMPTY_OBJECT, "the object has no bytes")
    format = sniff(data)
    if format == "HEIC" and find_spec("pi_heif") is None:
        raise _refused("a HEIC file, which needs pip install 'mattemill[heic]'")
    if format == "AVIF" and not features.check("avif"):
        raise _refused("an AVIF file, which the installed Pillow cannot read")
    try:
        header = _READERS.get(format, _read_with_pillow)(data, format)
    except PermanentError:
        raise
    except MemoryError as error:
        raise PermanentError(Code.TOO_LARGE, f"there is no memory to read the {format} header") from error
    except Exception as error:
        raise _cut(format, str(error)) from error
    if header.width < 1 or header.height < 1:
        raise _cut(format, f"it states {header.width} x {header.height} pixels")
    return header


def check(header: Header, max_megapixels: int) -> None:
    """Refuse an image with more than `max_megapixels` million pixels, before any of them is decoded.

    Raises:
        PermanentError: TOO_LARGE.
    """
    pixels = header.width * header.height
    if pixels > max_megapixels * 1_000_000:
        raise PermanentError(
            Code.TOO_LARGE,
            f"the image has {pixels / 1e6:.1f} megapixels ({header.width} x {header.height}),"
            f" at most {max_megapixels} are allowed",
        )


def orientation_in(info: Mapping[str | tuple[int, int], object]) -> int:
    """Read the EXIF orientation 1…8 from an info dictionary, by Pillow's own rules; 1 when unreadable."""
    carrier = Image.new("L", (1, 1))
    carrier.info = dict(info)
    return orientation_of(carrier)


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation 1…8 of an opened image; 1 when it has none or it is unreadable."""
    try:
        # The base class: PngImageFile.getexif would decode the pixels.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  broken metadata is no reason to refuse a picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def sniff(data: bytes) -> str:
    """Tell the format of a file by its first kilobyte, installed decoders or not.

    Raises:
        PermanentError: NOT_AN_IMAGE; UNSUPPORTED_FORMAT, naming what it is; TRUNCATED when too few bytes are there.
    """
    for magic, format in _SUPPORTED_MAGIC:
        if data.startswith(magic):
            return format
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if data[4:8] == b"ftyp":
        return _sniff_media(data)
    for magic, name in _REFUSED_MAGIC:
        if data.startswith(magic):
            raise _refused(name)
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start:
        raise _refused("an SVG drawing")
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        raise PermanentError(Code.NOT_AN_IMAGE, "the object is an HTML page")
    if len(data) < _SMALLEST_SNIFF and _begins_a_signature(data):
        raise _ended(data)
    begin = "".join(chr(byte) if 32 <= byte < 127 else f"<{byte:02x}>" for byte in data[:12])
    raise PermanentError(Code.NOT_AN_IMAGE, f"the first bytes belong to no known image format: {begin}")


def _sniff_media(data: bytes) -> str:
    """Tell AVIF, HEIC and video apart by the brands of the ISO media box at the start."""
    end = int.from_bytes(data[:4], "big")
    if len(data) < max(end, 16):
        raise _ended(data)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIC"
    if data[8:12] == b"crx ":
        raise _refused("a camera RAW (CR3) file")
    raise _refused("a video or another media file")


def _begins_a_signature(data: bytes) -> bool:
    known = (*(magic for magic, _ in _SUPPORTED_MAGIC), b"RIFF", b"BM")
    return any(magic.startswith(data[: len(magic)]) for magic in known)


def _read_png(data: bytes, format: str) -> Header:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise _cut(format, "the IHDR chunk is not there")
    width, height = struct.unpack(">II", data[16:24])
    info: dict[str | tuple[int, int], object] = {}
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"eXIf" and at + 8 + length <= len(data):
            info["exif"] = b"Exif\0\0" + data[at + 8 : at + 8 + length]
        at += 12 + length
    return _shown(format, width, height, orientation_in(info))


def _read_webp(data: bytes, format: str) -> Header:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise _cut(format, "the first chunk is not there")
    if kind == b"VP8X":
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
    elif kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width = int.from_bytes(body[6:8], "little") & 0x3FFF
        height = int.from_bytes(body[8:10], "little") & 0x3FFF
    elif kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise _cut(format, f"the first chunk is {kind!r}")
    info: dict[str | tuple[int, int], object] = {}
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        name = {b"EXIF": "exif", b"XMP ": "xmp"}.get(data[at : at + 4])
        if name is not None and at + 8 + length <= len(data):
            info[name] = data[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)
    return _shown(format, width, height, orientation_in(info))


def _read_with_pillow(data: bytes, format: str) -> Header:
    with PLUGINS[format](io.BytesIO(data)) as image:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # A raw file is a TIFF whose first picture is a thumbnail: worse than no result.
            tags = image.tag_v2
            if _DNG_VERSION in tags or tags.get(_NEW_SUBFILE_TYPE, 0) & 1 or data[8:10] == b"CR":
                raise _refused("a camera RAW file")
            # Black and white scans; libtiff invents what it cannot decode of them, and calls that a warning.
            if image.info.get("compression") in _FAX:
                raise _refused("a fax (CCITT) TIFF")
            return Header(format, image.width, image.height, orientation_of(image))
        return _shown(format, image.width, image.height, orientation_of(image))


_READERS: Final[Mapping[str, Callable[[bytes, str], Header]]] = {"PNG": _read_png, "WebP": _read_webp}


def _shown(format: str, width: int, height: int, orientation: int) -> Header:
    if orientation >= 5:
        width, height = height, width
    return Header(format, width, height, orientation)


def _refused(name: str) -> PermanentError:
    return PermanentError(Code.UNSUPPORTED_FORMAT, f"the object is {name}; supported are {', '.join(PLUGINS)}")


def _ended(data: bytes) -> PermanentError:
    return PermanentError(Code.TRUNCATED, f"the object ends after {len(data)} bytes, within the header")


def _cut(format: str, detail: str) -> PermanentError:
    return PermanentError(Code.TRUNCATED, f"the {format} header is cut off or damaged ({detail})")
